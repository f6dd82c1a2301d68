//! The live calls at the bottom of a terminal.

use std::{fmt::Write, io, sync::Arc};

use sidetone::CallStats;
use sidetone_audio::level::FLOOR_DBFS;

use crate::{
    board::Row,
    prose::{clock, short},
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
        let calls: Vec<Shown> = rows.iter().filter_map(|row| Shown::of(row)).collect();
        let mut out = self.erase();
        out.push_str(text);
        let lines = render(&calls, width, height);
        for (place, line) in lines.iter().enumerate() {
            self.drawn.push(line.chars().count());
            // The heads of the columns step back behind what changes.
            let _ = match place {
                1 => writeln!(out, "\x1b[2m{line}\x1b[0m"),
                _ => writeln!(out, "{line}"),
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
    level: f32,
    stats: CallStats,
}

impl Shown {
    fn of(row: &Row) -> Option<Self> {
        Some(Self {
            id: short(row.id),
            peer: row.peer.to_string(),
            level: row.level(),
            stats: row.call()?.stats(),
        })
    }
}

/// The lines, none longer than `width`, all together lower than `height`. An empty line sets them off from what
/// scrolls above.
fn render(calls: &[Shown], width: usize, height: usize) -> Vec<String> {
    if calls.is_empty() {
        return Vec::new();
    }
    let columns = Columns::fitting(width.saturating_sub(1));
    let mut lines = vec![String::new(), columns.head()];
    let room = height.saturating_sub(4).max(1);
    lines.extend(calls.iter().take(room).map(|call| columns.row(call)));
    if calls.len() > room {
        lines.push(format!("and {} more", calls.len() - room));
    }
    for line in &mut lines {
        *line = line.chars().take(width.saturating_sub(1)).collect();
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
        let counters = &call.stats.counters;
        let cells = [
            call.id.clone(),
            call.peer.clone(),
            clock(call.stats.duration),
            level(call.level),
            counters.frames_in.to_string(),
            counters.frames_out.to_string(),
            format!("{:.1} ms", counters.worst_lateness.as_secs_f64() * 1000.0),
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
