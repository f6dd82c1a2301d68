//! Commands that can't start: one line that says what to do and exit code 2, before anything listens.

use std::net::TcpListener;

use crate::kit::{run, sidetone, stderr};

/// Runs a command that can't start, checks that it fails in the right form, and returns the error.
fn refusal(line: &str) -> String {
    let output = run(line);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{line}: {text}");
    assert_eq!(text.lines().count(), 1, "{line}: {text}");
    assert!(
        output.stdout.is_empty(),
        "{line}: it started: {:?}",
        output.stdout
    );
    text
}

#[test]
fn a_malformed_address_is_reported_with_the_right_form() {
    assert!(refusal("echo --listen nonsense").contains("HOST:PORT"));
    assert!(refusal("echo --listen 127.0.0.1:99999").contains("HOST:PORT"));
    assert!(refusal("echo --listen no-such-host.invalid:9092").contains("HOST:PORT"));
    assert!(refusal("call nonsense").contains("HOST:PORT"));
    assert!(refusal("echo --listen [::1]").contains("port is missing"));
    for missing in [":9092", "9092"] {
        for line in ["echo --listen", "call", "load --calls 1"] {
            let text = refusal(&format!("{line} {missing}"));
            assert!(
                text.contains("host is missing") && text.contains("127.0.0.1:9092"),
                "{text}"
            );
        }
    }
}

#[test]
fn an_address_of_another_machine_is_reported() {
    // TEST-NET-2: no machine has it.
    assert!(refusal("echo --listen 198.51.100.1:9092 --allow any").contains("no such address"));
}

#[test]
fn a_port_in_use_is_reported_with_an_alternative() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    for command in ["echo", "demo"] {
        let output = sidetone([command, "--listen", &address.to_string()])
            .current_dir(&directory)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("--listen 127.0.0.1:0"), "{text}");
    }
}

#[test]
fn listening_beyond_loopback_asks_who_may_connect() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let text = refusal(&format!("echo --listen {address}"));
        assert!(text.contains("--allow any"), "{text}");
        assert!(text.contains("--allow 10.0.0.0/8"), "{text}");
    }
    assert!(refusal("echo --allow 10.0.0.0/33").contains("10.0.0.0/8"));
    let unknown = refusal("echo --allow no-such-host.invalid");
    assert!(
        unknown.contains("resolved") && unknown.contains("10.0.0.0/8"),
        "{unknown}"
    );
}

#[test]
fn a_sound_that_cant_be_played_is_reported_before_listening() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    assert!(refusal("play no-such-file.wav").contains("no such file"));
    assert!(refusal(&format!("play {}", directory.path().display())).contains("directory"));
    let text = file("text.wav", b"this is text");
    assert!(refusal(&format!("play {text}")).contains("ffmpeg -i"));
    assert!(refusal(&format!("call 127.0.0.1:1 --play {text}")).contains("ffmpeg -i"));
    let empty = file("empty.wav", b"");
    assert!(refusal(&format!("play {empty}")).contains("no sound"));
}

#[test]
fn a_path_that_cant_be_written_is_reported_before_the_call() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("inside").display().to_string();
    assert!(refusal(&format!("record {inside}")).contains("directory"));
    assert!(refusal(&format!("echo --record {inside}")).contains("directory"));
    assert!(
        refusal(&format!("call 127.0.0.1:1 --record {inside}")).contains("choose another place")
    );
}

