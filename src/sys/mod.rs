//! Floor 3: every call of the runtime and of the kernel.
