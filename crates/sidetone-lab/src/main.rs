#![allow(clippy::print_stdout)]
//! x
fn main() -> Result<(), sidetone_lab::fetch::FetchError> {
    println!("{:?}", sidetone_lab::fetch::asterisk()?);
    println!("{:?}", sidetone_lab::fetch::package("asterisk-core-sounds-en-wav")?);
    Ok(())
}
