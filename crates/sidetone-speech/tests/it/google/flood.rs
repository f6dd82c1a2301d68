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
/// HTTP/2 frames without a stream: settings, and a ping.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Over a socket, since the system's buffers matter. Virtual time advances only while no task has
/// work.
#[tokio::test(start_paused = true)]
async fn a_service_that_floods_pings_and_takes_no_pongs_is_not_read() {
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
        let recognizer = Google::new(["en-US"]).project("test").endpoint(address);
        let (mut input, mut events) = transcribe(recognizer, Format::linear(8000));
        input.push(Duration::ZERO, &[0; 16_000]);
        let received = timeout(Duration::from_secs(120), events.next()).await;
        let received =
            received.unwrap_or_else(|_| panic!("{} MB", flooded.load(Ordering::Relaxed) >> 20));
        assert!(
            matches!(received, Some(SpeechEvent::Retrying { .. })),
            "{received:?}"
        );
        let flooded = flooded.load(Ordering::Relaxed);
        assert!((1..FLOOD).contains(&flooded), "{flooded}");
        service.abort();
    }
}
