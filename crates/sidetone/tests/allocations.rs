//! Once calls run, nothing is allocated for any frame of them, in the whole process. The callers are in
//! another one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    alloc::System,
    env,
    net::SocketAddr,
    process::{Child, Command},
    thread::sleep,
    time::Duration,
};

use sidetone::callback::{self, CallInfo, Input, Reply};
use sidetone_caller::{Caller, Voice, call_all};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use support::{IoBackend, builder, echo, millis, runtime, serve};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLS: u64 = 20;
const WARM_UP: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_millis(500);
const WINDOWS: u32 = 3;
const ADDRESS: &str = "SIDETONE_TEST_ADDRESS";

fn main() {
    if let Ok(address) = env::var(ADDRESS) {
        return call(address.parse().unwrap());
    }
    support::run_tests(
        1,
        &[
            (
                "an_async_echo_allocates_nothing_per_frame",
                an_async_echo_allocates_nothing_per_frame,
            ),
            (
                "a_callback_echo_allocates_nothing_per_frame",
                a_callback_echo_allocates_nothing_per_frame,
            ),
        ],
    );
}

/// What the other process does.
fn call(address: SocketAddr) {
    let callers = (0..CALLS).map(|n| {
        let caller = Caller::new(address).say(Voice::Ramp(n)).jitter(n);
        let length = WARM_UP + WINDOWS * WINDOW + millis(500);
        caller.start_after(millis(3 * n)).hang_up_after(length)
    });
    for record in call_all(callers.collect()) {
        assert!(!record.unwrap().echo().is_empty());
    }
}

fn place_calls(address: SocketAddr) -> Child {
    let mut other = Command::new(env::current_exe().unwrap());
    other.env(ADDRESS, address.to_string()).spawn().unwrap()
}

/// Counts what is allocated while calls run to this address.
fn assert_nothing_per_frame(address: SocketAddr) {
    let mut calls = place_calls(address);
    sleep(WARM_UP);
    let windows = (0..WINDOWS).map(|_| {
        let region = Region::new(ALLOCATOR);
        sleep(WINDOW);
        region.change()
    });
    let taken = |change: &Stats| (change.allocations + change.reallocations) as u64;
    // A hiccup of the machine makes a buffer grow; what is taken per frame is taken in every window.
    let least = windows.min_by_key(taken).unwrap();
    let frames = CALLS * WINDOW.as_millis() as u64 / 20;
    println!("{frames} frames each way: {least:?}");
    assert!(calls.wait().unwrap().success());
    assert!(taken(&least) < frames / 100, "{frames} frames: {least:?}");
}

fn an_async_echo_allocates_nothing_per_frame(io: IoBackend) {
    let runtime = runtime(2);
    let server = runtime.block_on(serve(builder(io), echo));
    assert_nothing_per_frame(server.address);
    runtime.block_on(server.end());
}

fn a_callback_echo_allocates_nothing_per_frame(io: IoBackend) {
    let server = callback::start(
        builder(io),
        |_: &CallInfo| {
            |input: Input<'_>, reply: &mut Reply| {
                if let Input::Audio(frame) = input {
                    reply.send(frame.samples());
                }
            }
        },
        |_, _| {},
        "127.0.0.1:0",
    )
    .unwrap();
    assert_nothing_per_frame(server.local_addr());
}
