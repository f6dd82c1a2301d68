//! mp3, FLAC and Ogg Vorbis, decoded by symphonia.

use std::time::Duration;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_codecs, get_probe};

use super::collector::{Collector, ReadError};
use super::kind::Compressed;
use super::part::Part;
use super::{Flaw, downmix, mpeg, ogg, tags};

/// Reads all of `part`, including files appended to the first.
pub(super) fn decompress(
    format: Compressed,
    part: &Part,
    collector: &mut Collector,
) -> Result<(), ReadError> {
    match format {
        Compressed::Mp3 => mp3(part, collector),
        Compressed::Flac => flac(part, collector),
        Compressed::Ogg => {
            let (part, is_cut) = ogg::repair(part)?;
            let end = decode(part, Seeking::Yes, "Ogg", collector)?;
            note_end(
                end.with(End {
                    is_cut,
                    ..End::default()
                }),
                collector,
            );
            Ok(())
        }
    }
}

fn mp3(part: &Part, collector: &mut Collector) -> Result<(), ReadError> {
    let (mut at, mut left_out) = (0, 0);
    let mut end = End::default();
    let mut runs = 0;
    loop {
        let run = match mpeg::next_run(part, at)? {
            Ok(run) => run,
            Err(bytes) => {
                left_out += bytes;
                break;
            }
        };
        left_out += run.left_out;
        end.is_cut = run.is_cut;
        at = if run.is_cut { part.len() } else { run.to };
        runs += 1;
        // Some encoders count one frame more than there is.
        if run.frames == 1 && runs > 1 {
            continue;
        }
        // A source that can't seek keeps the decoder from estimating a length and cutting the sound
        // to it.
        match decode(part.slice(run.from, run.to), Seeking::No, "mp3", collector) {
            Ok(this) => end = this.with(end),
            Err(ReadError::Unsupported(_)) if collector.len() > 0 => left_out += run.to - run.from,
            Err(error) => return Err(error),
        }
    }
    if runs == 0 {
        return Err(undecodable("mp3", "no frame of it was found"));
    }
    // Encoders are off by this much.
    end.missing = end.missing.saturating_sub(2 * 1152);
    note_end(end, collector);
    if left_out > 0 {
        collector.flaws.push(Flaw::Skipped { bytes: left_out });
    }
    Ok(())
}

fn flac(part: &Part, collector: &mut Collector) -> Result<(), ReadError> {
    let mut from = 0;
    while from < part.len() {
        let to = next_flac(part, from + 4)?.unwrap_or(part.len());
        let one = part.slice(from, to);
        // The last frame is complete only without the tags of an appended file.
        let (_, end) = tags::strip(&one)?;
        match decode(one.slice(0, end), Seeking::Yes, "FLAC", collector) {
            Ok(end) => note_end(end, collector),
            Err(ReadError::Unsupported(_)) if collector.len() > 0 => {
                collector.flaws.push(Flaw::Skipped { bytes: to - from });
            }
            Err(error) => return Err(error),
        }
        from = to;
    }
    Ok(())
}

/// Where the next file begins: its magic, and the header of the block that always comes first, 34
/// bytes long.
fn next_flac(part: &Part, from: u64) -> std::io::Result<Option<u64>> {
    const BLOCK: usize = 1 << 16;
    const MARK: usize = 8;
    let mut at = from;
    loop {
        let block = part.peek(at, BLOCK)?;
        let is_start = |bytes: &[u8]| {
            bytes.starts_with(b"fLaC") && bytes[4] & 0x7F == 0 && bytes[5..] == [0, 0, 34]
        };
        if let Some(place) = block.windows(MARK).position(is_start) {
            return Ok(Some(at + place as u64));
        }
        if block.len() < BLOCK {
            return Ok(None);
        }
        at += (BLOCK - MARK + 1) as u64;
    }
}

fn note_end(end: End, collector: &mut Collector) {
    if end.damaged > 0 {
        collector.flaws.push(Flaw::Damaged {
            pieces: end.damaged,
        });
    }
    let missing = end.missing as f64 / f64::from(end.rate.max(1));
    // Encoders are off by less than this.
    let missing = Some(missing).filter(|seconds| *seconds > 0.01);
    if end.is_cut || missing.is_some() {
        let missing = missing.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        collector.flaws.push(Flaw::Truncated { missing });
    }
}

