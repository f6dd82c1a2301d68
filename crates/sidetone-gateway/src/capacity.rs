//! How many calls a process can have, by the files that it may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Calls that `max_calls` is when the file does not say.
const DEFAULT_MAX_CALLS: usize = 2000;
/// Descriptors that the process needs besides those of calls: HTTP, files, threads.
const OTHER_DESCRIPTORS: u64 = 1024;
/// Descriptors of a call: its connection, and its recording.
const DESCRIPTORS_PER_CALL: u64 = 2;

/// How many calls there can be at a time, whatever the file says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// None without a limit.
    descriptors: Option<u64>,
}

impl Capacity {
    /// After the limit on descriptors was raised as far as it goes.
    pub(crate) fn raised() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let descriptors = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        Self { descriptors }
    }

    pub(crate) fn calls(self) -> usize {
        let Some(all) = self.descriptors else {
            // The library adds to it.
            return usize::MAX / 2;
        };
        // A process that has few uses half of them for calls.
        let for_calls = all - OTHER_DESCRIPTORS.min(all / 2);
        (for_calls / DESCRIPTORS_PER_CALL).max(1) as usize
    }

    /// What to say if there can be fewer calls than wanted.
    pub(crate) fn notice(self, wanted: usize) -> Option<String> {
        let possible = self.calls();
        let descriptors = self.descriptors?;
        (possible < wanted).then(|| {
            format!(
                "max_calls is {possible}, not {wanted}: the process may have {descriptors} files open; set LimitNOFILE={} in its unit",
                wanted as u64 * DESCRIPTORS_PER_CALL + OTHER_DESCRIPTORS
            )
        })
    }
}

/// How many calls the file asks for.
pub(crate) fn wanted_calls(config: &Config) -> usize {
    config.server.max_calls.unwrap_or(DEFAULT_MAX_CALLS)
}
