//! The running calls at the bottom of a terminal.

use std::{
    fmt::{self, Debug, Write},
    io,
    time::Duration,
};

use sidetone_audio::level::FLOOR_DBFS;

use super::captions::CaptionLine;
use crate::{format, sanitize::sanitize};

/// Columns and lines of a terminal that does not tell its size.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// The level at which the meter is empty, in dBFS. Speech is about 20 dB above it.
const METER_FLOOR: f32 = -48.0;
const METER_CELLS: usize = 12;

/// The calls that the table shows.
pub(crate) trait RunningCalls: Debug + Send + Sync {
    /// What to show of each call, oldest first, with captions that fit into `columns`.
    fn rows(&self, columns: usize) -> Vec<CallRow>;
}

/// What is shown of a call.
#[derive(Debug)]
pub(crate) struct CallRow {
    pub(crate) id: String,
    pub(crate) peer: String,
    pub(crate) duration: Duration,
    /// The caller's level, in dBFS.
    pub(crate) level: f32,
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) worst_lateness: Duration,
    /// What was said.
    pub(crate) captions: Vec<CaptionLine>,
}

/// Draws calls in place: each drawing replaces the one before.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The width in columns of each line on the screen.
    drawn: Vec<usize>,
}

impl Table {
    /// What to write so that `text` scrolls by above the calls.
    pub(crate) fn redraw(&mut self, text: &str, calls: &dyn RunningCalls) -> String {
        let (width, height) = terminal_size();
        let calls = calls.rows(width.saturating_sub(1));
        self.paint(text, &render(&calls, width, height))
    }

    fn paint(&mut self, text: &str, lines: &[Line]) -> String {
        let mut out = self.erase();
        out.push_str(text);
        for Line { text, faint } in lines {
            let (text, faint) = (sanitize(text), sanitize(faint));
            self.drawn
                .push(text.chars().count() + faint.chars().count());
            // Writing to a string does not fail.
            let _ = match faint.is_empty() {
                true => writeln!(out, "{text}"),
                false => writeln!(out, "{text}\x1b[2m{faint}\x1b[0m"),
            };
        }
        out
    }

    /// What to write so that the calls disappear.
    pub(crate) fn erase(&mut self) -> String {
        let (width, _) = terminal_size();
        // In a window that was made narrower, a line takes several.
        let lines: usize = self
            .drawn
            .drain(..)
            .map(|columns| columns.div_ceil(width).max(1))
            .sum();
        match lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }
}

/// One line. The heads of the columns and words that may still change are faint.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    text: String,
    faint: String,
}

/// Lines narrower than `width`, and fewer than `height`. An empty line separates them from the text above.
fn render(calls: &[CallRow], width: usize, height: usize) -> Vec<Line> {
    if calls.is_empty() {
        return Vec::new();
    }
    let width = width.saturating_sub(1);
    let columns = Columns::fitting(width);
    let clipped = |text: String| text.chars().take(width).collect();
    let line = |text: String| Line {
        text: clipped(text),
        ..Line::default()
    };
    let head = Line {
        faint: clipped(columns.head()),
        ..Line::default()
    };
    let mut lines = vec![Line::default(), head];
    let max_lines = height.saturating_sub(4).max(1);
    let mut shown = 0;
    for call in calls {
        let captions = if shown == 0 {
            // One call is always shown, without its words if there is no space for them.
            call.captions.len().min(max_lines - 1)
        } else {
            call.captions.len()
        };
        if lines.len() - 2 + 1 + captions > max_lines {
            break;
        }
        lines.push(line(columns.row(call)));
        lines.extend(call.captions.iter().take(captions).map(|caption| Line {
            text: clipped(caption.text.clone()),
            faint: caption.interim.clone(),
        }));
        shown += 1;
    }
    if calls.len() > shown {
        lines.push(line(format!("and {} more", calls.len() - shown)));
    }
    lines
}

/// The columns that fit. The least important ones are left out first.
struct Columns {
    peer: bool,
    meter: bool,
    frames: bool,
    lateness: bool,
}

impl Columns {
    fn fitting(width: usize) -> Self {
        Self {
            lateness: width >= 37,
            frames: width >= 56,
            meter: width >= 70,
            peer: width >= 93,
        }
    }

    fn head(&self) -> String {
        self.line(
            ["call", "from", "time", "level", "in", "out", "late"].map(String::from),
            " ".repeat(METER_CELLS),
        )
    }

    fn row(&self, call: &CallRow) -> String {
        let cells = [
            call.id.clone(),
            call.peer.clone(),
            format::duration(call.duration),
            level(call.level),
            call.frames_in.to_string(),
            call.frames_out.to_string(),
            format!("{:.1} ms", call.worst_lateness.as_secs_f64() * 1000.0),
        ];
        self.line(cells, meter(call.level))
    }

