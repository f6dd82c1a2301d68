//! What can be typed.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use sidetone::Codec;

use crate::failure::Failure;

/// Puts programs on Asterisk's calls, over AudioSocket.
///
/// Start with `sidetone demo`. Each serving command prints the dialplan lines for its own address.
#[derive(Debug, Parser)]
#[command(name = "sidetone", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve, and place one call to it: greets, then echoes; leaves demo.wav and keeps serving
    Demo(Demo),
    /// Play to every caller what they say
    Echo(Echo),
    /// Play a sound file to every caller, then hang up
    Play(Play),
    /// Record every call, and play nothing
    Record(Record),
    /// Transcribe every call while it goes on, by a recognizer of your choice
    Transcribe(Box<crate::transcribe::options::Options>),
    /// Place a call as Asterisk would, and say how it went
    Call(Box<Call>),
    /// Place many calls at a time, verify every byte, and say what that cost the server
    Load(crate::load::Options),
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End after the one call: exit code 0 if the caller heard what it should, else 1
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) recording: Recording,
    #[command(flatten)]
    pub(crate) serving: Serving,
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    pub(crate) recording: Recording,
    #[command(flatten)]
    pub(crate) serving: Serving,
}

#[derive(Debug, Args)]
pub(crate) struct Play {
    #[cfg_attr(
        feature = "compressed",
        doc = "The sound: WAV, AU, mp3, FLAC, Ogg Vorbis, or Asterisk's headerless formats by their extension (sln, sln16, ulaw, alaw …)"
    )]
    #[cfg_attr(
        not(feature = "compressed"),
        doc = "The sound: WAV, AU, or Asterisk's headerless formats by their extension (sln, sln16, ulaw, alaw …)"
    )]
    pub(crate) file: PathBuf,
    /// Begin again at its end, until the caller hangs up
    #[arg(long = "loop")]
    pub(crate) looped: bool,
    #[command(flatten)]
    pub(crate) recording: Recording,
    #[command(flatten)]
    pub(crate) serving: Serving,
}

#[derive(Debug, Args)]
pub(crate) struct Record {
    /// Where the recordings go: one stereo WAV file per call, the caller left
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) serving: Serving,
}

#[derive(Debug, Args)]
pub(crate) struct Recording {
    /// Record every call into this directory: one stereo WAV file per call, the caller left
    #[arg(long = "record", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// What every serving command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct Serving {
    /// Where to listen; port 0 lets the system choose one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) listen: String,
    /// Who may connect: addresses, networks such as 10.0.0.0/8, names (resolved at the start), or any.
    /// Needed beyond loopback
    #[arg(long, value_name = "NET")]
    pub(crate) allow: Vec<String>,
    /// What callers send under kind 0x10
    #[arg(long, value_enum, default_value_t = CodecName::Slin)]
    pub(crate) codec: CodecName,
    /// How many calls at a time; further ones are rejected
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one)]
    pub(crate) max_calls: usize,
    /// How long running calls may go on after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) grace: u32,
    /// If this is killed, reset its calls instead of closing them: for Asterisk before 20.14, 21.9 and 22.4,
    /// where they would stay up, each on a whole core
    #[arg(long)]
    pub(crate) reset_when_killed: bool,
    /// Show the digits that callers press, instead of * for each
    #[arg(long)]
    pub(crate) log_digits: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The server, as HOST:PORT
    #[arg(value_name = "ADDR")]
    pub(crate) address: String,
    /// The call's UUID; a random one unless given
    #[arg(long)]
    pub(crate) uuid: Option<String>,
    /// Say what is in this sound file, then nothing but silence
    #[arg(long, value_name = "FILE")]
    pub(crate) play: Option<PathBuf>,
    /// Write both sides into this WAV file: the caller left, what it heard right
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Press these keys (0-9 * # A-D), one second after the beginning and 250 ms apart
    #[arg(long, value_name = "DIGITS")]
    pub(crate) dtmf: Option<String>,
    /// The rate, in Hz or by Asterisk's name: 8000 or slin, 16000 or slin16 … slin192
    #[arg(long, default_value = "slin")]
    pub(crate) rate: String,
    /// Hang up after so long [default: 10, or 2 after the end of FILE and of the digits]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) seconds: Option<f64>,
    /// Exit with 1 if nothing but silence was heard
    #[arg(long)]
    pub(crate) expect_audio: bool,
}

/// What `--codec` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    /// Linear samples: the application, and Dial with c(slin)
    Slin,
    /// µ-law: Dial with c(ulaw)
    Ulaw,
    /// A-law: Dial with c(alaw)
    Alaw,
    /// Found out from the first sound of each call
    Auto,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::Slin => Self::Slin,
            CodecName::Ulaw => Self::Ulaw,
            CodecName::Alaw => Self::Alaw,
            CodecName::Auto => Self::Auto,
        }
    }
}

/// Reads the command line; help goes to standard output and ends the process.
pub(crate) fn parse() -> Result<Command, Failure> {
    parse_from(std::env::args_os())
}

fn parse_from(words: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    match CommandLine::try_parse_from(words) {
        Ok(line) => Ok(line.command),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => Err(Failure::new(format_args!(
                "{}; see --help",
                first_paragraph(&error)
            ))),
        },
    }
}

/// What is wrong, without the usage below it.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.trim_start_matches("error: ").to_owned()
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("give a whole number from 1 on".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
