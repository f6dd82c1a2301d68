//! The live calls at the bottom of a terminal.

use std::{fmt::Write, io, sync::Arc, time::Duration};

use sidetone_audio::level::FLOOR_DBFS;

use crate::{
    board::Row,
    plain::plain,
    prose::{clock, short},
    transcribe::captions::Drawn,
};

/// Of a terminal that does not say.
const USUAL_SIZE: (usize, usize) = (80, 24);
/// The level at which the meter is empty, in dBFS; speech is about 20 dB above it.
const METER_FLOOR: f32 = -48.0;
const METER_CELLS: usize = 12;

/// Draws calls in place: each drawing takes the place of the one before.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// How many columns each line has that is drawn now.
    drawn: Vec<usize>,
}

impl Table {
    /// What to write so that `text` scrolls by above the calls.
    pub(crate) fn redraw(&mut self, text: &str, rows: &[Arc<Row>]) -> String {
        let (width, height) = size();
        let calls: Vec<Shown> = rows
            .iter()
            .filter_map(|row| Shown::of(row, width))
            .collect();
        self.paint(text, &render(&calls, width, height))
    }

    fn paint(&mut self, text: &str, lines: &[Line]) -> String {
        let mut out = self.erase();
        out.push_str(text);
        for Line { text, faint } in lines {
            let (text, faint) = (plain(text), plain(faint));
            self.drawn
                .push(text.chars().count() + faint.chars().count());
            // Writing into a string can't fail.
            let _ = match faint.is_empty() {
                true => writeln!(out, "{text}"),
                false => writeln!(out, "{text}\x1b[2m{faint}\x1b[0m"),
            };
        }
        out
    }

    /// What to write so that the calls disappear.
    pub(crate) fn erase(&mut self) -> String {
        let (width, _) = size();
        // In a window that was made narrower, lines have become several.
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

/// What is shown of a call.
struct Shown {
    id: String,
    peer: String,
    duration: Duration,
    level: f32,
    frames_in: u64,
    frames_out: u64,
    late: Duration,
    /// What was said.
    captions: Vec<Drawn>,
}

/// One line: the heads of the columns, and words that may still change, step back behind the rest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    text: String,
    faint: String,
}

impl Shown {
    fn of(row: &Row, width: usize) -> Option<Self> {
        let stats = row.call()?.stats();
        Some(Self {
            id: short(row.id),
            peer: row.peer.to_string(),
            duration: stats.duration,
            level: row.level(),
            frames_in: stats.counters.frames_in,
            frames_out: stats.counters.frames_out,
            late: stats.counters.worst_lateness,
            captions: row.captions().lines(width.saturating_sub(1)),
        })
    }
}

/// The lines, none longer than `width`, all together lower than `height`. An empty line sets them off from what
/// scrolls above.
fn render(calls: &[Shown], width: usize, height: usize) -> Vec<Line> {
    if calls.is_empty() {
        return Vec::new();
    }
    let width = width.saturating_sub(1);
    let columns = Columns::fitting(width);
    let fitting = |text: String| text.chars().take(width).collect();
    let plain = |text: String| Line {
        text: fitting(text),
        ..Line::default()
    };
    let head = Line {
        faint: fitting(columns.head()),
        ..Line::default()
    };
    let mut lines = vec![Line::default(), head];
    let room = height.saturating_sub(4).max(1);
    let mut shown = 0;
    for call in calls {
        let captions = if shown == 0 {
            // One call is shown in any case, if need be without its words.
            call.captions.len().min(room - 1)
        } else {
            call.captions.len()
        };
        if lines.len() - 2 + 1 + captions > room {
            break;
        }
        lines.push(plain(columns.row(call)));
        lines.extend(call.captions.iter().take(captions).map(|caption| Line {
            text: fitting(caption.sure.clone()),
            faint: caption.interim.clone(),
        }));
        shown += 1;
    }
    if calls.len() > shown {
        lines.push(plain(format!("and {} more", calls.len() - shown)));
    }
    lines
}

/// Which columns there is room for; the first ones to go are those that say least.
struct Columns {
    peer: bool,
    meter: bool,
    frames: bool,
    late: bool,
}

impl Columns {
    fn fitting(width: usize) -> Self {
        Self {
            late: width >= 37,
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

    fn row(&self, call: &Shown) -> String {
        let cells = [
            call.id.clone(),
            call.peer.clone(),
            clock(call.duration),
            level(call.level),
            call.frames_in.to_string(),
            call.frames_out.to_string(),
            format!("{:.1} ms", call.late.as_secs_f64() * 1000.0),
        ];
        self.line(cells, meter(call.level))
    }

    fn line(&self, cells: [String; 7], meter: String) -> String {
        let [id, peer, time, level, frames_in, frames_out, late] = cells;
        let mut line = format!("{id:8}");
        // Writing into a string can't fail.
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
            if self.late {
                write!(line, "  {late:>8}")?;
            }
            Ok::<(), std::fmt::Error>(())
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

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL_SIZE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(level: f32) -> Shown {
        Shown {
            id: "40325ec2".into(),
            peer: "192.168.100.200:50000".into(),
            duration: Duration::from_secs(3723),
            level,
            frames_in: 186_150,
            frames_out: 186_151,
            late: Duration::from_micros(1240),
            captions: Vec::new(),
        }
    }

    fn columns_in(line: &Line) -> usize {
        line.text.chars().count() + line.faint.chars().count()
    }

    fn speaking(sure: &str, interim: &str) -> Shown {
        Shown {
            captions: vec![Drawn {
                sure: sure.into(),
                interim: interim.into(),
            }],
            ..call(-20.0)
        }
    }

    #[test]
    fn words_stand_below_their_call_and_those_that_may_change_are_faint() {
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
    fn calls_with_words_are_not_higher_than_the_terminal_either() {
        let calls: Vec<Shown> = (0..100).map(|_| speaking("  caller: a", "b")).collect();
        for height in 1..40 {
            let lines = render(&calls, 80, height);
            assert!(lines.len() <= height.max(4), "{} in {height}", lines.len());
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_nor_all_higher() {
        let calls: Vec<Shown> = (0..100).map(|_| call(-20.0)).collect();
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
    fn a_narrow_one_keeps_what_says_most() {
        let lines = render(&[call(-20.0)], 30, 24);
        assert_eq!(lines[2].text, "40325ec2  1:02:03  -20 dBFS");
    }

    #[test]
    fn heads_stand_above_their_columns() {
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
        assert_eq!(Table::default().redraw("a line\n", &[]), "a line\n");
    }
}
