//! Calls with bots over real sockets. The caller's record is the judge of what was heard.
#![allow(clippy::unwrap_used)]

mod audio;
mod connecting;
mod dialects;
mod endings;
mod floods;
mod marks;
mod openai;
mod support;
