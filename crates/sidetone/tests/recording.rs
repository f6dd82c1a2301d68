//! Recordings of real calls over loopback.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use sidetone::{
    Call, Event, Rate, Server, Uuid,
    record::{RecordError, Recorder, Recording},
};
use sidetone_caller::{CallRecord, Caller, Codec, Voice, exact_runs};
use tokio::sync::mpsc;

async fn echo(mut call: Call) {
    let mut line = call.live();
    while let Some(event) = call.next().await {
        if let Event::Audio(frame) = event {
            line.push(frame.samples());
        }
    }
}

/// Places calls that are echoed and recorded, one after the other.
async fn recorded<const N: usize>(
    recorder: &Arc<Recorder>,
    callers: impl FnOnce(SocketAddr) -> [Caller; N],
) -> [(CallRecord, Recording); N] {
    let recorder = Arc::clone(recorder);
    let (tell, mut recordings) = mpsc::channel(N);
    let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
    let callers = callers(server.local_addr());
    tokio::spawn(server.serve(move |call: Call| {
        let recording = recorder.record(&call.handle()).unwrap();
        tell.try_send(recording).unwrap();
        echo(call)
    }));
    let calls = tokio::task::spawn_blocking(|| callers.map(|caller| caller.call().unwrap()));
    let calls = calls.await.unwrap();
    let mut results = Vec::new();
    for call in calls {
        results.push((call, recordings.recv().await.unwrap()));
    }
    results.try_into().unwrap()
}

/// The two sides of a file, and its rate.
fn sides(path: &Path) -> (Vec<i16>, Vec<i16>, u32) {
    let mut reader = hound::WavReader::open(path).unwrap();
    let hz = reader.spec().sample_rate;
    let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    let side = |skip| samples.iter().skip(skip).step_by(2).copied().collect();
    (side(0), side(1), hz)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn both_sides_of_a_call_are_in_its_file_bit_by_bit() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path().join("made/when/needed")).unwrap());
    let [(call, recording)] = recorded(&recorder, |address| {
        [Caller::new(address)
            .say(Voice::Ramp(3))
            .hang_up_after(Duration::from_secs(3))]
    })
    .await;
    let report = recording.ended().await;
    assert_eq!((report.lost_frames, &report.failure), (0, &None));
    assert_eq!(report.files.len(), 1);
    let name = report.files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with(&format!("Z-{}.wav", call.uuid)), "{name}");
    let (left, right, hz) = sides(&report.files[0]);
    assert_eq!(hz, 8_000);
    let said = exact_runs(call.sent_samples(), &left);
    assert_eq!(said.len(), 1, "{said:?}");
    // The first frames may come before there is a handler that records.
    assert!(said[0].length + 4_000 > call.sent_samples().len());
    let heard: Vec<_> = call.echo().iter().map(|run| run.length).collect();
    let played = exact_runs(call.sent_samples(), &right);
    let played: Vec<_> = played.iter().map(|run| run.length).collect();
    assert_eq!(played, heard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_uuid_that_comes_again_gets_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let calls = recorded(&recorder, |address| {
        [11, 12, 13].map(|seed| {
            Caller::new(address)
                .uuid(Uuid::from_u128(4))
                .say(Voice::Ramp(seed))
                .hang_up_after(Duration::from_millis(400))
        })
    })
    .await;
    let mut files = Vec::new();
    for (call, recording) in calls {
        let report = recording.ended().await;
        let (left, _, _) = sides(&report.files[0]);
        assert_eq!(exact_runs(call.sent_samples(), &left).len(), 1);
        files.extend(report.files);
    }
    files.dedup();
    assert_eq!(files.len(), 3);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wideband_call_is_recorded_at_its_rate() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let [(call, recording)] = recorded(&recorder, |address| {
        [Caller::new(address)
            .codec(Codec::Slin(Rate::Slin16))
            .say(Voice::Ramp(3))
            .hang_up_after(Duration::from_secs(2))]
    })
    .await;
    let (left, _, hz) = sides(&recording.ended().await.files[0]);
    assert_eq!(hz, 16_000);
    let said = exact_runs(call.sent_samples(), &left);
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn finishing_makes_recordings_of_running_calls_whole() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    let (tell, mut begun) = mpsc::channel(1);
    let records = Arc::clone(&recorder);
    tokio::spawn(server.serve(move |call: Call| {
        let recording = records.record(&call.handle()).unwrap();
        let tell = tell.clone();
        async move {
            tell.send((call.handle(), recording)).await.unwrap();
            echo(call).await;
        }
    }));
    let caller = Caller::new(address).say(Voice::Ramp(8));
    let caller = tokio::task::spawn_blocking(move || caller.call().unwrap());
    let (call, recording) = begun.recv().await.unwrap();
    while recording.report().duration < Duration::from_millis(500) {
        tokio::task::yield_now().await;
    }
    let finishing = Arc::clone(&recorder);
    tokio::task::spawn_blocking(move || finishing.finish())
        .await
        .unwrap();
    let report = recording.report();
    assert!(report.ended && report.failure.is_none(), "{report:?}");
    assert!(
        report.files[0]
            .extension()
            .is_some_and(|ending| ending == "wav")
    );
    assert!(call.ended().is_none());
    let error = recorder.record(&call).unwrap_err();
    assert!(matches!(error, RecordError::Finished), "{error}");
    call.hang_up();
    let caller = caller.await.unwrap();
    let (left, _, _) = sides(&report.files[0]);
    assert_eq!(exact_runs(caller.sent_samples(), &left).len(), 1);
    call.closed().await;
    assert!(matches!(recorder.record(&call), Err(RecordError::CallOver)));
}

#[test]
fn a_directory_that_cannot_be_made_is_said_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Recorder::new(file.join("below")).unwrap_err();
    assert!(error.to_string().contains("choose a directory"), "{error}");
}
