//! `systemd-analyze`, which says what is wrong with units.

use std::process::Command;

use crate::fetch::{self, FetchError, Packages};

/// Of the oldest Debian that is still common: what its systemd understands, later ones do.
const SYSTEMD: Packages<'_> = Packages {
    name: "systemd",
    suite: "bookworm",
    whole: &["systemd"],
    without: &["mount", "passwd"],
    alone: &[],
    left_out: &["./etc*", "./usr/share*", "./var*"],
};

const NAME: &str = "systemd-analyze";

/// `systemd-analyze`: this machine's own, or else [Debian's](debians_systemd_analyze).
///
/// # Errors
///
/// As [`fetch::asterisk`].
pub fn systemd_analyze() -> Result<Command, FetchError> {
    match Command::new(NAME).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(Command::new(NAME)),
        _ => debians_systemd_analyze(),
    }
}

/// Debian's `systemd-analyze`, which is fetched if that has not been done yet.
///
/// Blocks, caches and locks like [`fetch::asterisk`].
///
/// # Errors
///
/// As [`fetch::asterisk`].
pub fn debians_systemd_analyze() -> Result<Command, FetchError> {
    let tree = fetch::packages(&SYSTEMD)?;
    let libraries = tree.libraries().display();
    let mut command = Command::new(tree.loader());
    command
        .arg("--library-path")
        .arg(format!("{libraries}:{libraries}/systemd"))
        .arg(tree.root().join("usr/bin").join(NAME));
    Ok(command)
}
