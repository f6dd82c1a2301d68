//! Echo in the two-callback style.
//!
//!     echo_callback PORT

use sidetone::callback::{self, CallInfo, Input, Reply};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args()
        .nth(1)
        .ok_or("usage: echo_callback PORT")?
        .parse()?;
    sidetone_bench_servers::tell_allocations();
    let server = callback::start_server(
        |_: &CallInfo| {
            |input: Input<'_>, reply: &mut Reply| {
                if let Input::Audio(frame) = input {
                    reply.send(frame.samples());
                }
            }
        },
        |_: &CallInfo, _| {},
        ("127.0.0.1", port),
    )?;
    server.wait();
    Ok(())
}
