//! What the codec `auto` makes of people: decisions over the English prompts of Asterisk, in virtual time.
//!
//! The prompts are fetched, as Asterisk itself is. If they are not available the test is skipped, with a message; where the variable `CI` is set
//! that is a failure.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../sidetone-audio/tests/it/line.rs"]
mod line;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use line::{Codec, Line};
use sidetone_audio::detect::{Detector, Verdict};
use sidetone_audio::level::rms_dbfs;
use sidetone_audio::sound::{Loaded, Sound, SoundError};
use sidetone_lab::fetch;

/// Frame lengths, in milliseconds.
const PTIMES: [usize; 3] = [10, 20, 30];

/// How many prompts for each codec, frame length and situation, none of them twice: 540 in all.
const PROMPTS: usize = 9;

/// Samples of 8 kHz in a second.
const SECOND: usize = 8_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Situation {
    AsItIs,
    AfterFiveSecondsOfSilence,
    Faint,
    AfterComfortNoise,
    InBursts,
}

const SITUATIONS: [Situation; 5] = [
    Situation::AsItIs,
    Situation::AfterFiveSecondsOfSilence,
    Situation::Faint,
    Situation::AfterComfortNoise,
    Situation::InBursts,
];

/// By situation and codec, then by the length of a frame.
type Table = BTreeMap<(Situation, String), BTreeMap<usize, Counts>>;

#[derive(Default)]
struct Counts {
    right: usize,
    undecided: usize,
    wrong: Vec<String>,
}

#[test]
fn of_five_hundred_decisions_over_human_prompts_none_is_wrong() {
    let Some(prompts) = prompts() else { return };
    let mut counted = Table::new();
    let mut prompt = prompts.iter();
    for situation in SITUATIONS {
        for codec in Codec::ALL {
            for ptime in PTIMES {
                for _ in 0..PROMPTS {
                    let path = prompt.next().unwrap();
                    let verdict = decide(path, situation, codec, ptime);
                    let row = (situation, format!("{codec:?}"));
                    let counts = counted.entry(row).or_default().entry(ptime).or_default();
                    match verdict {
                        Verdict::Undecided => counts.undecided += 1,
                        verdict if verdict == right(codec) => counts.right += 1,
                        verdict => counts
                            .wrong
                            .push(format!("{verdict:?}: {}", path.display())),
                    }
                }
            }
        }
    }
    // Past the capture of the test harness: the table is half of what this is for.
    std::io::stderr()
        .write_all(table(&counted).as_bytes())
        .unwrap();

    let all = SITUATIONS.len() * Codec::ALL.len() * PTIMES.len() * PROMPTS;
    let count = |of: fn(&Counts) -> usize| {
        counted
            .values()
            .flat_map(BTreeMap::values)
            .map(of)
            .sum::<usize>()
    };
    assert_eq!(
        count(|counts| counts.right + counts.undecided + counts.wrong.len()),
        all
    );
    assert_eq!(count(|counts| counts.wrong.len()), 0);
    assert!(count(|counts| counts.undecided) <= all / 20);
}

#[test]
fn no_prompt_is_refused_under_its_own_name_and_hardly_one_plays_under_another() {
    let Some(prompts) = prompts() else { return };
    let names = [
        (Codec::Slin, "a.sln"),
        (Codec::Ulaw, "a.pcm"),
        (Codec::Alaw, "a.alaw"),
    ];
    let (mut tried, mut undecided) = (0, 0);
    for path in &prompts {
        let sound = Sound::open(path).unwrap().to_rate(8_000).unwrap().samples;
        for (codec, right) in names {
            let bytes = codec.encode(&sound);
            for (_, name) in names {
                let loaded = Loaded::from_reader(&bytes[..], Some(name.as_ref()));
                let at = format!("{} as {codec:?} called {name}", path.display());
                match loaded {
                    Ok(_) => undecided += usize::from(name != right),
                    Err(SoundError::Misnamed { extensions, .. }) => {
                        assert_ne!(name, right, "{at}");
                        let is_named = match codec {
                            Codec::Slin => extensions.contains(".sln16"),
                            Codec::Ulaw => extensions == ".ulaw",
                            _ => extensions == ".alaw",
                        };
                        assert!(is_named, "{at}: {extensions}");
                    }
                    Err(error) => panic!("{at}: {error}"),
                }
                tried += usize::from(name != right);
            }
        }
    }
    assert!(
        undecided * 20 < tried,
        "{undecided} of {tried} play under another name"
    );
}

