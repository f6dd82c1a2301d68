use std::time::Duration;

use googleapis_tonic_google_cloud_speech_v2::google::cloud::speech::v2::{
    StreamingRecognitionResult, StreamingRecognizeResponse, WordInfo,
};

use crate::{Audio, Transcript, Word};

/// What one reply says: at most one final transcript, and one that is not.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) settled: Option<Settled>,
    pub(super) interim: Option<Transcript>,
}

/// A final transcript, and up to where there is nothing else.
pub(super) struct Settled {
    pub(super) transcript: Transcript,
    pub(super) until: Duration,
}

/// Puts a reply on the call's clock. `begin` is where the last final result ended.
pub(super) fn read(reply: StreamingRecognizeResponse, audio: &Audio, mut begin: Duration) -> Heard {
    let mut heard = Heard::default();
    for result in reply.results {
        let is_final = result.is_final;
        let (transcript, until) = on_call(result, audio, begin);
        begin = until;
        if is_final {
            heard.settled = Some(Settled { transcript, until });
        } else if let Some(before) = &mut heard.interim {
            // The surer and the less sure half of the same speech.
            before.text.push_str(&transcript.text);
            before.words.extend(transcript.words);
            before.end = transcript.end;
            before.stability = min(before.stability, transcript.stability);
        } else {
            heard.interim = Some(transcript);
        }
    }
    for transcript in heard
        .interim
        .iter_mut()
        .chain(heard.settled.as_mut().map(|it| &mut it.transcript))
    {
        transcript.text = transcript.text.trim().into();
    }
    heard.interim = heard.interim.filter(|it| !it.text.is_empty());
    heard
}

fn on_call(
    result: StreamingRecognitionResult,
    audio: &Audio,
    begin: Duration,
) -> (Transcript, Duration) {
    let place = |offset| audio.on_call(Duration::try_from(offset).unwrap_or_default());
    let until = result.result_end_offset.map_or(begin, place).max(begin);
    let best = result.alternatives.into_iter().next().unwrap_or_default();
    // A word without times says nothing that the text does not.
    let timed = best.words.iter().all(|it| it.end_offset.is_some());
    let word = |word: WordInfo| Word {
        start: place(word.start_offset.unwrap_or_default()),
        end: place(word.end_offset.unwrap_or_default()),
        text: word.word,
        confidence: known(word.confidence),
    };
    let words: Vec<Word> = match timed {
        true => best.words.into_iter().map(word).collect(),
        false => Vec::new(),
    };
    let transcript = Transcript {
        text: best.transcript,
        is_final: result.is_final,
        start: words.first().map_or(begin, |it| it.start),
        end: words.last().map_or(until, |it| it.end),
        confidence: known(best.confidence),
        words,
        language: (!result.language_code.is_empty()).then_some(result.language_code),
        stability: known(result.stability),
    };
    (transcript, until)
}

/// The service says 0 where it says nothing.
fn known(value: f32) -> Option<f32> {
    (value > 0.0).then_some(value)
}

fn min(one: Option<f32>, other: Option<f32>) -> Option<f32> {
    one.zip(other).map(|(one, other)| one.min(other))
}
