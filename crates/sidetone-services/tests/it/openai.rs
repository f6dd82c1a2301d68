//! The stand-in refuses what the real service refuses.
#![allow(clippy::unwrap_used)]

use std::{io::Cursor, time::Duration};

use sidetone_services::{
    openai::{Rules, Service},
    synthesize,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BOUNDARY: &str = "a-boundary";

/// A form built by hand, independent of the recognizer's code.
struct Form(Vec<u8>);

impl Form {
    fn field(mut self, name: &str, value: &str) -> Self {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"");
        self.part(&head, value.as_bytes());
        self
    }

    fn file(mut self, name: &str, content: &[u8]) -> Self {
        let head = format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"");
        self.part(&head, content);
        self
    }

    fn part(&mut self, head: &str, content: &[u8]) {
        self.0
            .extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").into_bytes());
        self.0.extend(content);
        self.0.extend(b"\r\n");
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        self.0
    }
}

fn form() -> Form {
    Form(Vec::new())
}

async fn post(service: &Service, key: &str, form: Form) -> (u16, String) {
    let body = form.finish();
    let url = service.url();
    let host = url.trim_start_matches("http://").trim_end_matches("/v1");
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {host}\r\n{key}Content-Type: multipart/form-data; \
         boundary={BOUNDARY}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(host).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    // The server may refuse before it has read everything.
    let _ = socket.write_all(&body).await;
    let mut reply = Vec::new();
    let _ = socket.read_to_end(&mut reply).await;
    let reply = String::from_utf8(reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    (status, reply)
}

fn wav(samples: &[i16]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    for sample in samples {
        writer.write_sample(*sample).unwrap();
    }
    writer.finalize().unwrap();
    file.into_inner()
}

#[tokio::test]
async fn it_refuses_what_the_real_service_refuses() {
    let service = Service::start(Rules::default()).await.unwrap();
    let good = wav(&synthesize(&["word"], 8000));
    let model = || form().field("model", "whisper-1");
    let file = |name: &str| model().file(name, &good);
    let short = wav(&vec![0; 700]);
    for (status, form, complaint) in [
        (400, form().file("a.wav", &good), "model"),
        (400, model(), "file"),
        (400, model().file("a.wav", b"not a sound"), "format"),
        (400, file("a.txt"), "format"),
        (400, model().file("a.wav", &short), "too short"),
        (
            404,
            form().field("model", "none").file("a.wav", &good),
            "none",
        ),
        (
            400,
            file("a.wav").field("response_format", "poem"),
            "response_format",
        ),
        (400, file("a.wav").field("language", "en-US"), "ISO-639-1"),
        (400, file("a.wav").field("volume", "11"), "volume"),
        (413, model().file("a.wav", &vec![0; 26 << 20]), "limit"),
    ] {
        let (actual, body) = post(&service, "", form).await;
        assert_eq!(actual, status, "{body}");
        assert!(body.contains(complaint), "{complaint}: {body}");
    }
    assert!(service.uploads().is_empty());
    let (status, body) = post(&service, "", file("a.wav")).await;
    assert!(status == 200 && body.contains("\"word\""), "{body}");
    assert!(service.uploads()[0].duration() > Duration::from_millis(800));
}

#[tokio::test]
async fn it_requires_its_key() {
    let rules = Rules {
        key: Some("right".into()),
        ..Rules::default()
    };
    let service = Service::start(rules).await.unwrap();
    let sound = wav(&synthesize(&["word"], 8000));
    let file = || form().field("model", "whisper-1").file("a.wav", &sound);
    for (key, status) in [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer right\r\n", 200),
    ] {
        assert_eq!(post(&service, key, file()).await.0, status, "{key}");
    }
}
