//! What an operator installs: the units, the example file, and the Debian package, whose binary serves from its example file.
//!
//! The package is made by cargo-deb, which `.ci/run` installs, of the binary that is tested: a release would take minutes more to
//! build, and the units, files and scripts are the same. Without cargo-deb or systemd-analyze a test is skipped, with a message; where the
//! variable `CI` is set that is a failure.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sidetone_caller::{Caller, EndCause, Voice};
use sidetone_lab::{StartError, fetch::FetchError};
use uuid::Uuid;

use crate::skip;

const UNITS: [&str; 3] = [
    "sidetone.service",
    "sidetone.socket",
    "sidetone-http.socket",
];

/// What the units refer to, and other packages bring.
const TARGETS: [&str; 6] = [
    "basic.target",
    "multi-user.target",
    "network-online.target",
    "shutdown.target",
    "sockets.target",
    "sysinit.target",
];

/// What the package has besides the manual pages of subcommands.
const FILES: [&str; 19] = [
    "etc/sidetone/sidetone.toml",
    "usr/bin/sidetone",
    "usr/lib/systemd/system/sidetone-http.socket",
    "usr/lib/systemd/system/sidetone.service",
    "usr/lib/systemd/system/sidetone.socket",
    "usr/share/bash-completion/completions/sidetone",
    "usr/share/doc/sidetone/CHANGELOG.md",
    "usr/share/doc/sidetone/LICENSE-APACHE",
    "usr/share/doc/sidetone/LICENSE-MIT",
    "usr/share/doc/sidetone/bots.md",
    "usr/share/doc/sidetone/copyright",
    "usr/share/doc/sidetone/examples/sidetone.json",
    "usr/share/doc/sidetone/examples/sidetone.rules.yml",
    "usr/share/doc/sidetone/gateway.md",
    "usr/share/doc/sidetone/operator.md",
    "usr/share/doc/sidetone/transcription.md",
    "usr/share/fish/vendor_completions.d/sidetone.fish",
    "usr/share/man/man5/sidetone.toml.5.gz",
    "usr/share/zsh/vendor-completions/_sidetone",
];

const TOKEN: &str = "a token of 24 characters";

#[test]
fn the_package_is_whole_and_its_binary_serves_from_its_file() {
    let Some(package) = Package::build() else {
        return;
    };
    let root = package.root();
    let found = files(&root);
    let manual = "usr/share/man/man1/";
    let (pages, others): (BTreeSet<_>, BTreeSet<_>) = found
        .iter()
        .map(String::as_str)
        .partition(|file| file.starts_with(manual));
    assert_eq!(others, BTreeSet::from(FILES));
    for page in ["sidetone.1.gz", "sidetone-serve.1.gz", "sidetone-call.1.gz"] {
        let path = format!("{manual}{page}");
        assert!(pages.contains(path.as_str()), "{page}: {pages:?}");
    }
    assert_eq!(package.control("conffiles"), "/etc/sidetone/sidetone.toml");
    let control = package.control("control");
    for line in ["Package: sidetone", "Depends: ", "Maintainer: "] {
        assert!(control.contains(line), "{control}");
    }
    assert!(control.contains("libc6 (>="), "{control}");

    verify(&root, sidetone_lab::systemd_analyze);
    serves(&root);
}

