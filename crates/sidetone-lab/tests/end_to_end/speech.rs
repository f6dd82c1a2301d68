//! A human voice, played by Asterisk into calls and written down by a real recognizer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use sidetone::{Call, Handler, Server};
use sidetone_caller::exact_runs;
use sidetone_lab::Recognizer;
use sidetone_lab::ami::Originate;
use sidetone_speech::SpeechEvent;
use sidetone_speech::vosk::Vosk;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::timeout;
use uuid::Uuid;

use crate::dictation::{Heard, dictate};
use crate::prompts::{Prompt, Prompts, dealt};
use crate::serve::Served;
use crate::transcript::{Written, write_down};
use crate::words::align;
use crate::{Lab, available, scenarios};

scenarios![a_thousand_words_of_calls_are_understood_as_well_as_the_files];

/// Words to be recognised, at least.
const WORDS: usize = 1_000;
/// What all the prompts take one after the other, so many calls do in little more than a minute. Their recognizers take three
/// quarters of a processor.
const CALLS: usize = 6;
/// Between two prompts, and after the last one.
const PAUSE: usize = 8_000;
/// No part of the prompts takes longer.
const LONGEST: Duration = Duration::from_secs(180);
/// How often prompts are played, at most, until they come through without a gap and their recognizer keeps up.
const ROUNDS: usize = 3;
/// Of the end of a file Asterisk makes something of its own: 4 ms at most.
const LAST: usize = 32;
/// Recognizers may say a little too early that a word begins.
const EARLY: f64 = 0.3;

async fn a_thousand_words_of_calls_are_understood_as_well_as_the_files(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let Some(recognizer) = available(Recognizer::start(CALLS).await)? else {
        return Ok(());
    };
    let prompts = tokio::task::spawn_blocking(|| Prompts::fetch(WORDS)).await??;
    let (address, phrases) = (recognizer.address(), &prompts.phrases);

    let began = Instant::now();
    let parts = dealt(&prompts.longest, CALLS);
    let dictated = parts.iter().map(|part| dictate_all(address, phrases, part));
    let direct: HashMap<&Path, Vec<Heard>> = try_join_all(dictated)
        .await?
        .into_iter()
        .flatten()
        .collect();
    eprintln!("    the files took {:.1?}", began.elapsed());

    let mut totals = Totals::default();
    let mut left: Vec<&Prompt> = prompts.longest.iter().collect();
    for round in 1..=ROUNDS {
        let began = Instant::now();
        let parts = dealt(left.drain(..), CALLS);
        let calls = call_all(&lab, &parts, address, phrases).await?;
        for (part, report) in parts.iter().zip(&calls) {
            left.extend(totals.add(part, report, &direct)?);
        }
        eprintln!(
            "    calls, round {round}, took {:.1?}; {} prompts to be played again",
            began.elapsed(),
            left.len()
        );
        if left.is_empty() {
            break;
        }
    }
    totals.judge()
}

/// What a recognizer understands of each file, with times that count from its beginning.
async fn dictate_all<'a>(
    recognizer: SocketAddr,
    phrases: &[String],
    part: &[&'a Prompt],
) -> anyhow::Result<Vec<(&'a Path, Vec<Heard>)>> {
    let mut sound = vec![0; PAUSE];
    let mut places = Vec::new();
    for prompt in part {
        places.push(sound.len() as f64 / 8e3);
        sound.extend(&prompt.samples);
        sound.extend([0; PAUSE]);
    }
    let words = dictate(recognizer, phrases, &sound).await?;
    let words = by_prompt(words, &places).into_iter().zip(&places);
    let words = words.map(|(words, place)| {
        let moved = words.into_iter().map(|word| Heard {
            start: word.start - place,
            end: word.end - place,
            ..word
        });
        moved.collect()
    });
    Ok(part
        .iter()
        .map(|prompt| prompt.path.as_path())
        .zip(words)
        .collect())
}

/// To which of the prompts that begin at these places each word belongs.
fn by_prompt(words: Vec<Heard>, places: &[f64]) -> Vec<Vec<Heard>> {
    let mut parts: Vec<Vec<Heard>> = places.iter().map(|_| Vec::new()).collect();
    for word in words {
        let next = places.partition_point(|place| place - EARLY <= word.start);
        parts[next.max(1) - 1].push(word);
    }
    parts
}

/// What a handler learned of its call.
struct Report {
    id: Uuid,
    samples: Vec<i16>,
    /// Of each frame: its first sample's place in `samples` and on the call's clock, and when it came.
    frames: Vec<(usize, Duration, Instant)>,
    written: Written,
}

