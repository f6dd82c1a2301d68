//! What is left of a recording whose writer is killed, at every possible moment.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::rc::Rc;

use proptest::prelude::*;
use sidetone_audio::wav::{Channels, Writer};

/// The position and the content of each write.
type Writes = Vec<(u64, Vec<u8>)>;

/// Keeps every write with its position, so that a test can replay them up to any point.
#[derive(Default, Clone)]
struct Log {
    at: u64,
    writes: Rc<RefCell<Writes>>,
    /// Whether to refuse everything, like a full disk.
    full: Rc<RefCell<bool>>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if *self.full.borrow() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.writes.borrow_mut().push((self.at, bytes.to_vec()));
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Log {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.at = at;
        Ok(at)
    }
}

/// The file after `whole` writes and the first `cut` bytes of the next.
fn file_after(writes: &[(u64, Vec<u8>)], whole: usize, cut: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let parts = writes[..whole]
        .iter()
        .map(|(at, bytes)| (*at, &bytes[..]))
        .chain(writes.get(whole).map(|(at, bytes)| (*at, &bytes[..cut])));
    for (at, bytes) in parts {
        let at = at as usize;
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

fn read(file: Vec<u8>) -> (hound::WavSpec, Vec<i16>) {
    let reader = hound::WavReader::new(Cursor::new(file)).unwrap();
    let spec = reader.spec();
    (spec, reader.into_samples().map(Result::unwrap).collect())
}

fn ramp(len: usize) -> Vec<i16> {
    (0..len).map(|n| (n * 37) as i16).collect()
}

#[test]
fn a_kill_at_any_byte_loses_at_most_what_followed_the_last_checkpoint() {
    let log = Log::default();
    let sound = ramp(30_000);
    let mut wav = Writer::new(log.clone(), 8000, Channels::Stereo).unwrap();
    // For every write, how many samples the last checkpoint before it had covered.
    let mut covered = vec![0; log.writes.borrow().len()];
    let mut checkpointed = 0;
    for (second, samples) in sound.chunks(5000).enumerate() {
        for frame in samples.chunks(200) {
            wav.write(frame).unwrap();
        }
        if second % 2 == 1 {
            wav.checkpoint().unwrap();
            covered.resize(log.writes.borrow().len(), checkpointed);
            checkpointed = wav.bytes_written() as usize / 2;
        }
    }
    covered.push(checkpointed);

    let writes = log.writes.borrow();
    assert!(writes.len() > 6, "data and headers are written apart");
    let mut kills = 0;
    for (whole, &at_least) in covered.iter().enumerate().skip(1) {
        let next = writes.get(whole).map_or(0, |(_, bytes)| bytes.len());
        // The kernel takes a header in one piece, but not necessarily 16 KiB.
        let header_next = next == 44;
        for cut in (0..=next).step_by(if header_next { 44 } else { 97 }) {
            let (spec, got) = read(file_after(&writes, whole, cut));
            assert_eq!((spec.channels, spec.sample_rate), (2, 8000));
            assert!(got.len() >= at_least, "{} of {at_least}", got.len());
            assert_eq!(
                got,
                sound[..got.len()],
                "after {whole} writes and {cut} bytes"
            );
            kills += 1;
        }
    }
    assert!(kills > 500);
    assert_eq!(read(file_after(&writes, writes.len(), 0)).1, sound);
}

#[test]
fn a_header_cut_in_the_middle_still_opens() {
    let log = Log::default();
    let sound = ramp(9000);
    let mut wav = Writer::new(log.clone(), 16000, Channels::Mono).unwrap();
    for second in sound.chunks(333) {
        wav.write(second).unwrap();
        wav.checkpoint().unwrap();
    }
    let writes = log.writes.borrow();
    for whole in 1..writes.len() {
        for cut in 0..writes[whole].1.len().min(44) {
            let (_, got) = read(file_after(&writes, whole, cut));
            assert_eq!(got, sound[..got.len()]);
        }
    }
}

#[test]
fn a_disk_that_was_full_for_a_while_loses_only_what_was_refused() {
    let log = Log::default();
    let sound = ramp(40_000);
    let mut wav = Writer::new(log.clone(), 8000, Channels::Mono).unwrap();
    wav.write(&sound[..10_000]).unwrap();
    wav.checkpoint().unwrap();

    *log.full.borrow_mut() = true;
    let mut taken = 10_000;
    while wav.write(&sound[taken..taken + 100]).is_ok() {
        taken += 100;
    }
    assert_eq!(wav.bytes_written() as usize, taken * 2);
    assert_eq!(
        wav.checkpoint().unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    let count = log.writes.borrow().len();
    assert_eq!(
        read(file_after(&log.writes.borrow(), count, 0)).1,
        sound[..10_000]
    );

    *log.full.borrow_mut() = false;
    wav.write(&sound[taken..]).unwrap();
    wav.finish().unwrap();
    let count = log.writes.borrow().len();
    assert_eq!(read(file_after(&log.writes.borrow(), count, 0)).1, sound);
}

#[test]
fn half_a_stereo_frame_is_refused() {
    let mut wav = Writer::new(Cursor::new(Vec::new()), 8000, Channels::Stereo).unwrap();
    let error = wav.write(&[1, 2, 3]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(wav.bytes_written(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_sequence_of_writes_and_checkpoints_reads_back(
        parts in prop::collection::vec((prop::collection::vec(any::<i16>(), 0..12_000), any::<bool>()), 0..12),
        rate in 4000u32..384_000,
    ) {
        let mut wav = Writer::new(Cursor::new(Vec::new()), rate, Channels::Mono).unwrap();
        let mut all = Vec::new();
        for (samples, checkpoint) in parts {
            wav.write(&samples).unwrap();
            all.extend(samples);
            if checkpoint {
                wav.checkpoint().unwrap();
            }
        }
        let (spec, got) = read(wav.finish().unwrap().into_inner());
        prop_assert_eq!(spec.sample_rate, rate);
        prop_assert_eq!(got, all);
    }
}
