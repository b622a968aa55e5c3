//! Floor 4: sockets and what speaks over them.

pub mod link;
pub mod prober;
pub mod rate_limited;
pub mod reactor;
pub mod redis;
pub mod tls;
pub mod wake;
