//! Floor 0: ids, bounds and settings. Plain data, known to every other floor.

pub mod config;
pub mod ids;
pub mod limits;
