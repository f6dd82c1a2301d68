//! Events as sentences, for people.

use std::{path::PathBuf, time::Duration};

use uuid::Uuid;

use crate::{
    events::{CallEnded, Event, Placed},
    transcribe::tally::Transcribed,
};

/// The lines for one event, without the time.
pub(crate) fn lines(event: &Event) -> Vec<String> {
    if let Event::Listening { address, dialplan } = event {
        return listening(&address.to_string(), dialplan);
    }
    if matches!(event, Event::Stopped) {
        return Vec::new(); // The shell's prompt says it.
    }
    let text = sentence(event);
    vec![match event.call() {
        Some(id) => format!("{}  {text}", short(id)),
        None => text,
    }]
}

fn listening(address: &str, dialplan: &[String]) -> Vec<String> {
    let mut lines = vec![
        format!("listening on {address}; for the dialplan (extensions.conf):"),
        String::new(),
    ];
    lines.extend(dialplan.iter().map(|line| format!("    {line}")));
    lines.push(String::new());
    lines
}

fn sentence(event: &Event) -> String {
    match event {
        Event::Listening { address, .. } => format!("listening on {address}"),
        Event::Allowed { name, addresses } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!(
                "{name} may connect from {}; start again if its address changes",
                addresses.join(" and ")
            )
        }
        Event::Destination { destination, .. } => {
            format!("what callers say goes to {destination}")
        }
        Event::CallStarted { peer, .. } => format!("call from {peer}"),
        Event::Dtmf { digit, .. } => format!("pressed {digit}"),
        Event::Codec { text, .. } | Event::Trouble { text, .. } => text.clone(),
        Event::Lagged { frames, .. } => format!("{frames} frames were not handled in time"),
        Event::Counted {
            of: "dtmf", count, ..
        } => format!("pressed {count} more keys"),
        Event::Counted {
            of: "rejected",
            count,
            ..
        } => format!("{count} more calls were rejected"),
        Event::Counted { of, count, .. } => format!("{count} more times {of}"),
        Event::EventsDropped { events } => {
            format!(
                "{events} events are missing here: what they are written to was not read in time"
            )
        }
        Event::Recorded {
            files,
            failure: None,
            lost_frames,
            surplus_ms,
            ..
        } => {
            let mut text = format!("recorded in {}", list(files));
            if *lost_frames > 0 {
                text.push_str(&format!("; the disk was too slow for {lost_frames} frames"));
            }
            if *surplus_ms > 0 {
                let seconds = *surplus_ms as f64 / 1000.0;
                text.push_str(&format!(
                    "; {seconds:.1} s came too fast for their place in it"
                ));
            }
            text
        }
        Event::Recorded {
            files,
            failure: Some(failure),
            ..
        } if files.is_empty() => format!("not recorded: {failure}"),
        Event::Recorded {
            failure: Some(failure),
            ..
        } => format!("recorded in part: {failure}"),
        Event::Transcript(line) => format!("{}: {}", line.side.name(), line.text),
        Event::RecognizerAway { side, text, .. } => format!(
            "{}: {text}; it is tried again, and told when it is back",
            side.name()
        ),
        Event::RecognizerBack { side, .. } => format!("{}: transcribed again", side.name()),
        Event::RecognizerRefused { side, text, .. } => {
            format!("{}: not transcribed any more: {text}", side.name())
        }
        Event::NotTranscribed {
            side,
            from_ms,
            to_ms,
            ..
        } => format!(
            "{}: not transcribed from {} to {}",
            side.name(),
            clock(Duration::from_millis(*from_ms)),
            clock(Duration::from_millis(*to_ms))
        ),
        Event::HangingUp { text, .. } => format!("hanging up: {text}"),
        Event::Transcribed(call) => transcribed(call),
        Event::CallEnded(call) => ended(call),
        Event::Rejected { peer, text, .. } => format!("call from {peer} {text}"),
        Event::Notice { text } => (*text).into(),
        Event::CallPlaced { id, address } => format!("calls {address}, UUID {id}"),
        Event::AudioHeard { after_ms, .. } => format!("hears something after {after_ms} ms"),
        Event::DigitSent { digit, .. } => format!("presses {digit}"),
        Event::CallFinished(call) => finished(call),
        Event::ShuttingDown { running: 0, .. } => "shutting down".into(),
        Event::ShuttingDown { running, grace_ms } => format!(
            "shutting down: {running} {} up to {} s more; Ctrl-C again ends at once",
            if *running == 1 {
                "call has"
            } else {
                "calls have"
            },
            grace_ms / 1000
        ),
        Event::Stopped => String::new(),
    }
}

fn ended(call: &CallEnded) -> String {
    let mut text = format!(
        "over after {}, {}; {} in, {} out, {:.1} ms late",
        clock(Duration::from_millis(call.duration_ms)),
        call.text,
        call.frames_in,
        call.frames_out,
        call.worst_lateness_ms
    );
    for (count, one, many) in [
        (call.gaps, "gap", "gaps"),
        (call.slips, "slip", "slips"),
        (call.underruns, "underrun", "underruns"),
        (call.lagged, "frame lagged", "frames lagged"),
    ] {
        match count {
            0 => {}
            1 => text.push_str(&format!(", 1 {one}")),
            _ => text.push_str(&format!(", {count} {many}")),
        }
    }
    text
}

fn transcribed(call: &Transcribed) -> String {
    let words = match call.words {
        1 => "1 word".to_owned(),
        words => format!("{words} words"),
    };
    let mut text = format!(
        "transcribed {}, {words}",
        clock(Duration::from_millis(call.duration_ms))
    );
    if let Some(delay) = call.delay_ms {
        text.push_str(&format!(", {delay} ms after they were said"));
    }
    if call.lost_ms > 0 {
        let lost = call.lost_ms as f64 / 1000.0;
        text.push_str(&format!("; {lost:.1} s are missing"));
    }
    match (&call.failure, call.files.is_empty()) {
        (Some(failure), _) => text.push_str(&format!("; written in part: {failure}")),
        (None, false) => text.push_str(&format!("; in {}", list(&call.files))),
        (None, true) => {}
    }
    text
}

fn finished(call: &Placed) -> String {
    format!(
        "over after {}: {}; {} frames said, {} heard, the loudest {} dBFS, at most {:.1} ms apart",
        clock(Duration::from_millis(call.duration_ms)),
        call.reason,
        call.frames_sent,
        call.frames_heard,
        call.loudest_dbfs,
        call.longest_gap_ms
    )
}

fn list(files: &[PathBuf]) -> String {
    // Their directory is the one that was given.
    let names = files.iter().filter_map(|file| file.file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
    names.join(", ")
}

/// Enough of a UUID to tell calls apart.
pub(crate) fn short(id: Uuid) -> String {
    let mut text = id.to_string();
    text.truncate(8);
    text
}

/// `0:05`, `12:34`, `1:02:03`.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_has_hours_only_when_there_are_some() {
        assert_eq!(clock(Duration::from_millis(5_900)), "0:05");
        assert_eq!(clock(Duration::from_secs(754)), "12:34");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn a_recording_that_failed_is_not_told_as_whole() {
        let told = |failure: Option<&str>| {
            let event = Event::Recorded {
                id: Uuid::nil(),
                files: vec!["dir/call.wav".into()],
                duration_ms: 1000,
                lost_frames: 0,
                surplus_ms: 0,
                failure: failure.map(Into::into),
            };
            lines(&event).join("\n")
        };
        assert_eq!(told(None), "00000000  recorded in call.wav");
        assert!(told(Some("the disk is full")).contains("in part: the disk is full"));
    }
}
