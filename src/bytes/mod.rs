//! Floor 1: pure functions on bytes; no state, no socket, no clock.

pub mod event_stream;
pub mod format;
pub mod history;
pub mod http;
pub mod json;
pub mod quantity;
pub mod resp;
pub mod resp_request;
pub mod target;
pub mod utf8;

#[cfg(test)]
#[path = "../../tests/support/event_source.rs"]
pub(crate) mod event_source;
#[cfg(test)]
#[path = "../../tests/support/strings.rs"]
pub(crate) mod strings;
