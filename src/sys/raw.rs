//! Every unsafe block of the program, each behind a safe function.

#![expect(unsafe_code, reason = "this is the one file that may")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Borrows a descriptor that is kept as a number.
///
/// Client sockets are numbers in the connection slab (an `OwnedFd` and its drop flag would cost the
/// fan-out loop), and descriptors made by `main` are numbers in every worker's own table.
#[must_use]
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    assert!(fd >= 0, "a vacant slot has no descriptor");
    // SAFETY: not -1, as asserted. The caller's table owns the descriptor: the slab closes a socket
    // only when it forgets the number, and descriptors of `main` live as long as the process. A
    // number gone stale would reach another file, never memory.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Closes a descriptor that was kept as a number.
pub fn close(fd: RawFd) {
    assert!(fd >= 0, "a vacant slot has no descriptor");
    // SAFETY: the slab owned the number and has just forgotten it, so it is closed once.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Gives this thread a table of descriptors of its own, a copy of the one it shared.
///
/// `close_range` with its UNSHARE flag makes one, also where a container's seccomp filter refuses
/// `unshare`; the range is empty, so nothing is closed.
///
/// # Errors
/// What close_range(2) and unshare(2) answer; the table is then still shared.
pub fn make_descriptor_table_private() -> io::Result<()> {
    // SAFETY: close_range takes three numbers and no memory.
    let answer = unsafe {
        libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE)
    };
    if answer == 0 {
        return Ok(());
    }
    // SAFETY: unshare takes a number and no memory. The copy holds every descriptor of the old
    // table under its old number, so owners in this thread stay right.
    match unsafe { libc::unshare(libc::CLONE_FILES) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets a TCP socket keep `bytes` that nobody has read yet, as far as `net.ipv4.tcp_rmem` allows,
/// before it makes its peer wait.
///
/// Asking for so much to be there before a read makes the kernel make room for it at once, and it
/// keeps the room when the wish is withdrawn. SO_RCVBUF would be cut to `net.core.rmem_max`, which
/// is less than what the kernel gives by itself on most hosts, and would fix it there.
///
/// # Errors
/// What setsockopt(2) answers.
pub fn widen_receive_buffer(socket: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    const INT_BYTES: libc::socklen_t = 4;
    const _: () = assert!(size_of::<i32>() == INT_BYTES as usize);
    for low_water in [bytes, 1] {
        // SAFETY: the value is valid for the call, and its size is the one that is given.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const low_water).cast(),
                INT_BYTES,
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Gives the memory that this thread has freed back to the kernel, and what other threads have
/// freed long enough ago. Does nothing in a program that has another allocator.
pub fn release_memory() {
    // SAFETY: the function may be called at any time, by any thread; it touches only what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Blocks SIGINT and SIGTERM in this thread and all that it will start, and returns a
/// descriptor that becomes readable when one is pending (signalfd(2)).
///
/// # Errors
/// What pthread_sigmask(3) and signalfd(2) answer.
pub fn signals() -> io::Result<OwnedFd> {
    // SAFETY: `sigset_t` is plain data; sigemptyset initialises it before anything reads it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for the calls; a null old set is allowed.
    let blocked = unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut())
    };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    // SAFETY: `set` is valid for the call, -1 asks for a new descriptor.
    match unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made it for us.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}