/// How the decoding of a part went.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    /// Packets that could not be decoded.
    damaged: u32,
    /// Samples per channel that were announced and did not come.
    missing: u64,
    rate: u32,
    is_cut: bool,
}

impl End {
    /// Combines it with that of earlier parts.
    fn with(self, others: Self) -> Self {
        Self {
            damaged: self.damaged + others.damaged,
            missing: self.missing + others.missing,
            rate: self.rate.max(others.rate),
            is_cut: self.is_cut || others.is_cut,
        }
    }
}

fn undecodable(format: &str, why: impl std::fmt::Display) -> ReadError {
    ReadError::Unsupported(format!("{format} that can't be decoded ({why})"))
}

fn decode(
    part: Part,
    seeking: Seeking,
    name: &str,
    collector: &mut Collector,
) -> Result<End, ReadError> {
    let failed = |error: Error| match error {
        Error::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            ReadError::Io(error)
        }
        error => undecodable(name, error),
    };
    let mut format = open(part, seeking).map_err(failed)?;
    let mut end = End::default();
    let before = collector.len();
    loop {
        let (track, mut decoder, expected) = track_of(&*format).map_err(failed)?;
        end.rate = decoder.codec_params().sample_rate.unwrap_or(0);
        let began = collector.len();
        let over = decode_track(&mut *format, track, &mut *decoder, &mut end, collector)?;
        let came = (collector.len() - began) as u64;
        end.missing += expected.map_or(0, |expected| expected.saturating_sub(came));
        match over {
            TrackEnd::End => return Ok(end),
            // Another sound is appended to this one.
            TrackEnd::Next => {}
            TrackEnd::Error(error) if collector.len() == before => return Err(failed(error)),
            TrackEnd::Error(_) => {
                end.is_cut = true;
                return Ok(end);
            }
        }
    }
}

enum TrackEnd {
    End,
    Next,
    Error(Error),
}

fn decode_track(
    format: &mut dyn FormatReader,
    track: u32,
    decoder: &mut dyn AudioDecoder,
    end: &mut End,
    collector: &mut Collector,
) -> Result<TrackEnd, ReadError> {
    let mut interleaved: Vec<i32> = Vec::new();
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(TrackEnd::End),
            Err(Error::ResetRequired) => return Ok(TrackEnd::Next),
            Err(error) => return Ok(TrackEnd::Error(error)),
        };
        if packet.track_id != track {
            continue;
        }
        let decoded = match decoder.decode(&packet) {
            Ok(decoded) => decoded,
            // One damaged packet is a gap, not the end.
            Err(Error::DecodeError(_)) => {
                end.damaged += 1;
                continue;
            }
            Err(error) => return Ok(TrackEnd::Error(error)),
        };
        end.rate = decoded.spec().rate();
        collector.begin(end.rate, 0)?;
        interleaved.resize(decoded.samples_interleaved(), 0);
        decoded.copy_to_slice_interleaved(&mut interleaved);
        let channels = decoded.spec().channels().count().max(1);
        let frames = interleaved.chunks_exact(channels);
        collector.add(frames.map(|frame| downmix(frame.iter().copied())))?;
    }
}

fn open(part: Part, seeking: Seeking) -> Result<Box<dyn FormatReader>, Error> {
    let source = MediaSourceStream::new(Box::new(Source { part, seeking }), Default::default());
    get_probe().probe(
        &Hint::new(),
        source,
        FormatOptions::default(),
        MetadataOptions::default(),
    )
}

/// The number of the audio track, its decoder, and how many samples per channel it should have.
type Track = (u32, Box<dyn AudioDecoder>, Option<u64>);

fn track_of(format: &dyn FormatReader) -> Result<Track, Error> {
    let track = format.default_track(TrackType::Audio);
    let codec = track.and_then(|track| track.codec_params.as_ref()?.audio());
    let (Some(track), Some(codec)) = (track, codec) else {
        return Err(Error::Unsupported("it has no track of sound"));
    };
    let decoder = get_codecs().make_audio_decoder(codec, &AudioDecoderOptions::default())?;
    Ok((track.id, decoder, track.num_frames))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seeking {
    Yes,
    No,
}

struct Source {
    part: Part,
    seeking: Seeking,
}

impl std::io::Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.part.read(buffer)
    }
}

impl std::io::Seek for Source {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.part.seek(to)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        self.seeking == Seeking::Yes
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.part.len())
    }
}
