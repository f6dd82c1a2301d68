use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sidetone_speech::{Format, SpeechEvent, google::Google, transcribe};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

/// More than all the buffers of a connection hold together.
const FLOOD: usize = 256 << 20;
/// Frames of HTTP/2 without a stream: settings, and a ping.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Over a socket, as the buffers of the system are part of it; time stands still while anybody has something to do.
#[tokio::test(start_paused = true)]
async fn who_floods_pings_and_takes_no_answer_is_read_no_further() {
    for frame in [&PING[..], &SETTINGS[..]] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let flooded = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&flooded);
        let frames = frame.repeat(1000);
        let service = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                socket.write_all(&SETTINGS).await.unwrap();
                while counted.load(Ordering::Relaxed) < FLOOD
                    && socket.write_all(&frames).await.is_ok()
                {
                    counted.fetch_add(frames.len(), Ordering::Relaxed);
                }
            }
        });
        let engine = Google::new(["en-US"]).project("test").endpoint(address);
        let (mut input, mut events) = transcribe(engine, Format::linear(8000));
        input.push(Duration::ZERO, &[0; 16_000]);
        let told = timeout(Duration::from_secs(120), events.next()).await;
        let told = told.unwrap_or_else(|_| panic!("{} MB", flooded.load(Ordering::Relaxed) >> 20));
        assert!(
            matches!(told, Some(SpeechEvent::Retrying { .. })),
            "{told:?}"
        );
        let flooded = flooded.load(Ordering::Relaxed);
        assert!((1..FLOOD).contains(&flooded), "{flooded}");
        service.abort();
    }
}
