//! mp3, FLAC and Ogg Vorbis, decoded by symphonia.

use std::io::Cursor;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_codecs, get_probe};

use super::{Sound, SoundError, mix};

pub(super) fn decompress(
    bytes: Vec<u8>,
    format: &'static str,
    name: &str,
) -> Result<Sound, SoundError> {
    decode(bytes).map_err(|error| SoundError::Unsupported {
        name: name.into(),
        encoding: format!("{format} that can't be decoded ({error})"),
    })
}

fn decode(bytes: Vec<u8>) -> Result<Sound, Error> {
    let (mut format, track, mut decoder) = open(bytes)?;
    let mut sound = Sound {
        samples: Vec::new(),
        rate: 0,
    };
    let mut interleaved: Vec<i32> = Vec::new();
    while let Some(packet) = format.next_packet()? {
        if packet.track_id != track {
            continue;
        }
        let decoded = match decoder.decode(&packet) {
            Ok(decoded) => decoded,
            // One damaged packet is a gap, not the end.
            Err(Error::DecodeError(_)) => continue,
            Err(error) => return Err(error),
        };
        sound.rate = decoded.spec().rate();
        interleaved.resize(decoded.samples_interleaved(), 0);
        decoded.copy_to_slice_interleaved(&mut interleaved);
        let channels = decoded.spec().channels().count().max(1);
        let moments = interleaved.chunks_exact(channels);
        let mixed = moments.map(|moment| mix(moment.iter().copied()));
        sound.samples.extend(mixed);
    }
    Ok(sound)
}

/// What reads the packets of a file, the number of its track of sound, and what decodes those.
type Opened = (Box<dyn FormatReader>, u32, Box<dyn AudioDecoder>);

fn open(bytes: Vec<u8>) -> Result<Opened, Error> {
    let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let format = get_probe().probe(
        &Hint::new(),
        source,
        FormatOptions::default(),
        MetadataOptions::default(),
    )?;
    let track = format.default_track(TrackType::Audio);
    let codec = track.and_then(|track| track.codec_params.as_ref()?.audio());
    let (Some(track), Some(codec)) = (track, codec) else {
        return Err(Error::Unsupported("it has no track of sound"));
    };
    let decoder = get_codecs().make_audio_decoder(codec, &AudioDecoderOptions::default())?;
    let id = track.id;
    Ok((format, id, decoder))
}
