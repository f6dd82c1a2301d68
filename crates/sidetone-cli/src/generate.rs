//! `sidetone generate`, which the help leaves out: what a package has besides the binary, made from the command line's
//! definition.

use std::{fs, io, path::PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
pub(crate) struct Options {
    what: What,
    /// The folder to write to; it is made if it isn't there
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// A manual page for the command, and one for each subcommand
    Man,
    /// Completions for bash, fish and zsh
    Completions,
}

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

pub(crate) fn run(options: &Options, command: Command) -> Result<Outcome, Failure> {
    write(options, command).map_err(|error| {
        Failure::new(format_args!(
            "can't write to {}: {error}",
            options.dir.display()
        ))
    })?;
    Ok(Outcome::Passed)
}

fn write(options: &Options, command: Command) -> io::Result<()> {
    fs::create_dir_all(&options.dir)?;
    match options.what {
        What::Man => clap_mangen::generate_to(command, &options.dir)?,
        What::Completions => {
            let mut command = visible(&command);
            for shell in SHELLS {
                clap_complete::generate_to(shell, &mut command, "sidetone", &options.dir)?;
            }
        }
    }
    Ok(())
}

/// The command with the subcommands that its help lists: a completion would offer hidden ones, too.
fn visible(command: &Command) -> Command {
    let subcommands = command.get_subcommands();
    let visible = subcommands.filter(|it| !it.is_hide_set()).cloned();
    Command::new("sidetone")
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .subcommands(visible)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args;

    fn generated(what: What) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            what,
            dir: folder.path().join("made"),
        };
        run(&options, args::definition()).unwrap();
        let files = fs::read_dir(&options.dir).unwrap();
        let read = files.map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        });
        let mut read: Vec<_> = read.collect();
        read.sort();
        read
    }

    #[test]
    fn each_command_has_a_manual_page() {
        let pages = generated(What::Man);
        let command = args::definition();
        let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
        let mut names: Vec<String> = shown
            .map(|it| format!("sidetone-{}.1", it.get_name()))
            .collect();
        names.push("sidetone.1".into());
        names.sort();
        assert!(pages.iter().map(|(name, _)| name).eq(&names));
        let serve = &pages.iter().find(|(name, _)| name == "sidetone-serve.1");
        assert!(serve.unwrap().1.contains("\\-\\-check"));
    }

    #[test]
    fn shells_complete_what_the_help_lists() {
        let all = generated(What::Completions);
        assert_eq!(all.len(), SHELLS.len());
        for (name, script) in all {
            assert!(script.contains("transcribe"), "{name}");
            assert!(!script.contains("generate"), "{name}");
        }
    }
}
