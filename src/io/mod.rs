//! Floor 4: sockets and what speaks over them.

pub mod admin;
pub mod broker;
pub mod link;
pub mod metrics;
pub mod prober;
pub mod rate_limited;
pub mod reactor;
pub mod redis;
pub mod tls;
pub mod wake;
