//! `sidetone serve`: its file, its signals, and restarts that refuse no call.

use std::{
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    process::Command,
    sync::mpsc::{Receiver, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    process::Signal,
};
use sidetone_caller::{CallRecord, Caller, EndCause, Voice};
use tempfile::TempDir;
use uuid::Uuid;

use crate::kit::{Running, TIMEOUT, run, sidetone, stderr};

const FILE: &str = "[server]\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
                    [route.echo]\necho = {}\nresult = \"set,DONE\"\n";

fn folder_with(file: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sidetone.toml"), file).unwrap();
    folder
}

fn path(folder: &TempDir) -> String {
    folder.path().join("sidetone.toml").display().to_string()
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let folder = folder_with(FILE);
    let good = run(&format!("serve --check {}", path(&folder)));
    assert_eq!(
        (good.status.code(), stderr(&good)),
        (Some(0), String::new())
    );

    std::fs::write(path(&folder), FILE.replacen("listen", "lisen", 1)).unwrap();
    let bad = run(&format!("serve --check {}", path(&folder)));
    assert_eq!(bad.status.code(), Some(2));
    let text = stderr(&bad);
    assert!(
        text.contains("sidetone.toml:2:1: unknown key `lisen`: did you mean `listen`?"),
        "{text}"
    );
    // It does not start either.
    let bad = run(&format!("serve {}", path(&folder)));
    assert_eq!((bad.status.code(), stderr(&bad)), (Some(2), text));

    let missing = run("serve --check no-such-file.toml");
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("no-such-file.toml: can't read it"));
}

/// A gateway, with its address for calls and that for HTTP.
struct Served {
    process: Running,
    address: String,
    http: String,
}

impl Served {
    fn start(command: Command) -> Self {
        let mut process = Running::start(command);
        let listening = process.wait_for("listening")["data"].clone();
        let text = |key: &str| listening[key].as_str().unwrap().to_owned();
        let http = text("http");
        let http = http.trim_start_matches("http://").trim_end_matches('/');
        Self {
            address: text("address"),
            http: http.into(),
            process,
        }
    }
}

/// The status and the body of an answer; a request is sent on a connection of its own, as CURL() does.
fn get(http: &str, path: &str) -> (u16, String) {
    use std::io::{Read, Write};

    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.into())
}

fn ticket(http: &str) -> Uuid {
    let (status, body) = get(http, "/v1/tickets?route=echo");
    assert_eq!(status, 200, "{body}");
    body.split(',').next().unwrap().parse().unwrap()
}

fn call(address: &str, id: Uuid, duration: Duration) -> JoinHandle<CallRecord> {
    let caller = Caller::new(address.parse().unwrap())
        .uuid(id)
        .say(Voice::Ramp(1))
        .hang_up_after(duration);
    thread::spawn(move || caller.call().unwrap())
}

#[test]
fn the_file_is_read_again_on_sighup_and_a_bad_one_changes_nothing() {
    let folder = folder_with(FILE);
    let mut served = Served::start(sidetone(["serve", &path(&folder)]));
    std::fs::write(path(&folder), FILE.replace("DONE", "CHANGED")).unwrap();
    served.process.signal(Signal::HUP);
    served.process.wait_for("reloaded");
    std::fs::write(path(&folder), "[sever]").unwrap();
    served.process.signal(Signal::HUP);
    let alarm = served.process.wait_for("alarm")["data"].clone();
    assert!(
        alarm["text"].as_str().unwrap().contains("`server`"),
        "{alarm}"
    );
    let id = ticket(&served.http);
    call(&served.address, id, Duration::from_millis(200))
        .join()
        .unwrap();
    assert_eq!(
        get(&served.http, &format!("/v1/calls/{id}/result")),
        (200, "set,CHANGED".into())
    );
    let events = served.process.stop();
    assert!(events.iter().any(|event| event["type"] == "stopping"));
}

