//! Threads, each with a descriptor table of its own where the host allows it.

use std::io;
use std::thread::JoinHandle;

use super::raw;

/// Starts a thread with a descriptor table of its own.
///
/// # Errors
/// That the kernel has no room for another thread.
pub fn spawn(
    name: &str,
    private_table: bool,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    builder.spawn(move || {
        if private_table {
            raw::make_descriptor_table_private()?;
        }
        run()
    })
}

/// Stack of a thread: nothing in them recurses.
const STACK_BYTES: usize = 512 * 1024;