/// Has Asterisk play each part into a call of its own, all at once.
async fn call_all(
    lab: &Lab,
    parts: &[Vec<&Prompt>],
    recognizer: SocketAddr,
    phrases: &[String],
) -> anyhow::Result<Vec<Report>> {
    // A short path: all of a call's files are named in one line.
    let folder = tempfile::tempdir()?;
    let pause = folder.path().join("_.sln");
    std::fs::write(&pause, vec![0; 2 * PAUSE])?;
    let (tell, mut reports) = mpsc::unbounded_channel();
    let server = Served::start(
        Server::builder(),
        listen(recognizer, phrases.to_vec(), tell),
    )
    .await?;
    let mut ids = Vec::new();
    let mut number = 0;
    for part in parts {
        // Silence before the first one, too: that it comes late is known only after its first frame.
        let mut files = Vec::new();
        for prompt in part {
            files.push(pause.with_extension("").display().to_string());
            let name = folder.path().join(number.to_string());
            std::os::unix::fs::symlink(&prompt.path, name.with_extension("wav"))?;
            files.push(name.display().to_string());
            number += 1;
        }
        let id = Uuid::new_v4();
        let call = Originate::exten("Local/app@target/n", "caller", "prompts")
            .variable("__U", &id.to_string())
            .variable("__D", &server.address.to_string())
            .variable("__T", &id.to_string())
            .variable("__W", &files.join("&"))
            .variable("__S", "1");
        lab.ami.originate(&call).await?;
        ids.push(id);
    }
    let mut by_id = HashMap::new();
    for _ in parts {
        let report: Report = timeout(LONGEST, reports.recv())
            .await
            .context("a call does not end")?
            .context("the server is gone")?;
        by_id.insert(report.id, report);
    }
    let reports = ids.iter().map(|id| by_id.remove(id));
    reports
        .collect::<Option<_>>()
        .context("a call without a report")
}

fn listen(
    recognizer: SocketAddr,
    phrases: Vec<String>,
    tell: UnboundedSender<Report>,
) -> impl Handler {
    move |mut call: Call| {
        let (phrases, tell) = (phrases.clone(), tell.clone());
        async move {
            let vosk = Vosk::new(&format!("ws://{recognizer}"))?.phrases(phrases);
            let (id, mut samples, mut frames) = (call.id(), Vec::new(), Vec::new());
            let written = write_down(&mut call, vosk, |frame| {
                frames.push((samples.len(), frame.offset(), Instant::now()));
                samples.extend_from_slice(frame.samples());
            })
            .await;
            let report = Report {
                id,
                samples,
                frames,
                written,
            };
            // The scenario may have failed already.
            let _ = tell.send(report);
            anyhow::Ok(())
        }
    }
}

impl Report {
    /// The words of all final transcripts; none if the recognizer did not keep up.
    fn words(&self) -> anyhow::Result<Option<Vec<Heard>>> {
        let mut words = Vec::new();
        for (_, event) in &self.written.events {
            match event {
                SpeechEvent::Transcript(transcript) if transcript.is_final => {
                    words.extend(transcript.words.iter().map(|word| Heard {
                        text: word.text.clone(),
                        start: word.start.as_secs_f64(),
                        end: word.end.as_secs_f64(),
                    }));
                }
                SpeechEvent::Transcript(_) => {}
                SpeechEvent::Retrying { error, .. } => {
                    eprintln!("    {error}");
                    return Ok(None);
                }
                other => anyhow::bail!("{other:?}"),
            }
        }
        Ok(Some(words))
    }

    /// The place in `samples` of the prompt's first sample.
    fn find(&self, prompt: &Prompt) -> anyhow::Result<usize> {
        let runs = exact_runs(&prompt.samples, &self.samples);
        let longest = runs.iter().max_by_key(|run| run.length);
        let run = longest.with_context(|| format!("{:?} did not come through", prompt.path))?;
        Ok(run.heard.saturating_sub(run.source))
    }

    /// Whether the prompt that begins there came through as it is in its file, and without a gap.
    fn is_whole(&self, prompt: &Prompt, first: usize) -> bool {
        let length = prompt.samples.len() - LAST;
        let end = first + length;
        let place = |sample| Duration::from_secs_f64(self.came(sample).0);
        let before = place(first).saturating_sub(Duration::from_secs_f64(EARLY));
        self.samples.get(first..end) == Some(&prompt.samples[..length])
            && !self.written.gaps.silence(before, place(end - 1))
    }

    /// Where on the call's clock a sample is, in seconds, and when it came.
    fn came(&self, sample: usize) -> (f64, Instant) {
        let next = self.frames.partition_point(|(from, ..)| *from <= sample);
        let (from, offset, at) = self.frames[next.max(1) - 1];
        (offset.as_secs_f64() + (sample - from) as f64 / 8e3, at)
    }

    /// For each final transcript: how long after the end of its last word was heard, it was there.
    fn delays(&self) -> impl Iterator<Item = f64> {
        self.written.events.iter().filter_map(|(at, event)| {
            let SpeechEvent::Transcript(transcript) = event else {
                return None;
            };
            let last = transcript.words.last().filter(|_| transcript.is_final)?;
            let next = self
                .frames
                .partition_point(|(_, offset, _)| *offset <= last.end);
            let (.., heard) = self.frames[next.max(1) - 1];
            Some((*at - heard).as_secs_f64() * 1e3)
        })
    }