#[test]
fn without_a_file_every_call_hears_itself_and_a_token_is_made() {
    // Its ports are fixed, so another test run may have them.
    let ports = ["127.0.0.1:9092", "127.0.0.1:9093"];
    if ports.iter().any(|port| TcpListener::bind(port).is_err()) {
        return;
    }
    let mut served = Served::start(sidetone(["serve"]));
    assert_eq!(served.address, ports[0]);
    let listening = served.process.seen.last().unwrap()["data"].clone();
    assert!(listening["token"].as_str().unwrap().len() >= 32);
    let id = Uuid::new_v4();
    let record = call(&served.address, id, Duration::from_millis(500))
        .join()
        .unwrap();
    assert!(record.heard_samples().iter().any(|sample| *sample != 0));
    served.process.wait_for("call.ended");
}

#[test]
fn a_hook_that_fails_is_in_the_log() {
    let refusing = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let hook = format!(
        "[[hook]]\nurl = \"http://{refusing}/calls?key=secret\"\nevents = [\"call.started\"]\n"
    );
    let folder = folder_with(&format!("{FILE}{hook}"));
    let mut served = Served::start(sidetone(["serve", &path(&folder)]));
    let id = ticket(&served.http);
    call(&served.address, id, Duration::from_millis(200))
        .join()
        .unwrap();
    let diagnostic = served.process.wait_for("diagnostic")["data"].to_string();
    let shown = format!("{refusing}/calls");
    assert!(
        diagnostic.contains(&shown) && !diagnostic.contains("secret"),
        "{diagnostic}"
    );
}

/// What systemd does for a unit with two sockets and `Type=notify`.
struct Systemd {
    sockets: [OwnedFd; 2],
    addresses: [String; 2],
    notifications: Receiver<String>,
    folder: TempDir,
}

impl Systemd {
    fn new(file: &str) -> Self {
        let folder = folder_with(file);
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let (sender, notifications) = channel();
        thread::spawn(move || {
            let mut message = [0; 1024];
            while let Ok(length) = socket.recv(&mut message)
                && sender
                    .send(String::from_utf8_lossy(&message[..length]).into_owned())
                    .is_ok()
            {}
        });
        let listeners = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = listeners
            .each_ref()
            .map(|it| it.local_addr().unwrap().to_string());
        // Numbers that the shell below does not use itself, open for it.
        let sockets = listeners.map(|listener| {
            let socket = fcntl_dupfd_cloexec(&listener, 100).unwrap();
            fcntl_setfd(&socket, FdFlags::empty()).unwrap();
            socket
        });
        Self {
            sockets,
            addresses,
            notifications,
            folder,
        }
    }

    /// Starts the unit, and waits until it is ready.
    fn start(&self) -> Running {
        let [calls, http] = self.sockets.each_ref().map(AsRawFd::as_raw_fd);
        let script = format!(
            "export LISTEN_FDS=2 LISTEN_FDNAMES=audiosocket:http LISTEN_PID=$$; exec \"$0\" serve \"$1\" 3<&{calls} 4<&{http}"
        );
        let mut command = Command::new("bash");
        command
            .args(["-c", &script])
            .arg(assert_cmd::cargo::cargo_bin!("sidetone"))
            .arg(self.folder.path().join("sidetone.toml"))
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", "1000000");
        let running = Running::start(command);
        self.wait_for("READY=1");
        running
    }

    fn wait_for(&self, state: &str) {
        loop {
            let text = self.notifications.recv_timeout(TIMEOUT).unwrap();
            if text.lines().any(|line| line == state) {
                return;
            }
        }
    }
}

