//! Headerless files, whose format is given by their extension.

use super::collector::{Collector, ReadError};
use super::part::Part;
use super::pcm::{Encoding, Layout};
use crate::detect::{Guess, guess};
use crate::g711::Law;

/// The layout for one of Asterisk's extensions.
pub(super) fn layout_of(extension: &str) -> Option<Layout> {
    let extension = extension.to_ascii_lowercase();
    let layout = |encoding, rate| Layout {
        encoding,
        channels: 1,
        rate,
        big_endian: false,
    };
    let kilohertz = ["slin", "sln"]
        .iter()
        .find_map(|prefix| extension.strip_prefix(prefix));
    if let Some(kilohertz) = kilohertz {
        let rate = match kilohertz {
            "" | "8" => 8_000,
            "44" => 44_100,
            "12" | "16" | "24" | "32" | "48" | "96" | "192" => {
                kilohertz.parse::<u32>().ok()? * 1000
            }
            _ => return None,
        };
        return Some(layout(Encoding::Signed(2), rate));
    }
    let law = match &extension[..] {
        "ulaw" | "ul" | "mu" | "ulw" | "pcm" => Law::Ulaw,
        "alaw" | "al" | "alw" => Law::Alaw,
        _ => return None,
    };
    Some(layout(Encoding::Companded(law), 8_000))
}

/// The encoding of a headerless file that can't be read, by its extension.
pub(super) fn foreign(extension: &str) -> Option<&'static str> {
    Some(match &extension.to_ascii_lowercase()[..] {
        "gsm" => "GSM 6.10",
        "g722" => "G.722",
        "g723" => "G.723.1",
        "g726" | "g726-40" | "g726-32" | "g726-24" | "g726-16" => "G.726",
        "g729" => "G.729",
        "ilbc" | "ilbc20" => "iLBC",
        "siren7" => "Siren7",
        "siren14" => "Siren14",
        "vox" => "Dialogic ADPCM",
        _ => return None,
    })
}

/// Reads what the extension says, unless the bytes are certainly something else.
pub(super) fn read(
    layout: &Layout,
    part: &Part,
    collector: &mut Collector,
) -> Result<(), ReadError> {
    check(layout, part)?;
    layout.read(part, collector)
}

fn check(layout: &Layout, part: &Part) -> Result<(), ReadError> {
    /// Ten seconds at 8 kHz.
    const MAX_GUESSED: usize = 160_000;
    let guess = guess(&part.peek(0, MAX_GUESSED)?);
    let (holds, extensions) = match (guess, layout.encoding) {
        (Guess::Unknown, _)
        | (Guess::Slin, Encoding::Signed(_))
        | (Guess::Ulaw, Encoding::Companded(Law::Ulaw))
        | (Guess::Alaw, Encoding::Companded(Law::Alaw)) => return Ok(()),
        (Guess::Slin, _) => (
            "linear samples of 16 bits",
            ".sln if they are of 8 kHz, .sln16 if of 16 kHz, and so on up to .sln192",
        ),
        (Guess::Ulaw, _) => ("µ-law", ".ulaw"),
        (Guess::Alaw, _) => ("A-law", ".alaw"),
    };
    Err(ReadError::Misnamed { holds, extensions })
}