    fn line(&self, cells: [String; 7], meter: String) -> String {
        let [id, peer, time, level, frames_in, frames_out, late] = cells;
        let mut line = format!("{id:8}");
        // Writing to a string does not fail.
        let _ = (|| {
            if self.peer {
                write!(line, "  {peer:21}")?;
            }
            write!(line, "  {time:>7}")?;
            if self.meter {
                write!(line, "  {meter}")?;
            }
            write!(line, "  {level:>8}")?;
            if self.frames {
                write!(line, "  {frames_in:>7}  {frames_out:>7}")?;
            }
            if self.lateness {
                write!(line, "  {late:>8}")?;
            }
            Ok::<(), fmt::Error>(())
        })();
        line
    }
}

fn level(dbfs: f32) -> String {
    if dbfs > FLOOR_DBFS {
        format!("{dbfs:.0} dBFS")
    } else {
        "silence".into()
    }
}

/// A bar of 12 cells, each of 4 dB, the last one in eighths.
fn meter(dbfs: f32) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = ((dbfs - METER_FLOOR) / -METER_FLOOR).clamp(0.0, 1.0);
    let eighths = (share * (METER_CELLS * 8) as f32) as usize;
    let mut bar = "█".repeat(eighths / 8);
    if eighths / 8 < METER_CELLS {
        bar.push(EIGHTHS[eighths % 8]);
    }
    let blank = METER_CELLS - bar.chars().count();
    bar + &" ".repeat(blank)
}

fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => DEFAULT_SIZE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(level: f32) -> CallRow {
        CallRow {
            id: "40325ec2".into(),
            peer: "192.168.100.200:50000".into(),
            duration: Duration::from_secs(3723),
            level,
            frames_in: 186_150,
            frames_out: 186_151,
            worst_lateness: Duration::from_micros(1240),
            captions: Vec::new(),
        }
    }

    fn columns_in(line: &Line) -> usize {
        line.text.chars().count() + line.faint.chars().count()
    }

    fn speaking(text: &str, interim: &str) -> CallRow {
        CallRow {
            captions: vec![CaptionLine {
                text: text.into(),
                interim: interim.into(),
            }],
            ..call(-20.0)
        }
    }

    #[test]
    fn words_are_below_their_call_and_interim_ones_are_faint() {
        let calls = [speaking("  caller: hello ", "wor"), call(-20.0)];
        let lines = render(&calls, 100, 24);
        assert_eq!(lines.len(), 5);
        assert_eq!(
            (lines[3].text.as_str(), lines[3].faint.as_str()),
            ("  caller: hello ", "wor")
        );
        let out = Table::default().paint("", &lines);
        assert!(out.contains("  caller: hello \x1b[2mwor\x1b[0m\n"), "{out}");
    }

    #[test]
    fn calls_with_words_fit_the_height_of_the_terminal() {
        let calls: Vec<CallRow> = (0..100).map(|_| speaking("  caller: a", "b")).collect();
        for height in 1..40 {
            let lines = render(&calls, 80, height);
            assert!(lines.len() <= height.max(4), "{} in {height}", lines.len());
        }
    }

    #[test]
    fn calls_fit_the_width_and_height_of_the_terminal() {
        let calls: Vec<CallRow> = (0..100).map(|_| call(-20.0)).collect();
        for width in 1..150 {
            for height in [1, 5, 24] {
                let lines = render(&calls, width, height);
                assert!(lines.iter().all(|line| columns_in(line) < width.max(2)));
                assert!(lines.len() <= height.max(4), "{} in {height}", lines.len());
            }
        }
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        let lines = render(&[call(-20.0)], 100, 24);
        for text in [
            "40325ec2",
            "192.168.100.200:50000",
            "1:02:03",
            "███████ ",
            "-20 dBFS",
            "186150",
            "186151",
            "1.2 ms",
        ] {
            assert!(lines[2].text.contains(text), "{text} is not in {lines:#?}");
        }
    }

    #[test]
    fn a_narrow_terminal_shows_the_most_important_columns() {
        let lines = render(&[call(-20.0)], 30, 24);
        assert_eq!(lines[2].text, "40325ec2  1:02:03  -20 dBFS");
    }

    #[test]
    fn column_heads_are_as_wide_as_their_columns() {
        for width in [30, 45, 60, 80, 120] {
            let lines = render(&[call(-7.5)], width, 24);
            assert_eq!(columns_in(&lines[1]), columns_in(&lines[2]), "{lines:#?}");
        }
    }

    #[test]
    fn the_meter_is_empty_at_its_floor_and_full_at_full_scale() {
        assert_eq!(meter(-96.0), " ".repeat(METER_CELLS));
        assert_eq!(meter(0.0), "█".repeat(METER_CELLS));
        assert_eq!(meter(-24.0).matches('█').count(), METER_CELLS / 2);
    }

    #[test]
    fn without_calls_nothing_is_drawn() {
        assert!(render(&[], 80, 24).is_empty());
        assert_eq!(Table::default().paint("a line\n", &[]), "a line\n");
    }
}
