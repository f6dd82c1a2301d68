//! Fetches packages of Debian, Asterisk above all, and packages of Python for a speech recognizer and for bots, into a cache under
//! `target/`.
//!
//! Nothing of this machine is changed: apt runs with a state of its own, downloads only, and the packages are unpacked into a
//! folder; no maintainer script runs. What apt downloads is checked against the signatures in the machine's own
//! `debian-archive-keyring`.

mod apt;
mod cache;
mod packages;
mod python;
mod sources;
mod unpack;
mod wheel;

use std::path::{Path, PathBuf};

pub(crate) use cache::folder;
pub use python::Interpreter;
pub(crate) use python::{BOTS, GOOGLE, Requirements, TESTS, bots, recognizer};
pub(crate) use wheel::environment;

use apt::Apt;
use cache::Cache;

/// The suite of Debian that Asterisk is from: the first one with a current Asterisk 22.
const SUITE: &str = "forky";

/// What `asterisk` depends on but this lab never uses: the modules' own dependencies (databases, sound servers, directories)
/// are those of modules that are never loaded, the rest serves an installation.
const ASTERISK: Packages<'_> = Packages {
    name: "asterisk",
    suite: SUITE,
    // By the name that Debian's libraries have had for longest: func_curl and res_curl load it.
    whole: &["asterisk", "libcurl4"],
    without: &[
        "asterisk-modules",
        "asterisk-config",
        "asterisk-core-sounds-en",
        "adduser",
        "lsb-base",
        "debconf",
        // Of libcurl's: mechanisms for a log-in to LDAP.
        "libsasl2-modules-db",
    ],
    alone: &["asterisk-modules"],
    left_out: &unpack::NOT_RUN,
};

/// Packages that are unpacked together into one folder of the cache.
#[derive(Debug, Hash)]
pub(crate) struct Packages<'a> {
    /// How the folder is called.
    pub(crate) name: &'a str,
    /// The suite of Debian.
    pub(crate) suite: &'a str,
    /// What is fetched together with all that it depends on,
    pub(crate) whole: &'a [&'a str],
    /// but for these, and for what only these need.
    pub(crate) without: &'a [&'a str],
    /// What is fetched without what it depends on.
    pub(crate) alone: &'a [&'a str],
    /// Patterns of files that are not unpacked.
    pub(crate) left_out: &'a [&'a str],
}

/// A folder with unpacked packages, among them the libraries they load if they were fetched whole.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    libraries: PathBuf,
    loader: PathBuf,
}

/// Fetches Asterisk, or finds it in the cache.
///
/// The first time takes some ten seconds and 25 MB from the mirror; afterwards no network is needed. Any number of processes may
/// call this at once: one fetches, the others wait for it. Blocks; in async code, run it on a blocking thread.
///
/// # Errors
///
/// [`FetchError`] says what this machine lacks and what to do about it.
pub fn asterisk() -> Result<Tree, FetchError> {
    packages(&ASTERISK)
}

/// Fetches one further package, without what it depends on, and answers the folder it is unpacked in: for sound files, say.
///
/// Blocks, caches and locks like [`asterisk`].
///
/// # Errors
///
/// As [`asterisk`]; a name Debian doesn't have is [`FetchError::NoSuchPackage`].
pub fn package(name: &str) -> Result<PathBuf, FetchError> {
    let tree = packages(&Packages {
        name,
        suite: SUITE,
        whole: &[],
        without: &[],
        alone: &[name],
        left_out: &[],
    })?;
    Ok(tree.root)
}

/// Fetches packages, or finds them in the cache.
///
/// Blocks, caches and locks like [`asterisk`].
pub(crate) fn packages(wanted: &Packages<'_>) -> Result<Tree, FetchError> {
    let layout = Layout::of_this_machine()?;
    let name = format!("{}-{}", wanted.name, wanted.suite);
    let root = Cache::open()?.entry(&name, wanted, |target| {
        let apt = Apt::new(wanted.suite, layout.debian_name)?;
        let names = apt.available()?.choose(wanted)?;
        unpack::all(&apt.download(&names)?, target, wanted.left_out)
    })?;
    Ok(Tree {
        libraries: root.join(layout.libraries),
        loader: root.join(layout.loader),
        root,
    })
}

impl Tree {
    /// The folder that stands for `/`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the shared libraries; Asterisk's also holds `asterisk/modules`.
    #[must_use]
    pub fn libraries(&self) -> &Path {
        &self.libraries
    }

    /// The dynamic loader that belongs to these libraries; the machine's own may be older than they are.
    #[must_use]
    pub fn loader(&self) -> &Path {
        &self.loader
    }
}

/// Why a package could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A program the fetching needs is not installed.
    #[error(
        "`{tool}` is not installed, and the lab can't fetch without it: on Debian or Ubuntu install the package `{package}`"
    )]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The package that brings it.
        package: &'static str,
    },
    /// Debian's signing keys are not installed.
    #[error(
        "no Debian signing keys under /usr/share/keyrings; install the package `debian-archive-keyring`"
    )]
    NoKeyring,
    /// No apt source of this machine is Debian's own archive.
    #[error(
        "none of this machine's apt sources is Debian's main archive; set {variable} to the address of a Debian mirror",
        variable = sources::MIRROR_VARIABLE
    )]
    NoMirror,
    /// apt failed, three times.
    #[error(
        "`{command}` failed three times; is the Debian mirror of this machine reachable? It said:\n{output}"
    )]
    Apt {
        /// What was run.
        command: String,
        /// The end of what it printed.
        output: String,
    },
    /// Debian's suite has no package of this name.
    #[error("Debian {suite} has no package `{name}`; check its spelling")]
    NoSuchPackage {
        /// The suite.
        suite: String,
        /// The name asked for.
        name: String,
    },
    /// A downloaded package would not unpack.
    #[error(
        "could not unpack {package}: {output}; remove the folder `target/asterisk` and try again"
    )]
    Unpack {
        /// The package's file.
        package: String,
        /// What the unpacking programs said.
        output: String,
    },
    /// pip could not install packages of Python.
    #[error(
        "`{command}` failed; is the package index that pip is set up for reachable? It said:\n{output}"
    )]
    Pip {
        /// What was run.
        command: String,
        /// The end of what it printed.
        output: String,
    },
    /// This processor has no place in the lab.
    #[error("the lab knows x86_64 and aarch64, not {0}")]
    Processor(&'static str),
    /// A file or folder of the cache could not be used.
    #[error("{path}: {source}; the lab needs to write there")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Where Debian puts things for this machine's processor.
struct Layout {
    debian_name: &'static str,
    libraries: &'static str,
    loader: &'static str,
}

impl Layout {
    fn of_this_machine() -> Result<Self, FetchError> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self {
                debian_name: "amd64",
                libraries: "usr/lib/x86_64-linux-gnu",
                loader: "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            }),
            "aarch64" => Ok(Self {
                debian_name: "arm64",
                libraries: "usr/lib/aarch64-linux-gnu",
                loader: "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
            }),
            other => Err(FetchError::Processor(other)),
        }
    }
}

/// Gives an I/O error the path it is about.
fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> FetchError {
    let path = path.into();
    move |source| FetchError::Io { path, source }
}
