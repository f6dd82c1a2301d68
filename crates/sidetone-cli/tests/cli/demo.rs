//! The demonstration, checked independently of its own check.

use std::time::Duration;

use sidetone_audio::tone;

use crate::kit::{best_match, read_stereo, sidetone, stderr};

/// The echo is checked in pieces, and the median counts, as live audio skips frames on a busy machine.
const PIECE: usize = 1280;

#[test]
fn demo_once_writes_a_recording_with_the_greeting_and_the_echo() {
    let directory = tempfile::tempdir().unwrap();
    let demo = sidetone(["demo", "--once", "--listen", "127.0.0.1:0"])
        .current_dir(&directory)
        .output()
        .unwrap();
    let output = String::from_utf8(demo.stdout.clone()).unwrap();
    assert_eq!(demo.status.code(), Some(0), "{output}{}", stderr(&demo));
    for line in [
        "hears the greeting",
        "hears itself",
        "receives the digit",
        "hung up",
        "demo.wav",
    ] {
        assert!(output.contains(line), "{line:?} is not in {output}");
    }

    let (rate, caller, server) = read_stereo(&directory.path().join("demo.wav"));
    assert_eq!(rate, 8000);
    let (at, greeting) = best_match(&tone::greeting(8000), &server[..24_000]);
    assert!(greeting >= 0.9, "the greeting: {greeting} at {at}");

    let voice = tone::caller_voice(8000, Duration::from_millis(3200), 7);
    let (spoken_at, spoken) = best_match(&voice, &caller);
    assert!(
        spoken >= 0.99,
        "the caller's own side: {spoken} at {spoken_at}"
    );
    let mut echo: Vec<f64> = voice
        .chunks_exact(PIECE)
        .enumerate()
        // One pause is as good as another.
        .filter(|(_, piece)| piece.iter().any(|sample| sample.abs() > 1000))
        .map(|(place, piece)| {
            let from = spoken_at + place * PIECE;
            // At most 600 ms after it was said.
            best_match(piece, &server[from..from + PIECE + 4800]).1
        })
        .collect();
    echo.sort_by(f64::total_cmp);
    assert!(echo[echo.len() / 2] >= 0.9, "the echo: {echo:?}");
}
