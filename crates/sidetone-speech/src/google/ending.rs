use std::time::Duration;

use super::reply::Settled;

/// What is said within this time before the end of a stream may be cut: the next one hears it whole.
const CUT: Duration = Duration::from_millis(500);
/// So much audio can be heard again. It comes back at twice its speed.
const AGAIN: Duration = Duration::from_secs(20);
/// So far back it is looked for a pause to part the streams in.
const LOOK_BACK: Duration = Duration::from_secs(3);

/// Of the last words on a stream that ends while somebody speaks, those that are whole. The rest is for the
/// next stream, which is to begin where these end. `begin` is where this one's other results ended.
pub(super) fn whole(settled: Settled, begin: Duration, sent: Duration) -> Option<Settled> {
    let safe = sent.saturating_sub(CUT);
    let Settled {
        mut transcript,
        until,
    } = settled;
    if transcript.end <= safe {
        // The beginning of another word may have been taken for noise.
        let until = until.min(safe.max(transcript.end));
        return Some(Settled { transcript, until });
    }
    if transcript.words.is_empty() {
        // No telling which part is whole. Better late than half, unless that is too much.
        let too_long = sent.saturating_sub(begin) > AGAIN;
        return too_long.then_some(Settled { transcript, until });
    }
    let words = &transcript.words;
    let whole = words.partition_point(|it| it.end <= safe);
    let near = words.partition_point(|it| it.end + LOOK_BACK <= safe);
    // The times of words are coarse: in the middle of the widest pause they do no harm.
    let pauses = words
        .windows(2)
        .map(|it| (it[0].end, it[1].start.saturating_sub(it[0].end)));
    let parts = (1..).zip(pauses).take(whole).skip(near.saturating_sub(1));
    let (kept, (end, pause)) = parts.max_by_key(|(_, (_, pause))| *pause)?;
    let until = end + pause / 2;
    transcript.words.truncate(kept);
    transcript.text = before(&transcript.text, &transcript.words);
    transcript.end = transcript.words.last()?.end;
    Some(Settled { transcript, until })
}

/// The text as far as these words go, as it was written: not every language has spaces between them.
fn before(text: &str, words: &[crate::Word]) -> String {
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
    fn said(text: &str, words: &[&str]) -> Settled {
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
        Settled {
            transcript,
            until: ms(2000),
        }
    }

    #[test]
    fn words_at_the_very_end_are_left_to_the_next_stream() {
        let said = said("One, two three; four.", &["One,", "two", "three;", "four."]);
        let Some(kept) = whole(said, ms(0), ms(2000)) else {
            panic!("nothing kept")
        };
        assert_eq!(kept.transcript.text, "One, two three;");
        assert_eq!(kept.transcript.end, ms(1400));
        assert_eq!(kept.until, ms(1450), "between two words");
    }

    #[test]
    fn streams_part_in_the_widest_pause() {
        let mut said = said("One two three four", &["One", "two", "three", "four"]);
        said.transcript.words[1].end = ms(700);
        let kept = whole(said, ms(0), ms(2000));
        let kept = kept.map(|it| (it.transcript.text, it.until));
        assert_eq!(kept, Some(("One two".into(), ms(850))));
    }

    #[test]
    fn languages_without_spaces_keep_none() {
        let kept = whole(said("東京都庁", &["東京", "都", "庁"]), ms(0), ms(1500));
        assert_eq!(kept.map(|it| it.transcript.text).as_deref(), Some("東京都"));
    }

    #[test]
    fn what_ended_before_is_kept_as_it_is() {
        let kept = whole(said("One two", &["One", "two"]), ms(0), ms(5000));
        assert_eq!(
            kept.map(|it| it.transcript.text).as_deref(),
            Some("One two")
        );
    }

    #[test]
    fn a_single_word_at_the_end_is_left_whole() {
        assert!(whole(said("One", &["One"]), ms(0), ms(500)).is_none());
    }

    #[test]
    fn without_times_of_words_all_is_heard_again_if_that_is_not_too_much() {
        assert!(whole(said("One two", &[]), ms(0), ms(2000)).is_none());
        let mut long = said("One two", &[]);
        long.transcript.end = AGAIN + ms(1);
        assert!(whole(long, ms(0), AGAIN + ms(1)).is_some());
    }
}
