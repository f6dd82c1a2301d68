//! The format of a file, by its first bytes.

use super::wave::{self, Container};

/// A format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Wave(Container),
    /// Sun's AU, with a header of 24 bytes.
    Au,
    Compressed(Compressed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressed {
    Mp3,
    Flac,
    Ogg,
}

impl Compressed {
    #[cfg(not(feature = "compressed"))]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Flac => "FLAC",
            Self::Ogg => "Ogg",
        }
    }
}

/// How many bytes are needed to identify a format.
pub(super) const START: usize = 64;

/// Identifies a format by a file's first bytes. `Err` names one that can't be read.
pub(super) fn identify(start: &[u8]) -> Option<Result<Kind, String>> {
    if let Some(container) = wave::container(start) {
        return Some(Ok(Kind::Wave(container)));
    }
    Some(match start {
        [b'.', b's', b'n', b'd', ..] => Ok(Kind::Au),
        [b'f', b'L', b'a', b'C', ..] => Ok(Kind::Compressed(Compressed::Flac)),
        [b'O', b'g', b'g', b'S', ..] => match in_ogg(start) {
            Some(codec) => Err(format!("{codec} in an Ogg file")),
            None => Ok(Kind::Compressed(Compressed::Ogg)),
        },
        _ => Err(foreign(start)?),
    })
}

/// Whether the bytes begin like a frame of MPEG audio, layer III. Headerless sound may do so, too.
pub(super) fn is_mp3(start: &[u8]) -> bool {
    matches!(start, [0xFF, 0xFA | 0xFB | 0xF2 | 0xF3 | 0xE2 | 0xE3, ..])
}

/// Formats that can't be read, with a beginning as short.
pub(super) fn mp3_lookalike(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xFF, 0xFC | 0xFD | 0xF4 | 0xF5, ..] => Some("MPEG audio of layer II"),
        [0xFF, 0xF0 | 0xF1 | 0xF8 | 0xF9, ..] => Some("AAC"),
        _ => None,
    }
}

/// What an Ogg file holds other than Vorbis, by its first packet.
fn in_ogg(start: &[u8]) -> Option<&'static str> {
    let packet = start.get(28..)?;
    let codecs: [(&[u8], &str); 5] = [
        (b"OpusHead", "Opus"),
        (b"Speex   ", "Speex"),
        (b"\x7FFLAC", "FLAC"),
        (b"\x80theora", "video"),
        (b"fishead\0", "video"),
    ];
    let codec = codecs.iter().find(|(mark, _)| packet.starts_with(mark));
    codec.map(|(_, name)| *name)
}

fn foreign(start: &[u8]) -> Option<String> {
    let marks: [(usize, &[u8], &str); 17] = [
        (4, b"ftyp", "MP4 (m4a)"),
        (8, b"AIFF", "AIFF"),
        (8, b"AIFC", "AIFF-C"),
        (0, b"caff", "CAF"),
        (0, b"riff\x2E\x91\xCF\x11", "Sony Wave64"),
        (0, b"NIST_1A\n", "NIST SPHERE"),
        (0, b"\x1A\x45\xDF\xA3", "Matroska or WebM"),
        (0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "Windows Media"),
        (0, b"#!AMR", "AMR"),
        (0, b"#!SILK", "SILK"),
        (0, b"wvpk", "WavPack"),
        (0, b"MAC ", "Monkey's Audio"),
        (0, b"MThd", "MIDI"),
        (0, b"ADIF", "AAC"),
        (0, b"Creative Voice File", "Creative Voice"),
        (0, b"#EXTM3U", "a playlist"),
        (0, b"[playlist]", "a playlist"),
    ];
    let is_there = |(at, mark, _): &&(usize, &[u8], &str)| {
        start
            .get(*at..)
            .is_some_and(|start| start.starts_with(mark))
    };
    if let Some((_, _, name)) = marks.iter().find(is_there) {
        return Some((*name).into());
    }
    // Video, pictures, MIDI.
    let kind = match start {
        [b'R', b'I', b'F', b'F' | b'X', _, _, _, _, kind @ ..] => kind.first_chunk::<4>()?,
        _ => return None,
    };
    Some(format!("a RIFF file of the kind {}", kind.escape_ascii()))
}
