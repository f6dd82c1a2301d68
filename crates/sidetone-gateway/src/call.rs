//! What is known of a call besides its audio.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::event::timestamp;

/// What the dialplan said of a call, by name.
pub(crate) type Params = BTreeMap<String, String>;

/// Everything that goes with a call to hooks, side files and the page.
#[derive(Debug)]
pub(crate) struct CallContext {
    pub(crate) id: Uuid,
    pub(crate) peer: SocketAddr,
    pub(crate) route: String,
    pub(crate) params: Arc<Params>,
    /// The token that minted its ticket.
    pub(crate) minted_by: Option<String>,
    pub(crate) started: SystemTime,
    pub(crate) started_at: Instant,
}

impl CallContext {
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut data = Map::new();
        data.insert("call".into(), json!(self.id));
        data.insert("route".into(), json!(self.route));
        data.insert("params".into(), json!(*self.params));
        data.insert("peer".into(), json!(self.peer));
        data.insert("started".into(), json!(rfc3339(self.started)));
        data
    }
}

pub(crate) fn rfc3339(time: SystemTime) -> String {
    timestamp(time.into())
}
