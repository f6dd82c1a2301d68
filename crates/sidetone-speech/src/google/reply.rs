use std::time::Duration;

use googleapis_tonic_google_cloud_speech_v2::google::cloud::speech::v2::{
    StreamingRecognitionResult, StreamingRecognizeResponse, WordInfo,
};

use crate::{Audio, Transcript, Word};

/// The results of one reply: at most one final transcript and one interim transcript.
#[derive(Default)]
pub(super) struct Results {
    pub(super) final_result: Option<FinalResult>,
    pub(super) interim: Option<Transcript>,
}

/// A final transcript, and the time up to which the service found nothing else.
pub(super) struct FinalResult {
    pub(super) transcript: Transcript,
    pub(super) until: Duration,
}

/// Puts a reply's results on the call's clock. `begin` is where the last final result ended.
pub(super) fn read(
    reply: StreamingRecognizeResponse,
    audio: &Audio,
    mut begin: Duration,
) -> Results {
    let mut results = Results::default();
    for result in reply.results {
        let is_final = result.is_final;
        let (transcript, until) = call_time(result, audio, begin);
        begin = until;
        if is_final {
            results.final_result = Some(FinalResult { transcript, until });
        } else if let Some(before) = &mut results.interim {
            // The service splits interim speech into a stable and an unstable part.
            before.text.push_str(&transcript.text);
            before.words.extend(transcript.words);
            before.end = transcript.end;
            before.stability = min(before.stability, transcript.stability);
        } else {
            results.interim = Some(transcript);
        }
    }
    for transcript in results
        .interim
        .iter_mut()
        .chain(results.final_result.as_mut().map(|it| &mut it.transcript))
    {
        transcript.text = transcript.text.trim().into();
    }
    results.interim = results.interim.filter(|it| !it.text.is_empty());
    results
}

fn call_time(
    result: StreamingRecognitionResult,
    audio: &Audio,
    begin: Duration,
) -> (Transcript, Duration) {
    let place = |offset| audio.call_time(Duration::try_from(offset).unwrap_or_default());
    let until = result.result_end_offset.map_or(begin, place).max(begin);
    let best = result.alternatives.into_iter().next().unwrap_or_default();
    // A word without a time adds nothing to the text.
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

/// The service sends 0 for a value it does not know.
fn known(value: f32) -> Option<f32> {
    (value > 0.0).then_some(value)
}

fn min(one: Option<f32>, other: Option<f32>) -> Option<f32> {
    one.zip(other).map(|(one, other)| one.min(other))
}
