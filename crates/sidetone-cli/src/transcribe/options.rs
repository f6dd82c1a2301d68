//! The options of `sidetone transcribe`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::words::words;
use crate::options::{RecordOptions, ServeOptions};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) recognizer: RecognizerOptions,
    #[command(flatten)]
    pub(crate) call: CallOptions,
    #[command(flatten)]
    pub(crate) result: ResultOptions,
    #[command(flatten)]
    pub(crate) recording: RecordOptions,
    #[command(flatten)]
    pub(crate) serving: ServeOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Recognizer")]
pub(crate) struct RecognizerOptions {
    /// The service that gets the callers' voices. There is no default
    #[arg(long = "engine", value_name = "ENGINE", value_enum)]
    pub(crate) provider: Option<Provider>,
    /// The callers' language, such as en-US; repeat it for a service that takes several
    #[arg(long, value_name = "TAG")]
    pub(crate) language: Vec<String>,
    /// The service's model, by its name there
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The address of the service, instead of the usual one
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Google: the project that is billed
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Google: the region of the recognizer, such as eu
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// A file with words and names that callers may say, one per line
    #[arg(long, value_name = "FILE")]
    pub(crate) phrases: Option<PathBuf>,
    /// The file with the key, instead of OPENAI_API_KEY, DEEPGRAM_API_KEY or GOOGLE_APPLICATION_CREDENTIALS
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Calls")]
pub(crate) struct CallOptions {
    /// Also transcribe what the caller hears, as a separate side
    #[arg(long)]
    pub(crate) both: bool,
    /// Play this sound file first
    #[arg(long, value_name = "FILE")]
    pub(crate) greeting: Option<PathBuf>,
    /// Play this sound file, or two notes, after the greeting, and transcribe nothing before its end
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) announce: Option<Option<PathBuf>>,
    /// Hang up when the caller has said this word
    #[arg(long, value_name = "WORD", value_parser = one_word)]
    pub(crate) stop_word: Option<String>,
    /// Hang up after this time, such as 30s, 5m or 1h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) time_limit: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub(crate) struct ResultOptions {
    /// Also show words that may still change: dimmed, or with "final": false
    #[arg(long)]
    pub(crate) interim: bool,
    /// Print every transcript as a JSON line. Otherwise text is only shown on a terminal
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the transcript of each call into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// The formats of the files, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "json",
        requires = "output"
    )]
    pub(crate) format: Vec<Format>,
}

/// The values of `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Provider {
    /// Google Cloud Speech-to-Text v2
    Google,
    /// A Vosk server of your own
    Vosk,
    /// OpenAI, or a server of your own with its protocol
    Openai,
    /// Deepgram
    Deepgram,
}

impl Provider {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Vosk => "vosk",
            Self::Openai => "openai",
            Self::Deepgram => "deepgram",
        }
    }
}

/// The values of `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object per transcript, with the times of its words
    Json,
    /// One line of text per transcript, with its time
    Text,
    /// WebVTT subtitles
    Vtt,
    /// SubRip subtitles
    Srt,
}

fn one_word(text: &str) -> Result<String, String> {
    let word = text.to_lowercase();
    match words(&word).eq([word.as_str()]) {
        true => Ok(word),
        false => Err("give one word of letters and digits".into()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    match digits
        .parse::<u64>()
        .ok()
        .and_then(|it| it.checked_mul(unit))
    {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err("give a time such as 30s, 5m or 1h".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_unit() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        for wrong in [
            "",
            "s",
            "30",
            "0s",
            "-1s",
            "1.5h",
            "3d",
            "99999999999999999999h",
            "ä",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stop_word_is_one_word() {
        assert_eq!(one_word("Überweisung"), Ok("überweisung".into()));
        assert_eq!(one_word("don't"), Ok("don't".into()));
        for wrong in ["", " ", "two words", "stop!", "-"] {
            assert!(one_word(wrong).is_err(), "{wrong}");
        }
    }
}
