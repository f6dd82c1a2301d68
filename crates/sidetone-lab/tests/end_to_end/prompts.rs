//! Asterisk's English prompts, a human voice, with what is said in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use sidetone_audio::sound::Sound;
use sidetone_lab::fetch;

/// A prompt.
pub(crate) struct Prompt {
    pub(crate) path: PathBuf,
    pub(crate) words: Vec<String>,
    /// Of 8 kHz.
    pub(crate) samples: Vec<i16>,
}

/// What is said in all prompts, and the sounds of those that say the most.
pub(crate) struct Prompts {
    /// Lower case words with a space between them.
    pub(crate) phrases: Vec<String>,
    pub(crate) longest: Vec<Prompt>,
}

impl Prompts {
    /// Fetches the prompts and their list; of sounds, as many as it takes for `words` words.
    pub(crate) fn fetch(words: usize) -> anyhow::Result<Self> {
        let list = fetch::package("asterisk-core-sounds-en")?
            .join("usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz");
        let sounds = fetch::package("asterisk-core-sounds-en-wav")?
            .join("usr/share/asterisk/sounds/en_US_f_Allison");
        let listed = listed(&unzipped(&list)?);
        let phrases = listed.values().map(|words| words.join(" ")).collect();
        let mut by_length: Vec<_> = listed.into_iter().collect();
        by_length.sort_by_key(|(name, words)| (usize::MAX - words.len(), name.clone()));
        let (mut longest, mut counted) = (Vec::new(), 0);
        for (name, said) in by_length {
            let path = sounds.join(name + ".wav");
            if counted < words && path.exists() {
                counted += said.len();
                longest.push(Prompt {
                    samples: Sound::open(&path)?.to_rate(8_000)?.samples,
                    path,
                    words: said,
                });
            }
        }
        ensure!(counted >= words, "the prompts have {counted} words");
        Ok(Self { phrases, longest })
    }
}

/// As many parts as are asked for, about equally long, or fewer if there are fewer prompts.
pub(crate) fn dealt<'a>(
    prompts: impl IntoIterator<Item = &'a Prompt>,
    parts: usize,
) -> Vec<Vec<&'a Prompt>> {
    let mut dealt: Vec<Vec<&Prompt>> = (0..parts).map(|_| Vec::new()).collect();
    for prompt in prompts {
        let length = |part: &Vec<&Prompt>| part.iter().map(|it| it.samples.len()).sum::<usize>();
        if let Some(shortest) = dealt.iter_mut().min_by_key(|part| length(part)) {
            shortest.push(prompt);
        }
    }
    dealt.retain(|part| !part.is_empty());
    dealt
}

/// Lines of the form `name: What is said.`
fn listed(list: &str) -> BTreeMap<String, Vec<String>> {
    list.lines()
        .filter(|line| !line.starts_with(';'))
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(name, text)| Some((name.to_owned(), spoken(text)?)))
        .collect()
}

/// The words as they are spoken, if that is plain: no noises, no long numbers, no addresses.
fn spoken(text: &str) -> Option<Vec<String>> {
    const DIGITS: [&str; 10] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];
    let (mut plain, mut previous) = (String::new(), ' ');
    for symbol in text.chars() {
        let after_digit = previous.is_ascii_digit();
        match symbol {
            '0'..='9' if after_digit || previous == '.' => return None,
            '0'..='9' => plain += &format!(" {} ", DIGITS[symbol as usize - '0' as usize]),
            '[' | ']' | '(' | ')' | '<' | '>' | '@' => return None,
            'a'..='z' if previous == '.' => return None,
            'a'..='z' | 'A'..='Z' | '\'' => plain.push(symbol.to_ascii_lowercase()),
            '#' => plain += " pound ",
            '*' => plain += " star ",
            _ => plain.push(' '),
        }
        previous = symbol;
    }
    let words = plain.split(' ').map(|word| word.trim_matches('\''));
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    (!words.is_empty()).then_some(words)
}

fn unzipped(path: &Path) -> anyhow::Result<String> {
    let output = Command::new("gzip").arg("-dc").arg(path).output()?;
    ensure!(output.status.success(), "gzip: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