#[test]
fn a_restart_under_systemd_refuses_nobody_and_loses_no_ticket_and_no_result() {
    let systemd = Systemd::new(FILE);
    let [address, http] = &systemd.addresses;
    let mut first = systemd.start();
    systemd.wait_for("WATCHDOG=1");
    let running: Vec<Uuid> = (0..10).map(|_| ticket(http)).collect();
    let calls: Vec<_> = running
        .iter()
        .map(|id| call(address, *id, Duration::from_secs(8)))
        .collect();
    let promised = ticket(http);
    for _ in &running {
        first.wait_for("call.started");
    }

    // systemd waits for the main process, and starts the next one.
    first.terminate();
    systemd.wait_for("STOPPING=1");
    let between = {
        let (address, http) = (address.clone(), http.clone());
        thread::spawn(move || {
            let id = ticket(&http);
            (
                id,
                call(&address, id, Duration::from_millis(500))
                    .join()
                    .unwrap(),
            )
        })
    };
    assert_eq!(first.main_exit_code(), 0);
    let mut second = systemd.start();

    let (id, record) = between.join().unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    assert_eq!(
        get(http, &format!("/v1/calls/{id}/result")),
        (200, "set,DONE".into())
    );
    let record = call(address, promised, Duration::from_millis(300))
        .join()
        .unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    for (id, call) in running.iter().zip(calls) {
        assert_eq!(call.join().unwrap().ended.cause, EndCause::HungUp);
        // The process that had the call is another one than the one that is asked.
        assert_eq!(
            get(http, &format!("/v1/calls/{id}/result")),
            (200, "set,DONE".into())
        );
    }
    second.terminate();
    assert_eq!(second.exit_code(), 0);
    // Standard output ends when the process that finished the calls does.
    assert_eq!(first.exit_code(), 0);
    for kind in ["call.rejected", "call.notice"] {
        assert_eq!((first.count(kind), second.count(kind)), (0, 0));
    }
}

#[test]
fn a_call_that_has_not_said_its_uuid_yet_outlives_a_restart_with_its_result() {
    use std::io::{Read, Write};

    let systemd = Systemd::new(FILE);
    let [address, http] = &systemd.addresses;
    let mut first = systemd.start();
    let late = ticket(http);
    let mut silent = TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(TIMEOUT)).unwrap();
    // When this call is there, the connection before it has been accepted, too.
    let running = ticket(http);
    let call_of_the_first = call(address, running, Duration::from_secs(6));
    first.wait_for("call.started");
    first.terminate();
    assert_eq!(first.main_exit_code(), 0);
    let mut second = systemd.start();

    silent.write_all(&[0x01, 0x00, 0x10]).unwrap();
    silent.write_all(late.as_bytes()).unwrap();
    // The process that it reached lets it in, and sends silence at least.
    silent.read_exact(&mut [0; 323]).unwrap();
    drop(silent);
    let done = (200, "set,DONE".to_owned());
    assert_eq!(get(http, &format!("/v1/calls/{late}/result")), done);

    // A process that ends itself passes on what it expects of those before.
    second.terminate();
    assert_eq!(second.main_exit_code(), 0);
    let third = systemd.start();
    let record = call_of_the_first.join().unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    for id in [late, running] {
        assert_eq!(get(http, &format!("/v1/calls/{id}/result")), done);
    }
    third.stop();
    assert_eq!((first.exit_code(), second.exit_code()), (0, 0));
}

#[test]
fn a_gateway_whose_main_process_was_killed_makes_room_for_the_next() {
    let systemd = Systemd::new(FILE);
    let [address, http] = &systemd.addresses;
    let mut first = systemd.start();
    let running = ticket(http);
    let call_of_the_first = call(address, running, Duration::from_secs(4));
    first.wait_for("call.started");
    first.signal(Signal::KILL);
    first.wait_for("stopping");
    let mut second = systemd.start();
    // Two processes that accept calls would not know each other's tickets.
    for _ in 0..10 {
        let id = ticket(http);
        let record = call(address, id, Duration::from_millis(50)).join().unwrap();
        assert_eq!(record.ended.cause, EndCause::HungUp);
    }
    let record = call_of_the_first.join().unwrap();
    assert_eq!(record.ended.cause, EndCause::HungUp);
    assert_eq!(
        get(http, &format!("/v1/calls/{running}/result")),
        (200, "set,DONE".into())
    );
    second.terminate();
    assert_eq!(second.exit_code(), 0);
    assert_eq!(second.count("call.rejected"), 0);
}

#[test]
fn a_process_that_cannot_serve_fails_its_unit() {
    let systemd = Systemd::new("[sever]");
    let [calls, http] = systemd.sockets.each_ref().map(AsRawFd::as_raw_fd);
    let script =
        format!("export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$0\" serve \"$1\" 3<&{calls} 4<&{http}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .arg(assert_cmd::cargo::cargo_bin!("sidetone"))
        .arg(systemd.folder.path().join("sidetone.toml"))
        .env("NOTIFY_SOCKET", systemd.folder.path().join("notify"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("did you mean `server`?"), "{text}");
}
