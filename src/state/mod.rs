//! Floor 2: the tables of a worker and their rules; no socket, no clock, no runtime.
