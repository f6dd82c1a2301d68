//! Options that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sidetone::Codec;

#[derive(Debug, Args)]
pub(crate) struct RecordOptions {
    /// Record every call into this directory: one stereo WAV file per call, the caller on the left
    #[arg(long = "record", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// The options of every serving command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServeOptions {
    /// The address to listen on; with port 0 the system chooses a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) listen: String,
    /// Who may connect: addresses, networks such as 10.0.0.0/8, names (resolved at the start), or any.
    /// Required unless the server listens on loopback
    #[arg(long, value_name = "NET")]
    pub(crate) allow: Vec<String>,
    /// The format of the audio that callers send as message kind 0x10
    #[arg(long, value_enum, default_value_t = CodecName::Slin)]
    pub(crate) codec: CodecName,
    /// The most calls at a time; further calls are rejected
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one)]
    pub(crate) max_calls: usize,
    /// How long running calls may continue after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) grace: u32,
    /// Reset the calls instead of closing them if this process is killed. For Asterisk before 20.14, 21.9 and
    /// 22.4, where closed calls stay up and each takes a whole core
    #[arg(long)]
    pub(crate) reset_when_killed: bool,
    /// Show the digits that callers press, instead of * for each
    #[arg(long)]
    pub(crate) log_digits: bool,
}

/// The values of `--codec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    /// Linear samples: from AudioSocket(), and from Dial with c(slin)
    Slin,
    /// µ-law: from Dial with c(ulaw)
    Ulaw,
    /// A-law: from Dial with c(alaw)
    Alaw,
    /// Detected from the first sound of each call
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

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("give a whole number of at least 1".into()),
    }
}