    fn has_interim_between(&self, began: Instant, ended: Instant) -> bool {
        self.written.events.iter().any(|(at, event)| {
            let interim = matches!(event, SpeechEvent::Transcript(it) if !it.is_final);
            interim && began < *at && *at < ended
        })
    }
}

/// Of those prompts that came through whole.
#[derive(Default)]
struct Totals {
    reference: usize,
    wrong_in_files: usize,
    wrong_in_calls: usize,
    prompts: usize,
    with_interim: usize,
    /// Prompts of which exactly the same was understood.
    the_same: usize,
    /// How far the times of the words that both heard are apart, in milliseconds.
    apart: Vec<f64>,
    words_in_files: usize,
    /// From the end of speech to the final transcript, in milliseconds.
    delays: Vec<f64>,
}

impl Totals {
    /// Adds a call, and answers what did not come through it whole.
    fn add<'a>(
        &mut self,
        part: &[&'a Prompt],
        report: &Report,
        direct: &HashMap<&Path, Vec<Heard>>,
    ) -> anyhow::Result<Vec<&'a Prompt>> {
        let Some(called) = report.words()? else {
            return Ok(part.to_vec());
        };
        let firsts: Vec<usize> = part
            .iter()
            .map(|prompt| report.find(prompt))
            .collect::<anyhow::Result<_>>()?;
        let places: Vec<f64> = firsts.iter().map(|first| report.came(*first).0).collect();
        let called = by_prompt(called, &places);
        self.delays.extend(report.delays());
        let mut broken = Vec::new();
        for ((prompt, first), called) in part.iter().zip(firsts).zip(called) {
            if !report.is_whole(prompt, first) {
                broken.push(*prompt);
                continue;
            }
            let direct = &direct[prompt.path.as_path()];
            self.reference += prompt.words.len();
            self.wrong_in_files += align(&prompt.words, direct).edits;
            self.wrong_in_calls += align(&prompt.words, &called).edits;
            self.words_in_files += direct.len();
            self.prompts += 1;
            let (_, began) = report.came(first);
            let (_, ended) = report.came(first + prompt.samples.len());
            self.with_interim += usize::from(report.has_interim_between(began, ended));
            let alignment = align(direct, &called);
            self.the_same += usize::from(alignment.edits == 0);
            for (file, call) in alignment.same {
                let (file, call) = (&direct[file], &called[call]);
                // Where the call's clock has the sample that the file has there.
                let expected = |seconds: f64| {
                    let sample = first as f64 + seconds * 8e3;
                    report.came(sample.max(0.0) as usize).0
                };
                for (file, call) in [(file.start, call.start), (file.end, call.end)] {
                    self.apart.push((call - expected(file)).abs() * 1e3);
                }
            }
        }
        Ok(broken)
    }

    fn judge(mut self) -> anyhow::Result<()> {
        let rate = |wrong: usize| 100.0 * wrong as f64 / self.reference as f64;
        let (files, calls) = (rate(self.wrong_in_files), rate(self.wrong_in_calls));
        eprintln!(
            "    {} words: {files:.1} % wrong from the files, {calls:.1} % through calls",
            self.reference
        );
        eprintln!(
            "    of {} prompts out of {} exactly the same was understood",
            self.the_same, self.prompts
        );
        eprintln!(
            "    {} of {} prompts had an interim transcript while they played",
            self.with_interim, self.prompts
        );
        self.delays.sort_by(f64::total_cmp);
        let delay = |hundredths: usize| self.delays[(self.delays.len() - 1) * hundredths / 100];
        eprintln!(
            "    from the end of speech to its final transcript: {:.0} ms in the median, {:.0} ms for 95 %",
            delay(50),
            delay(95)
        );
        self.apart.sort_by(f64::total_cmp);
        let compared = self.apart.len() / 2;
        let at = |thousandths: usize| self.apart[(self.apart.len() - 1) * thousandths / 1000];
        let within = self.apart.partition_point(|apart| *apart <= 150.0);
        eprintln!(
            "    times of {compared} words out of {} compared: half are within {:.0} ms, 95 % within {:.0}, 99 % within {:.0}, all within {:.0}; {:.1} % of the times within 150",
            self.words_in_files,
            at(500),
            at(950),
            at(990),
            at(1000),
            100.0 * within as f64 / self.apart.len() as f64
        );
        ensure!(
            self.reference >= WORDS,
            "only {} words came through without a gap: this machine stands still too often",
            self.reference
        );
        // Otherwise the recognizer itself is out of order, and nothing is compared.
        ensure!(files < 40.0, "of the files {files:.1} % is wrong");
        ensure!(
            calls <= files + 2.0,
            "{calls:.1} % is wrong, {files:.1} % from the files"
        );
        ensure!(
            self.with_interim == self.prompts,
            "{} prompts were over before the first interim transcript",
            self.prompts - self.with_interim
        );
        ensure!(
            compared >= self.words_in_files * 9 / 10,
            "only {compared} words are the same"
        );
        ensure!(
            within == self.apart.len(),
            "{} times are more than 150 ms apart",
            self.apart.len() - within
        );
        Ok(())
    }
}
