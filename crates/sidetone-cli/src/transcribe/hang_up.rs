//! Ends a call that is transcribed, and reports why.

use sidetone::CallHandle;

use super::events::TranscribeEvent;
use crate::output::Reporter;

/// Why the command ends a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum HangUpReason {
    StopWord,
    TimeLimit,
}

impl HangUpReason {
    fn name(self) -> &'static str {
        match self {
            Self::StopWord => "stop_word",
            Self::TimeLimit => "time_limit",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::StopWord => "the caller said the stop word",
            Self::TimeLimit => "the time limit is reached",
        }
    }
}

/// Ends a call, unless it has ended already.
pub(super) fn hang_up(call: &CallHandle, reporter: &Reporter, reason: HangUpReason) {
    if call.ended().is_none() {
        reporter.report(TranscribeEvent::HangingUp {
            id: call.id(),
            reason: reason.name(),
            text: reason.text(),
        });
        call.hang_up();
    }
}
