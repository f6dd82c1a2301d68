use std::{collections::BTreeMap, fs, io};

use rustix::time::{ClockId, clock_gettime};

use crate::LoadError;

/// Clock ticks of `/proc/PID/stat`, fixed for programs on Linux.
const TICK: u64 = 1_000_000_000 / 100;

/// The server's process.
pub(crate) struct Process {
    pid: u32,
    rss_before: u64,
}

/// CPU time of a process up to one point, in nanoseconds.
pub(crate) struct CpuTime {
    threads: BTreeMap<u32, u64>,
    /// Includes threads that have ended, but is exact to a tick only.
    whole: u64,
}

/// What a process used between two points.
pub(crate) struct Usage {
    /// Nanoseconds.
    pub(crate) cpu: u64,
    /// KiB.
    pub(crate) rss_before: u64,
    /// KiB.
    pub(crate) rss_after: u64,
}

impl Process {
    /// To be called before there are any calls.
    pub(crate) fn new(pid: u32) -> Result<Self, LoadError> {
        let rss_before = resident(pid).map_err(|source| LoadError::Process { pid, source })?;
        Ok(Self { pid, rss_before })
    }

    pub(crate) fn cpu(&self) -> Result<CpuTime, LoadError> {
        let pid = self.pid;
        cpu(pid).map_err(|source| LoadError::Process { pid, source })
    }

    /// The CPU time used between the two points, and the memory used now.
    pub(crate) fn usage(&self, from: &CpuTime, to: &CpuTime) -> Result<Usage, LoadError> {
        let pid = self.pid;
        Ok(Usage {
            cpu: from.until(to),
            rss_before: self.rss_before,
            rss_after: resident(pid).map_err(|source| LoadError::Process { pid, source })?,
        })
    }
}

impl CpuTime {
    fn until(&self, later: &Self) -> u64 {
        // The figure of a thread that ended is gone. The one of the whole process is coarser but complete.
        if self
            .threads
            .keys()
            .any(|id| !later.threads.contains_key(id))
        {
            return later.whole - self.whole;
        }
        let before = |id| self.threads.get(id).copied().unwrap_or(0);
        let used = later.threads.iter().map(|(id, time)| time - before(id));
        used.sum()
    }
}

/// CPU time of this thread, in nanoseconds.
pub(crate) fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn cpu(pid: u32) -> io::Result<CpuTime> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        // A thread that ends meanwhile counts as ended.
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
            continue;
        };
        let id = entry.file_name().to_string_lossy().parse();
        let time = text.split_whitespace().next().map(str::parse);
        let (Ok(id), Some(Ok(time))) = (id, time) else {
            return Err(unreadable("schedstat"));
        };
        threads.insert(id, time);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let whole = ticks(&stat).ok_or_else(|| unreadable("stat"))? * TICK;
    Ok(CpuTime { threads, whole })
}

/// User and system time in ticks, from `/proc/PID/stat`. The command in its second field may hold blanks and
/// parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory in KiB, counted from the page tables. The count in `statm` is kept for each core, and its error can
/// exceed what a thousand idle calls use.
fn resident(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| unreadable("smaps_rollup"))
}

fn unreadable(file: &str) -> io::Error {
    io::Error::other(format!("{file} has an unknown format"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn time(threads: &[(u32, u64)], whole: u64) -> CpuTime {
        CpuTime {
            threads: threads.iter().copied().collect(),
            whole,
        }
    }

    #[test]
    fn threads_that_begin_are_counted_in_full() {
        let from = time(&[(10, 100), (11, 50)], 0);
        let to = time(&[(10, 130), (11, 50), (12, 7)], 0);
        assert_eq!(from.until(&to), 37);
    }

    #[test]
    fn when_a_thread_ends_the_processs_own_figure_counts() {
        let from = time(&[(10, 100), (11, 50)], 3 * TICK);
        let to = time(&[(10, 130)], 5 * TICK);
        assert_eq!(from.until(&to), 2 * TICK);
    }

    #[test]
    fn a_commands_blanks_and_parentheses_are_no_fields() {
        let stat = "7 (a) (b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20";
        assert_eq!(ticks(stat), Some(42));
    }

    #[test]
    fn this_process_can_be_read() {
        let own = std::process::id();
        let process = Process::new(own).unwrap();
        let from = process.cpu().unwrap();
        let usage = process.usage(&from, &process.cpu().unwrap()).unwrap();
        assert!(usage.rss_before > 0 && usage.rss_after > 0);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Process::new(u32::MAX).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}
