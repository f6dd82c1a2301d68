//! Recordings of real calls over loopback.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use crate::support::{IoBackend, builder, id, millis, over_each_back_end, short_call, until};
use macro_rules_attribute::apply;
use sidetone::{
    Admission, Call, Clip, Event, OwnedFrame, Rate, Server, Uuid,
    record::{RecordError, Recorder, Recording},
};
use sidetone_caller::{CallRecord, Caller, Codec, Stop, Voice, exact_runs, ramp};
use tokio::sync::mpsc;

async fn echo(mut call: Call) {
    let mut line = call.live();
    while let Some(event) = call.next().await {
        if let Event::Audio(frame) = event {
            line.push(frame.samples());
        }
    }
}

/// Frames that are all different.
fn frames(count: i16) -> Vec<Vec<i16>> {
    (1..=count)
        .map(|frame| (0..160).map(|sample| frame * 160 + sample).collect())
        .collect()
}

/// Places calls that are handled and recorded, one after the other.
async fn recorded<const N: usize, F>(
    io: IoBackend,
    recorder: &Arc<Recorder>,
    handler: impl Fn(Call) -> F + Send + Sync + 'static,
    callers: impl FnOnce(SocketAddr) -> [Caller; N],
) -> [(CallRecord, Recording); N]
where
    F: Future<Output = ()> + Send + 'static,
{
    let recorder = Arc::clone(recorder);
    let (tell, mut recordings) = mpsc::channel(N);
    let server = builder(io).bind("127.0.0.1:0").await.unwrap();
    let callers = callers(server.local_addr());
    tokio::spawn(server.serve(move |call: Call| {
        let recording = recorder.record(&call.handle()).unwrap();
        tell.try_send(recording).unwrap();
        handler(call)
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

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn both_sides_of_a_call_are_in_its_file_bit_by_bit(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path().join("made/when/needed")).unwrap());
    // Not an echo: the first live audio moves the schedule, and then the recording's clock has something to correct.
    let sound = ramp(9, 0, 16_000);
    let clip = Clip::from_samples(8_000, sound.clone()).unwrap();
    let play = move |mut call: Call| {
        let clip = clip.clone();
        async move {
            let mut player = call.player(8_000).unwrap();
            player.play_clip(&clip).await.unwrap();
            while call.next().await.is_some() {}
        }
    };
    let [(call, recording)] = recorded(io, &recorder, play, |address| {
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
    assert_eq!(said[0].source, 0, "it begins before there is a handler");
    assert!(said[0].length + 4_000 > call.sent_samples().len());
    for side in [call.heard_samples(), &right] {
        let played = exact_runs(&sound, side);
        let lengths: Vec<_> = played.iter().map(|run| run.length).collect();
        assert_eq!(lengths, [sound.len()]);
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_uuid_that_comes_again_gets_a_file_of_its_own(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let calls = recorded(io, &recorder, echo, |address| {
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

#[tokio::test]
async fn a_recording_is_called_as_the_program_says() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(directory.path()).unwrap();
    let mut server = Server::builder().bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    for name in ["ticket-7.wav", "ticket-7-2.wav"] {
        let placed = Caller::new(address)
            .say(Voice::Ramp(1))
            .hang_up_after(Duration::from_millis(200));
        let placed = tokio::task::spawn_blocking(move || placed.call());
        let call = server.accept().await.unwrap();
        let refused = recorder.record_as(&call.handle(), "../ticket");
        let told = refused.unwrap_err().to_string();
        assert!(
            told.contains("\"../ticket\"; give it a name without a slash"),
            "{told}"
        );
        let recording = recorder.record_as(&call.handle(), "ticket-7").unwrap();
        call.closed().await;
        placed.await.unwrap().unwrap();
        let files = recording.ended().await.files;
        assert_eq!(files, [directory.path().join(name)]);
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wideband_call_is_recorded_at_its_rate(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let [(call, recording)] = recorded(io, &recorder, echo, |address| {
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

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn finishing_makes_recordings_of_running_calls_whole(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let server = builder(io).bind("127.0.0.1:0").await.unwrap();
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

/// Records one call that speaks at once, by a server with these settings.
async fn recorded_from_the_beginning(settings: sidetone::ServerBuilder, lasting: Duration) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let (tell, mut recordings) = mpsc::channel(1);
    let server = settings.bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    let handler = move |call: Call| {
        tell.try_send(recorder.record(&call.handle()).unwrap())
            .unwrap();
        echo(call)
    };
    tokio::spawn(server.serve(handler));
    short_call(address, id(1), frames(10), lasting).await;
    let report = recordings.recv().await.unwrap().ended().await;
    assert_eq!((report.lost_frames, &report.failure), (0, &None));
    let (left, right, _) = sides(&report.files[0]);
    assert_eq!(exact_runs(&frames(10).concat(), &left)[0].length, 1_600);
    assert_eq!(left.iter().position(|sample| *sample != 0), Some(0));
    assert_eq!(left.len(), right.len());
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_came_with_the_uuid_is_recorded(io: IoBackend) {
    recorded_from_the_beginning(builder(io), millis(400)).await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_came_before_the_call_was_let_in_is_recorded(io: IoBackend) {
    let slow = || {
        builder(io).admit(|_| async {
            tokio::time::sleep(millis(500)).await;
            Admission::accept()
        })
    };
    recorded_from_the_beginning(slow(), millis(900)).await;
    // It was over by then.
    recorded_from_the_beginning(slow(), millis(100)).await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_that_was_over_before_anybody_took_it_has_its_file(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(directory.path()).unwrap();
    let mut server = builder(io).bind("127.0.0.1:0").await.unwrap();
    short_call(server.local_addr(), id(1), frames(10), Duration::ZERO).await;
    let stats = || server.handle().stats();
    until(|| stats().calls == 1 && stats().running == 0).await;
    let mut call = server.accept().await.unwrap();
    let recording = recorder.record(&call.handle()).unwrap();
    let report = recording.ended().await;
    let (left, _, _) = sides(&report.files[0]);
    assert_eq!(left[..1_600], frames(10).concat());
    // From here on it would be recorded from now on, and it is over.
    assert!(call.next().await.is_some());
    let late = recorder.record(&call.handle());
    assert!(matches!(late, Err(RecordError::CallOver)), "{late:?}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_records_after_reading_records_from_then_on(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(directory.path()).unwrap();
    let mut server = builder(io).bind("127.0.0.1:0").await.unwrap();
    let calling = short_call(server.local_addr(), id(1), frames(10), millis(600));
    let calling = tokio::spawn(calling);
    let mut call = server.accept().await.unwrap();
    let said = call.audio(millis(200)).await.unwrap();
    assert_eq!(said.samples().len(), 1_600);
    // Two slots later it is no longer there.
    let out = call.stats().counters.frames_out;
    until(|| call.stats().counters.frames_out > out).await;
    let recording = recorder.record(&call.handle()).unwrap();
    calling.await.unwrap();
    let report = recording.ended().await;
    let (left, _, _) = sides(&report.files[0]);
    assert!(left.iter().all(|sample| *sample == 0));
}

/// A recorded call in which the program reads along: every frame with when it came.
struct Followed {
    call: Call,
    frames: Vec<OwnedFrame>,
}

impl Followed {
    /// Reads on until so much has been heard.
    async fn read_for(&mut self, time: Duration) {
        let end = self.call.stats().duration + time;
        while self.call.stats().duration < end {
            if let Event::Audio(frame) = self.call.next().await.unwrap() {
                self.frames.push(frame.into_owned());
            }
        }
    }

    /// What came between these two moments.
    fn between(&self, from: Duration, to: Duration) -> Vec<&[i16]> {
        let came = |frame: &&OwnedFrame| (from..to).contains(&frame.arrived());
        let frames = self.frames.iter().filter(came);
        frames.map(OwnedFrame::samples).collect()
    }
}

/// Places a call that says the ramp of 6, and accepts it.
async fn followed(io: IoBackend) -> (Followed, impl Future<Output = ()>) {
    let mut server = builder(io)
        .receive_buffer(Duration::from_secs(60))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let stop = Stop::new().unwrap();
    let (caller, stopping) = (Caller::new(server.local_addr()), stop.clone());
    let caller = caller.say(Voice::Ramp(6));
    let calling = tokio::task::spawn_blocking(move || caller.call_until(&stopping).unwrap());
    let call = server.accept().await.unwrap();
    let followed = Followed {
        call,
        frames: Vec::new(),
    };
    let end = async move {
        stop.stop();
        calling.await.unwrap();
        drop(server);
    };
    (followed, end)
}

/// Whether the samples are in the file, all of them.
fn is_in(file: &[i16], samples: &[i16]) -> bool {
    file.windows(samples.len()).any(|part| part == samples)
}

/// Whether any two milliseconds of the samples are in the file.
fn is_partly_in(file: &[i16], samples: &[i16]) -> bool {
    let mut parts = samples.chunks_exact(16);
    parts.any(|part| is_in(file, part))
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_in_a_pause_is_silence_in_the_file(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(directory.path()).unwrap();
    let (mut followed, end) = followed(io).await;
    let recording = recorder.record(&followed.call.handle()).unwrap();
    let mut player = followed.call.player(8_000).unwrap();
    player.play(&[1_000; 8 * 4_000]).await.unwrap();
    followed.read_for(millis(600)).await;
    let now = |followed: &Followed| followed.call.stats().duration;
    let before_pause = now(&followed);
    recording.pause();
    recording.pause();
    let paused = now(&followed);
    assert!(recording.is_paused());
    followed.read_for(millis(700)).await;
    let resumed = now(&followed);
    recording.resume();
    recording.clone().resume();
    let after_resumption = now(&followed);
    assert!(!recording.is_paused());
    let length = recording.report().paused;
    assert!(length >= resumed - paused && length <= after_resumption - before_pause);
    followed.read_for(millis(600)).await;
    followed.call.hang_up();
    let report = recording.ended().await;
    end.await;

    assert_eq!((report.paused, report.failure), (length, None));
    let (left, right, _) = sides(&report.files[0]);
    let frame = millis(20);
    // A whole frame before the pause, also what the writer had not written yet.
    let before = followed.between(Duration::ZERO, before_pause - frame);
    let secret = followed.between(paused, resumed);
    let after = followed.between(after_resumption + 4 * frame, Duration::MAX);
    assert!(before.len() > 15 && secret.len() > 15 && after.len() > 10);
    assert!(before.iter().all(|samples| is_in(&left, samples)));
    for samples in secret {
        assert!(!is_partly_in(&left, samples));
    }
    assert!(after.iter().filter(|samples| is_in(&left, samples)).count() * 2 > after.len());
    // The time is in the file, on both sides.
    let longest = |samples: &[i16]| {
        let spoken = samples.split(|sample| *sample != 0);
        let longest = spoken.map(<[i16]>::len).max().unwrap();
        Rate::Slin.duration(longest as u64)
    };
    for side in [&left, &right] {
        let silence = longest(side);
        assert!(silence + millis(30) >= length, "{silence:?} of {length:?}");
    }
    let whole = Rate::Slin.duration(left.len() as u64);
    assert!(whole + millis(100) >= after_resumption, "{whole:?}");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_begins_and_stops_in_the_middle_of_a_call(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(directory.path()).unwrap();
    let (mut followed, end) = followed(io).await;
    let mut files = Vec::new();
    for _ in 0..2 {
        followed.read_for(millis(300)).await;
        let begun = followed.call.stats().duration;
        let recording = recorder.record(&followed.call.handle()).unwrap();
        followed.read_for(millis(600)).await;
        let stopping = followed.call.stats().duration;
        recording.stop();
        recording.stop();
        let stopped = followed.call.stats().duration;
        // The call goes on, and so does what is said in it.
        followed.read_for(millis(100)).await;
        let report = recording.ended().await;
        assert_eq!(report.failure, None);
        assert!(followed.call.handle().ended().is_none());
        files.push((begun, stopping, stopped, report));
    }
    let again = recorder.record(&followed.call.handle()).unwrap();
    again.stop();
    let third = recorder.record(&followed.call.handle()).unwrap();
    followed.read_for(millis(200)).await;
    followed.call.hang_up();
    assert!(third.ended().await.duration > millis(40));
    assert!(again.ended().await.duration < millis(40));
    end.await;
    for (begun, stopping, stopped, report) in files {
        let (left, right, _) = sides(&report.files[0]);
        assert_eq!(left.len(), right.len());
        assert!(
            report.duration <= stopped - begun + millis(40),
            "{report:?}"
        );
        let frame = millis(20);
        let outside = [
            followed.between(Duration::ZERO, begun),
            followed.between(stopped, Duration::MAX),
        ];
        for samples in outside.concat() {
            assert!(!is_partly_in(&left, samples));
        }
        // It is asked for, and a slot later it is there.
        let inside = followed.between(begun + 4 * frame, stopping);
        assert!(inside.len() > 15);
        let recorded = inside.iter().filter(|samples| is_in(&left, samples));
        assert!(recorded.count() * 2 > inside.len());
    }
}
