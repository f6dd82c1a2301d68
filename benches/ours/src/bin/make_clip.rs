//! Writes sound that the load can verify byte for byte.
//!
//!     make_clip FILE SECONDS

use sidetone_load::clip;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(path), Some(seconds)) = (words.next(), words.next()) else {
        return Err("usage: make_clip FILE SECONDS".into());
    };
    let frames = seconds.parse::<u32>()? * 50;
    let samples = clip(frames);
    let bytes: Vec<u8> = samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    std::fs::write(path, bytes)?;
    Ok(())
}
