//! Floor 5: one core's server, which owns the floors below and orders their events.