#[test]
fn a_directory_without_write_access_is_reported_before_listening() {
    let transcribe =
        "transcribe --engine vosk --endpoint ws://127.0.0.1:1 --output /proc --format text";
    for line in ["record /proc", "echo --record /proc", transcribe] {
        let text = refusal(&format!("{line} --listen 127.0.0.1:0"));
        assert!(text.contains("/proc") && text.contains("choose"), "{text}");
    }
    // In a deleted directory, and with a limit of no bytes per file.
    let directory = tempfile::tempdir().unwrap();
    let deleted = format!(
        "mkdir gone && cd gone && rmdir ../gone && exec {0}",
        "\"$0\" \"$@\""
    );
    for (script, advice) in [
        (deleted.as_str(), "choose"),
        ("ulimit -f 0 && exec \"$0\" \"$@\"", "ulimit -f"),
    ] {
        let output = std::process::Command::new("bash")
            .args(["-c", script])
            .arg(assert_cmd::cargo::cargo_bin!("sidetone"))
            .args(["record", ".", "--listen", "127.0.0.1:0"])
            .current_dir(&directory)
            .output()
            .unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(advice), "{text}");
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn invalid_options_of_a_call_are_reported() {
    assert!(refusal("call 127.0.0.1:1 --rate 11025").contains("16000 (slin16)"));
    assert!(refusal("call 127.0.0.1:1 --dtmf 12x").contains("0-9"));
    assert!(refusal("call 127.0.0.1:1 --dtmf 1@soon").contains("seconds from the start"));
    assert!(refusal("call 127.0.0.1:1 --dtmf 1@0.5,@2").contains("key is missing"));
    assert!(refusal("call 127.0.0.1:1 --dtmf #@6.1 --seconds 5").contains("--dtmf #@6.1"));
    assert!(refusal("call 127.0.0.1:1 --uuid 17").contains("UUID"));
    assert!(refusal("call 127.0.0.1:1 --seconds -1").contains("--seconds"));
    assert!(refusal("call 127.0.0.1:1 --seconds 0").contains("--seconds"));
    assert!(refusal("call 127.0.0.1:1 --seconds 1e19").contains("--seconds"));
}

#[test]
fn a_missing_server_is_reported() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert!(refusal(&format!("call {free}")).contains("start the server"));
}

#[test]
fn missing_and_unknown_arguments_are_reported_in_one_line() {
    for line in [
        "play",
        "record",
        "call",
        "frobnicate",
        "echo --frob",
        "echo --codec g722",
        "echo --max-calls 0",
    ] {
        assert!(refusal(line).contains("--help"), "{line}");
    }
}

#[test]
fn an_unknown_io_backend_is_reported_with_the_known_ones() {
    let output = sidetone(["echo", "--listen", "127.0.0.1:0"])
        .env("SIDETONE_IO_BACKEND", "iouring")
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("`epoll` or `io_uring`"), "{text}");
}

#[test]
fn an_invalid_number_of_threads_is_reported() {
    let error = |number: &str| {
        let mut command = sidetone(["call", "nonsense"]);
        let output = command.env("TOKIO_WORKER_THREADS", number).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2), "{number:?}");
        let text = stderr(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    for number in [
        "x",
        "",
        "0",
        "-1",
        "1.5",
        "99999999",
        "99999999999999999999999",
    ] {
        let text = error(number);
        assert!(text.contains("TOKIO_WORKER_THREADS is"), "{text}");
        assert!(text.contains("from 1 to 1024"), "{text}");
    }
    assert!(error("2").contains("HOST:PORT"));
}

#[test]
fn a_key_that_is_not_text_is_reported() {
    use std::os::unix::ffi::OsStrExt;
    let key = std::ffi::OsStr::from_bytes(b"sk-\xff");
    for (engine, variable) in [
        ("openai", "OPENAI_API_KEY"),
        ("deepgram", "DEEPGRAM_API_KEY"),
    ] {
        let mut command = sidetone(["transcribe", "--engine", engine]);
        let output = command.env(variable, key).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert!(
            text.contains(variable) && text.contains("not text"),
            "{text}"
        );
    }
}

#[test]
fn arguments_with_control_characters_cant_change_the_terminal() {
    // Clears the screen by ESC and by C1, deletes a letter, writes backwards, starts another line.
    let evil = "\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\n\u{85}no.wav";
    let commands: [&[&str]; 9] = [
        &["play", evil],
        &["call", "127.0.0.1:1", "--play", evil],
        &["call", evil],
        &["call", "127.0.0.1:1", "--uuid", evil],
        &["echo", "--listen", evil],
        &["echo", "--allow", evil],
        &["echo", evil],
        &["transcribe", "--engine", "openai", "--credentials", evil],
        &["transcribe", "--engine", "vosk", "--endpoint", evil],
    ];
    for words in commands {
        let output = sidetone(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let text = stderr(&output);
        let line = text.strip_suffix('\n').unwrap();
        let harmful = |it: char| it.is_control() || it == '\u{202e}';
        assert!(!line.contains(harmful), "{words:?}: {line:?}");
    }
}
