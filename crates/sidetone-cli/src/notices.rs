//! What the server counts and no call shows: told when it first happens.

use std::{sync::Arc, time::Duration};

use sidetone::{ServerHandle, ServerStats};
use tokio::time::interval;

use crate::{board::Board, events::Event, report::Teller};

const LOOK_EVERY: Duration = Duration::from_secs(1);

type Sign = fn(&ServerStats) -> bool;

const NOTICES: [(Sign, &str); 3] = [
    (
        |stats| !stats.prioritised,
        "the system does not let the media threads go before others, so frames are later where it is busy: allow it with LimitNICE=-11 in systemd, or CAP_SYS_NICE",
    ),
    (
        |stats| stats.without_identity > 0,
        "a connection ended without a UUID: a health check, or Answer() is missing before AudioSocket(); further ones are not told",
    ),
    (
        |stats| stats.out_of_descriptors > 0,
        "a call was lost because the process has no descriptors left: raise the limit with LimitNOFILE= in systemd, or ulimit -n; further ones are not told",
    ),
];

/// Looks until it is dropped.
pub(crate) async fn tell(server: ServerHandle, teller: Teller, board: Arc<Board>) {
    let mut untold = Vec::from(NOTICES);
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        board.tell_what_was_counted();
        let stats = server.stats();
        untold.retain(|(sign, text)| {
            let happened = sign(&stats);
            if happened {
                teller.tell(Event::Notice { text });
            }
            !happened
        });
    }
}
