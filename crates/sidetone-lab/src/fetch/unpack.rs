//! Unpacks packages into a folder, as if it were `/`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{FetchError, at};

/// What nobody here reads, and what would be configuration or state of an installed Asterisk.
pub(super) const NOT_RUN: [&str; 5] = [
    "./usr/share/doc*",
    "./usr/share/man*",
    "./usr/share/locale*",
    "./etc*",
    "./var*",
];

/// Unpacks every package file into `root`, but for what matches one of the patterns `left_out`.
pub(super) fn all(packages: &[PathBuf], root: &Path, left_out: &[&str]) -> Result<(), FetchError> {
    // Debian's own layout: a package that still says /lib means /usr/lib.
    for name in ["bin", "sbin", "lib", "lib64"] {
        let folder = root.join("usr").join(name);
        std::fs::create_dir_all(&folder).map_err(at(folder))?;
        let link = root.join(name);
        symlink(format!("usr/{name}"), &link).map_err(at(link))?;
    }
    packages
        .iter()
        .try_for_each(|package| one(package, root, left_out))
}

fn one(package: &Path, root: &Path, left_out: &[&str]) -> Result<(), FetchError> {
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(at(package))?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "-C"])
        .arg(root);
    tar.args(
        left_out
            .iter()
            .map(|pattern| format!("--exclude={pattern}")),
    );
    tar.stdin(archive.stdout.take().map_or_else(Stdio::null, Stdio::from));
    let unpacked = tar.output().map_err(at(package))?;
    let read = archive.wait().map_err(at(package))?;
    if read.success() && unpacked.status.success() {
        return Ok(());
    }
    Err(FetchError::Unpack {
        package: package.display().to_string(),
        output: String::from_utf8_lossy(&unpacked.stderr).into_owned(),
    })
}
