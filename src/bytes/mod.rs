//! Floor 1: pure functions on bytes; no state, no socket, no clock.

pub mod resp;
pub mod resp_request;