#[test]
fn maintainer_scripts_are_sound_and_never_restart_the_sockets() {
    for name in ["postinst", "prerm", "postrm"] {
        let script = workspace().join("contrib/debian").join(name);
        let checked = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
    // With the sockets, calls would be refused while the package is upgraded.
    let script = fs::read_to_string(workspace().join("contrib/debian/postinst")).unwrap();
    let restarts = script.lines().filter(|line| line.contains("restart"));
    let restarts: Vec<&str> = restarts.map(str::trim).collect();
    let only = "deb-systemd-invoke try-restart sidetone.service >/dev/null || true";
    assert_eq!(restarts, [only]);
}

#[test]
fn units_have_no_faults() {
    let root = tempfile::tempdir().unwrap();
    let (units, programs) = (root.path().join(UNIT_DIR), root.path().join("usr/bin"));
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(&programs).unwrap();
    for unit in UNITS {
        let source = workspace().join("contrib/systemd").join(unit);
        fs::copy(source, units.join(unit)).unwrap();
    }
    program(&programs.join("sidetone"));
    verify(root.path(), sidetone_lab::systemd_analyze);
    // And by the oldest systemd that is meant, which is what machines without one of their own have.
    verify(root.path(), sidetone_lab::debians_systemd_analyze);
}

#[tokio::test]
async fn alerts_fire_when_they_should_and_only_then() {
    let rules = workspace().join("contrib/prometheus/sidetone.rules.yml");
    let tests = workspace().join("crates/sidetone-lab/tests/it/rules.test.yml");
    for (what, file) in [("check", rules), ("test", tests)] {
        let arguments = [what, "rules", file.to_str().unwrap()];
        match sidetone_lab::Prometheus::promtool(&arguments, "").await {
            Ok(verdict) => assert!(verdict.passed, "{}", verdict.printed),
            Err(error @ StartError::Fetch(_)) => skip(&error.to_string()),
            Err(error) => panic!("{error}"),
        }
    }
}

const UNIT_DIR: &str = "usr/lib/systemd/system";

/// Checks the units in a root, and that the service may do little besides its work.
fn verify(root: &Path, analyze: fn() -> Result<Command, FetchError>) {
    let units = root.join(UNIT_DIR);
    for target in TARGETS {
        fs::write(
            units.join(target),
            "[Unit]\nDescription=Of another package\n",
        )
        .unwrap();
    }
    let programs = root.join("bin");
    fs::create_dir_all(&programs).unwrap();
    program(&programs.join("kill"));
    let (mut verify, mut security) = match (analyze(), analyze()) {
        (Ok(verify), Ok(security)) => (verify, security),
        (Err(error), _) | (_, Err(error)) => return skip(&error.to_string()),
    };
    verify.args(["verify", "--man=no"]);
    verify.arg(format!("--root={}", root.display())).args(UNITS);
    let verified = verify.output().unwrap();
    // Of a key that it doesn't know it only warns.
    let said = [&verified.stdout[..], &verified.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(verified.status.success() && said.is_empty(), "{said}");

    security.args(["security", "--offline=true", "--threshold=25"]);
    let exposed = security.arg(units.join(UNITS[0])).output().unwrap();
    let said = [&exposed.stdout[..], &exposed.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(exposed.status.success(), "exposed beyond 2.5:\n{said}");
}

/// Something that can be executed.
fn program(path: &Path) {
    fs::write(path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The binary serves from the package's file, with the token that its installation would have made.
fn serves(root: &Path) {
    let (binary, settings) = (root.join("usr/bin/sidetone"), root.join("etc/sidetone"));
    let file = settings.join("sidetone.toml");
    let without_token = check(&binary, &file);
    assert!(without_token.contains("page.token"), "{without_token}");
    fs::write(settings.join("page.token"), TOKEN).unwrap();
    assert_eq!(check(&binary, &file), "");

    // On other ports, as somebody else may have these.
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace(":9092\"", ":0\"").replace(":9093\"", ":0\"");
    fs::write(&file, text).unwrap();
    let mut gateway = Gateway::start(&binary, &file);

    assert_eq!(gateway.get("livez", None), (200, "ok\n".into()));
    assert_eq!(gateway.get("readyz", None), (200, "ok\n".into()));
    assert_eq!(gateway.get("v1/calls", None).0, 401);
    let (status, metrics) = gateway.get("metrics", Some(TOKEN));
    assert_eq!(status, 200, "{metrics}");
    has_what_is_watched(&metrics);
    assert_eq!(gateway.get("v1/calls", Some(TOKEN)).0, 200);
    let (status, ticket) = gateway.get("v1/tickets?from=%2B49301", None);
    assert_eq!(status, 200, "{ticket}");
    let (id, address) = ticket.split_once(',').unwrap();
    assert_eq!(address, gateway.calls.to_string());
    let id: Uuid = id.parse().unwrap();
    let call = Caller::new(gateway.calls).uuid(id).say(Voice::Ramp(1));
    let call = call.hang_up_after(Duration::from_secs(1)).call().unwrap();
    assert!(!call.echo().is_empty(), "{:?}", call.counts);
    let result = gateway.get(&format!("v1/calls/{id}/result"), None);
    assert_eq!(result, (200, "continue".into()));

    let uninvited = Caller::new(gateway.calls).say(Voice::Ramp(2));
    let uninvited = uninvited
        .hang_up_after(Duration::from_secs(10))
        .call()
        .unwrap();
    assert_eq!(uninvited.ended.cause, EndCause::ServerHungUp);

    gateway.end();
}

/// Alerts and the dashboard name only metrics that there are.
fn has_what_is_watched(metrics: &str) {
    let is_of_a_name = |it: char| it.is_ascii_lowercase() || it == '_';
    for file in ["prometheus/sidetone.rules.yml", "grafana/sidetone.json"] {
        let text = fs::read_to_string(workspace().join("contrib").join(file)).unwrap();
        let named = text.match_indices("sidetone_").map(|(at, _)| {
            let rest = &text[at..];
            &rest[..rest.find(|it| !is_of_a_name(it)).unwrap()]
        });
        for name in named.collect::<BTreeSet<_>>() {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            let family = format!("# TYPE {family} ");
            assert!(
                metrics.contains(&family),
                "{file} names {name}, and there is none"
            );
        }
    }
}

/// What `--check` says.
fn check(binary: &Path, file: &Path) -> String {
    let checked = Command::new(binary)
        .args(["serve", "--check"])
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.success(), said.is_empty(), "{said}");
    said
}

/// A gateway that runs, ended by its pid.
struct Gateway {
    process: Child,
    calls: SocketAddr,
    http: String,
}

impl Gateway {
    fn start(binary: &Path, file: &Path) -> Self {
        let mut command = Command::new(binary);
        command.arg("serve").arg(file).stdout(Stdio::piped());
        for variable in [
            "LISTEN_FDS",
            "NOTIFY_SOCKET",
            "JOURNAL_STREAM",
            "STATE_DIRECTORY",
        ] {
            command.env_remove(variable);
        }
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let listening = lines.by_ref().find_map(|line| {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            (event["type"] == "listening").then(|| event["data"].clone())
        });
        // A pipe that nobody reads would hold the gateway up.
        std::thread::spawn(move || lines.for_each(drop));
        let listening = listening.unwrap();
        let text = |key: &str| listening[key].as_str().unwrap().to_owned();
        Self {
            calls: text("address").parse().unwrap(),
            http: text("http"),
            process,
        }
    }

    fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false);
        let agent = agent
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .new_agent();
        let mut request = agent.get(format!("{}{path}", self.http));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut answer = request.call().unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), body)
    }

    fn end(&mut self) {
        let pid = Pid::from_raw(self.process.id() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Only after a failure is it still running.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A package, with the folder that it is in.
struct Package {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Package {
    fn build() -> Option<Self> {
        if !has_cargo_deb() {
            skip("cargo-deb is not installed: run cargo install --locked cargo-deb");
            return None;
        }
        let binary = sidetone_lab::sidetone().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut build = Command::new(workspace().join("contrib/debian/build"));
        build.arg(binary).arg(folder.path());
        let built = build.output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        assert!(!said.contains("warning"), "{said}");
        let file = fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        Some(Self { folder, file })
    }

    /// Unpacks it into an empty folder.
    fn root(&self) -> PathBuf {
        let root = self.folder.path().join("root");
        self.dpkg_deb("-x", &root);
        root
    }

    fn control(&self, name: &str) -> String {
        let control = self.folder.path().join("control");
        self.dpkg_deb("-e", &control);
        fs::read_to_string(control.join(name))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn dpkg_deb(&self, what: &str, to: &Path) {
        let mut command = Command::new("dpkg-deb");
        let unpacked = command.arg(what).arg(&self.file).arg(to).output().unwrap();
        assert!(unpacked.status.success(), "{unpacked:?}");
    }
}

fn has_cargo_deb() -> bool {
    let installed = workspace().join("target/tools/bin/cargo-deb");
    installed.exists() || Command::new("cargo-deb").arg("--version").output().is_ok()
}

/// The files below a folder, by their paths in it.
fn files(root: &Path) -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(root).unwrap();
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn workspace() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}
