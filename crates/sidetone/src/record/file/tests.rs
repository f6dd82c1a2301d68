#![allow(clippy::unwrap_used)]
use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;
use time::{Date, Month, Time};

use super::*;

fn disk(limit: u32) -> (TempDir, Storage) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Storage {
        directory: directory.path().to_owned(),
        limit,
        open: open_new,
    };
    (directory, disk)
}

fn names_in(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn samples(path: &Path) -> Vec<i16> {
    let mut reader = hound::WavReader::open(path).unwrap();
    assert_eq!(reader.spec().channels, 2);
    reader.samples::<i16>().map(Result::unwrap).collect()
}

fn output(disk: &Storage) -> Output {
    Output::create(disk, "call".into(), 8_000).unwrap()
}

#[test]
fn the_name_is_the_time_in_utc_and_the_uuid() {
    let date = Date::from_calendar_date(2026, Month::November, 2).unwrap();
    let time = Time::from_hms(7, 54, 6).unwrap();
    let name = stem(OffsetDateTime::new_utc(date, time), Uuid::from_u128(5));
    assert_eq!(
        name,
        "20261102T075406Z-00000000-0000-0000-0000-000000000005"
    );
}

#[test]
fn a_name_of_ones_own_stays_in_the_directory() {
    for name in ["ticket-7", "a.b", "..", "\u{e4}\u{20ac}", &"x".repeat(200)] {
        assert!(can_be_stem(name), "{name}");
        let (directory, disk) = disk(u32::MAX);
        let files = Output::create(&disk, name.into(), 8_000).unwrap().finish();
        let file = directory.path().join(format!("{name}.wav"));
        assert_eq!(files.unwrap(), [file]);
    }
    for name in ["", "a/b", "../a", "/a", "a\0b", &"x".repeat(201)] {
        assert!(!can_be_stem(name), "{name}");
    }
}

#[test]
fn a_file_is_a_part_until_it_is_whole_and_only_its_owner_reads_it() {
    let (directory, disk) = disk(u32::MAX);
    let mut output = output(&disk);
    output.write(&disk, 0, &[1, -1, 2, -2]).unwrap();
    output.checkpoint().unwrap();
    assert_eq!(names_in(&directory), ["call.wav.part"]);
    let part = directory.path().join("call.wav.part");
    assert_eq!(samples(&part), [1, -1, 2, -2]);
    let mode = fs::metadata(&part).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = output.finish().unwrap();
    assert_eq!(names_in(&directory), ["call.wav"]);
    assert_eq!(files, [directory.path().join("call.wav")]);
}

#[test]
fn recordings_of_the_same_name_never_overwrite_each_other() {
    let (directory, disk) = disk(u32::MAX);
    for value in 1..=3 {
        let mut output = output(&disk);
        output.write(&disk, 0, &[value; 2]).unwrap();
        output.finish().unwrap();
    }
    // Two at the same time, and one that takes the name of another while that is being written.
    let (mut fourth, mut fifth) = (output(&disk), output(&disk));
    fourth.write(&disk, 0, &[4; 2]).unwrap();
    fifth.write(&disk, 0, &[5; 2]).unwrap();
    fs::write(directory.path().join("call-4.wav"), "somebody else's").unwrap();
    let fourth = fourth.finish().unwrap();
    let fifth = fifth.finish().unwrap();
    assert_eq!(fourth, [directory.path().join("call-5.wav")]);
    assert_eq!(fifth, [directory.path().join("call-6.wav")]);
    for (name, value) in [
        ("call.wav", 1),
        ("call-2.wav", 2),
        ("call-3.wav", 3),
        ("call-5.wav", 4),
        ("call-6.wav", 5),
    ] {
        assert_eq!(samples(&directory.path().join(name)), [value; 2], "{name}");
    }
    let foreign = fs::read(directory.path().join("call-4.wav")).unwrap();
    assert_eq!(foreign, b"somebody else's");
}

#[test]
fn what_a_killed_process_has_left_stays_as_it_is() {
    let (directory, disk) = disk(u32::MAX);
    fs::write(directory.path().join("call.wav.part"), "left").unwrap();
    output(&disk).finish().unwrap();
    assert_eq!(names_in(&directory), ["call-2.wav", "call.wav.part"]);
    let left = fs::read(directory.path().join("call.wav.part")).unwrap();
    assert_eq!(left, b"left");
}

#[test]
fn the_next_file_begins_where_the_limit_is_reached() {
    let (_directory, disk) = disk(1_000 * FRAME);
    let mut output = output(&disk);
    let frames: Vec<i16> = (0..5_000).collect();
    for (index, part) in frames.chunks(700).enumerate() {
        output.write(&disk, index as u64 * 350, part).unwrap();
        output.checkpoint().unwrap();
    }
    let files = output.finish().unwrap();
    let lengths: Vec<usize> = files.iter().map(|file| samples(file).len()).collect();
    assert_eq!(lengths, [2_000, 2_000, 1_000]);
    let all: Vec<i16> = files.iter().flat_map(|file| samples(file)).collect();
    assert_eq!(all, frames);
}

#[test]
fn what_is_replaced_is_replaced_in_the_file_that_is_open() {
    let (_directory, disk) = disk(4 * FRAME);
    let mut output = output(&disk);
    output.write(&disk, 0, &[1; 2 * 3]).unwrap();
    output.write(&disk, 2, &[2; 2 * 4]).unwrap();
    // Of this, the first frame belongs to a file that is whole.
    output.write(&disk, 3, &[3; 2 * 3]).unwrap();
    let files = output.finish().unwrap();
    let left = |file: &PathBuf| samples(file).into_iter().step_by(2).collect::<Vec<_>>();
    assert_eq!(left(&files[0]), [1, 1, 2, 2]);
    assert_eq!(left(&files[1]), [3, 3]);
}
