//! The command line: one subcommand for each command, which owns its options.

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::{
    bot, call, demo, echo, failure::Failure, generate, load, play, record, serve, transcribe,
};

/// Puts programs on Asterisk's calls, over AudioSocket.
///
/// Start with `sidetone demo`. Each serving command prints dialplan lines with its own address.
#[derive(Debug, Parser)]
#[command(name = "sidetone", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve calls, and place one that hears a greeting and its own echo
    ///
    /// It writes both sides of the call to demo.wav, and keeps serving.
    Demo(demo::Options),
    /// Run the voice gateway: routes and tickets for dialplans, an HTTP API, and a page
    Serve(serve::Options),
    /// Play back to every caller what they say
    Echo(echo::Options),
    /// Play a sound file to every caller, then hang up
    Play(play::Options),
    /// Record every call, and play nothing
    Record(record::Options),
    /// Transcribe every call while it runs, with a service of your choice
    Transcribe(Box<transcribe::Options>),
    /// Give every call to a voice bot, in the protocol that it was written for
    Bot(Box<bot::Options>),
    /// Place a call as Asterisk would, and report how it went
    Call(Box<call::Options>),
    /// Place many calls, verify every byte, and measure the server
    Load(load::Options),
    /// Write manual pages or completions for shells, for a package
    #[command(hide = true)]
    Generate(generate::Options),
}

/// The definition of the command line.
pub(crate) fn definition() -> clap::Command {
    CommandLine::command()
}

/// Reads the command line. `--help` and `--version` print to standard output and end the process.
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

/// The error without the usage below it.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        definition().debug_assert();
    }
}