/// All prompts, in an order that mixes their topics.
fn prompts() -> Option<Vec<PathBuf>> {
    let package = match fetch::package("asterisk-core-sounds-en-wav") {
        Ok(package) => package,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            let notice = format!(
                "\n*** SKIPPED: the prompts are not available here. ***\n*** {error} ***\n"
            );
            std::io::stderr().write_all(notice.as_bytes()).unwrap();
            return None;
        }
    };
    let mut folders = vec![package.join("usr/share/asterisk/sounds")];
    let mut prompts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "wav") {
                prompts.push(path);
            }
        }
    }
    prompts.sort_by_cached_key(|path| {
        let name = path.file_stem().unwrap().to_string_lossy();
        (name.chars().rev().collect::<String>(), path.clone())
    });
    Some(prompts)
}

fn decide(path: &PathBuf, situation: Situation, codec: Codec, ptime: usize) -> Verdict {
    let mut sound = Sound::open(path).unwrap().to_rate(8_000).unwrap().samples;
    sound.truncate(4 * SECOND);
    let mut line = Line::new(ptime, sound.len() as u64);
    match situation {
        Situation::AsItIs => {}
        Situation::AfterFiveSecondsOfSilence => {
            sound.splice(..0, vec![0; 5 * SECOND]);
        }
        Situation::Faint => {
            let factor = 10_f32.powf((-45.0 - rms_dbfs(&sound)) / 20.0);
            for sample in &mut sound {
                *sample = (f32::from(*sample) * factor).round() as i16;
            }
        }
        Situation::AfterComfortNoise => {
            // White, as Asterisk makes it, at about −55 dBFS.
            let hiss = sidetone_caller::ramp(1, 0, 2 * SECOND);
            sound.splice(..0, hiss.into_iter().map(|sample| sample / 160));
        }
        Situation::InBursts => line.burst = Some((7, 10)),
    }
    let mut detector = Detector::new();
    for (at, payload) in line.deliver(&codec.encode(&sound), codec.bytes_per_ms()) {
        detector.push(at, &payload);
    }
    detector.verdict()
}

fn right(codec: Codec) -> Verdict {
    match codec {
        Codec::Slin => Verdict::Slin,
        Codec::Ulaw => Verdict::Ulaw,
        Codec::Alaw => Verdict::Alaw,
        Codec::G722 => Verdict::Unsupported {
            bytes_per_second: 8_000,
        },
    }
}

fn table(counted: &Table) -> String {
    let mut table = String::from("\nauto over human prompts: right, undecided, wrong\n");
    write!(table, "{:32}", "").unwrap();
    for ptime in PTIMES {
        write!(table, "  {ptime:5} ms").unwrap();
    }
    for ((situation, codec), by_ptime) in counted {
        let situation = format!("{situation:?}");
        write!(table, "\n  {situation:26}{codec:4}").unwrap();
        for counts in by_ptime.values() {
            let (right, undecided, wrong) = (counts.right, counts.undecided, counts.wrong.len());
            write!(table, "  {right:2} {undecided:2} {wrong:2}").unwrap();
        }
    }
    for wrong in counted
        .values()
        .flat_map(BTreeMap::values)
        .flat_map(|counts| &counts.wrong)
    {
        write!(table, "\n    {wrong}").unwrap();
    }
    table + "\n"
}
