//! Floor 3: every call of the runtime and of the kernel.

pub mod clock;
pub mod host;
pub mod raw;
pub mod runtime;
pub mod socket;
pub mod thread;
