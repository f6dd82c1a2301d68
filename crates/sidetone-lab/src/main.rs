#![allow(clippy::print_stdout)]
//! x
#[tokio::main]
async fn main() -> Result<(), sidetone_lab::StartError> {
    let t = std::time::Instant::now();
    let a = sidetone_lab::Asterisk::start(Default::default()).await?;
    println!("{:?} {}", t.elapsed(), a.pid());
    for c in [
        "core show version",
        "module show",
        "dialplan show",
        "pjsip show endpoints",
        "http show status",
    ] {
        println!("{}", a.cli(c).await?);
    }
    println!("{}", a.log());
    let t = std::time::Instant::now();
    drop(a);
    println!("{:?}", t.elapsed());
    Ok(())
}
