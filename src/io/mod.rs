//! Floor 4: sockets and what speaks over them.

pub mod broker;
pub mod rate_limited;
