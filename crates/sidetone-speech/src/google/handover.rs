use std::time::Duration;

use super::reply::FinalResult;

/// Words within this time before the end of a stream may be cut. The next stream gets them whole.
const UNSAFE_TAIL: Duration = Duration::from_millis(500);
/// How much audio may be replayed, at twice its speed.
const MAX_REPLAY: Duration = Duration::from_secs(20);
/// How far back to look for a pause to split the streams in.
const LOOK_BACK: Duration = Duration::from_secs(3);

/// Keeps the words of a stream's last result that are whole, where the stream ends while somebody
/// speaks. The next stream starts where they end. `begin` is where this stream's other results
/// ended.
pub(super) fn whole_words(
    final_result: FinalResult,
    begin: Duration,
    sent: Duration,
) -> Option<FinalResult> {
    let safe = sent.saturating_sub(UNSAFE_TAIL);
    let FinalResult {
        mut transcript,
        until,
    } = final_result;
    if transcript.end <= safe {
        // The start of another word may have been taken for noise.
        let until = until.min(safe.max(transcript.end));
        return Some(FinalResult { transcript, until });
    }
    if transcript.words.is_empty() {
        // Nothing tells which part is whole. A late transcript is better than a torn word, within
        // limits.
        let too_long = sent.saturating_sub(begin) > MAX_REPLAY;
        return too_long.then_some(FinalResult { transcript, until });
    }
    let words = &transcript.words;
    let whole = words.partition_point(|it| it.end <= safe);
    let near = words.partition_point(|it| it.end + LOOK_BACK <= safe);
    // The times of words are coarse. In the middle of the widest pause that does no harm.
    let pauses = words
        .windows(2)
        .map(|it| (it[0].end, it[1].start.saturating_sub(it[0].end)));
    let parts = (1..).zip(pauses).take(whole).skip(near.saturating_sub(1));
    let (kept, (end, pause)) = parts.max_by_key(|(_, (_, pause))| *pause)?;
    let until = end + pause / 2;
    transcript.words.truncate(kept);
    transcript.text = text_up_to(&transcript.text, &transcript.words);
    transcript.end = transcript.words.last()?.end;
    Some(FinalResult { transcript, until })
}

/// The text up to the end of these words, as the service wrote it: not every language has spaces
/// between words.
fn text_up_to(text: &str, words: &[crate::Word]) -> String {
    let mut end = 0;
    for word in words {
        match text[end..].find(&word.text) {
            Some(at) => end += at + word.text.len(),
            None => {
                let words: Vec<&str> = words.iter().map(|it| it.text.as_str()).collect();
                return words.join(" ");
            }
        }
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Transcript, Word};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Words of 400 ms each, 100 ms apart.
    fn result(text: &str, words: &[&str]) -> FinalResult {
        let words: Vec<Word> = (0u64..)
            .zip(words)
            .map(|(n, text)| Word {
                text: (*text).into(),
                start: ms(500 * n),
                end: ms(500 * n + 400),
                confidence: None,
            })
            .collect();
        let end = words.last().map_or(ms(2000), |it| it.end);
        let mut transcript = Transcript::new(text, true, ms(0), end);
        transcript.words = words;
        FinalResult {
            transcript,
            until: ms(2000),
        }
    }

    #[test]
    fn the_last_words_are_left_to_the_next_stream() {
        let result = result("One, two three; four.", &["One,", "two", "three;", "four."]);
        let Some(kept) = whole_words(result, ms(0), ms(2000)) else {
            panic!("nothing kept")
        };
        assert_eq!(kept.transcript.text, "One, two three;");
        assert_eq!(kept.transcript.end, ms(1400));
        assert_eq!(kept.until, ms(1450), "between two words");
    }

    #[test]
    fn streams_are_split_in_the_widest_pause() {
        let mut result = result("One two three four", &["One", "two", "three", "four"]);
        result.transcript.words[1].end = ms(700);
        let kept = whole_words(result, ms(0), ms(2000));
        let kept = kept.map(|it| (it.transcript.text, it.until));
        assert_eq!(kept, Some(("One two".into(), ms(850))));
    }

    #[test]
    fn languages_without_spaces_get_none() {
        let kept = whole_words(result("東京都庁", &["東京", "都", "庁"]), ms(0), ms(1500));
        assert_eq!(kept.map(|it| it.transcript.text).as_deref(), Some("東京都"));
    }

    #[test]
    fn a_result_that_ended_earlier_is_kept_whole() {
        let kept = whole_words(result("One two", &["One", "two"]), ms(0), ms(5000));
        assert_eq!(
            kept.map(|it| it.transcript.text).as_deref(),
            Some("One two")
        );
    }

    #[test]
    fn a_single_word_at_the_end_is_left_whole() {
        assert!(whole_words(result("One", &["One"]), ms(0), ms(500)).is_none());
    }

    #[test]
    fn without_word_times_everything_is_replayed_within_limits() {
        assert!(whole_words(result("One two", &[]), ms(0), ms(2000)).is_none());
        let mut long = result("One two", &[]);
        long.transcript.end = MAX_REPLAY + ms(1);
        assert!(whole_words(long, ms(0), MAX_REPLAY + ms(1)).is_some());
    }
}
