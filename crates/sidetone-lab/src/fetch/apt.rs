//! apt with a state of its own: downloads packages, touches nothing of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::packages::Available;
use super::{FetchError, at, cache, sources};

/// Where Debian's keys lie: the second name is that of newer releases.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// How the folders of private apts are named.
pub(super) const PREFIX: &str = "apt-";

/// How often a step that needs the network is tried.
const TRIES: usize = 3;

/// One private apt, its lists fetched. Dropped, it takes its lists and downloads with it.
pub(super) struct Apt {
    folder: TempDir,
}

impl Apt {
    pub(super) fn new(suite: &str, architecture: &str) -> Result<Self, FetchError> {
        need("apt-get", "apt")?;
        need("dpkg-deb", "dpkg")?;
        need("tar", "tar")?;
        let keyring = KEYRINGS
            .iter()
            .find(|path| Path::new(path).exists())
            .ok_or(FetchError::NoKeyring)?;
        let mirror = sources::mirror()?;
        let parent = cache::folder();
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)
            .map_err(at(parent))?;
        let apt = Self { folder };
        for part in [
            "state/lists/partial",
            "cache/archives/partial",
            "etc/preferences.d",
            "debs",
        ] {
            let path = apt.path(part);
            std::fs::create_dir_all(&path).map_err(at(path))?;
        }
        apt.write("state/status", "")?;
        apt.write(
            "sources.list",
            &format!("deb [arch={architecture} signed-by={keyring}] {mirror} {suite} main\n"),
        )?;
        apt.write("apt.conf", &apt.configuration(architecture))?;
        apt.run("apt-get", &["-qq", "update"])?;
        Ok(apt)
    }

    /// Every package of the suite.
    pub(super) fn available(&self) -> Result<Available, FetchError> {
        Ok(Available::parse(&self.run("apt-cache", &["dumpavail"])?))
    }

    /// Downloads packages, their signatures checked, and answers their files.
    pub(super) fn download(&self, names: &[String]) -> Result<Vec<PathBuf>, FetchError> {
        let mut arguments = vec!["-qq", "download"];
        arguments.extend(names.iter().map(String::as_str));
        self.run("apt-get", &arguments)?;
        let debs = self.path("debs");
        let entries = std::fs::read_dir(&debs).map_err(at(&debs))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FetchError> {
        let path = self.path(name);
        std::fs::write(&path, text).map_err(at(path))
    }

    fn configuration(&self, architecture: &str) -> String {
        let here = self.folder.path().display();
        let private = format!(
            r#"Dir "{here}"; Dir::State "{here}/state"; Dir::State::status "{here}/state/status"; Dir::Cache "{here}/cache";
Dir::Etc "{here}/etc"; Dir::Etc::sourcelist "{here}/sources.list"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::main "/dev/null"; Dir::Etc::parts "/dev/null";
APT::Architecture "{architecture}"; APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::Check-Valid-Until "false"; Acquire::Retries "{TRIES}";
APT::Update::Error-Mode "any";
"#
        );
        // The way out to the network (a proxy, a time-out) is the machine's; everything else is ours.
        let machine = Command::new("apt-config").arg("dump").output();
        let machine = machine
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        let network = |line: &&str| {
            line.starts_with("Acquire::http::") || line.starts_with("Acquire::https::")
        };
        machine
            .lines()
            .filter(network)
            .fold(private, |all, line| all + line + "\n")
    }

    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<String, FetchError> {
        let mut said = String::new();
        for _ in 0..TRIES {
            let output = Command::new(program)
                .args(arguments)
                .env("APT_CONFIG", self.path("apt.conf"))
                .env("LC_ALL", "C")
                .current_dir(self.path("debs"))
                .output()
                .map_err(at(program))?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            said = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        let command = format!("{program} {}", arguments.join(" "));
        Err(FetchError::Apt {
            command,
            output: said,
        })
    }
}

/// A tool that can't be started at all is missing.
pub(super) fn need(tool: &'static str, package: &'static str) -> Result<(), FetchError> {
    match Command::new(tool).arg("--version").output() {
        Ok(_) => Ok(()),
        Err(_) => Err(FetchError::MissingTool { tool, package }),
    }
}
