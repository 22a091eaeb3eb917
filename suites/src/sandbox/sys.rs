//! The three system calls that neither the standard library nor `rustix` offers safely.

#![allow(
    unsafe_code,
    reason = "wait4, close_range and unshare have no safe wrappers"
)]

use std::{
    io, mem,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    process::{Child, ExitStatus},
    time::Duration,
};

use std::os::unix::process::ExitStatusExt as _;

use rustix::{
    io::Errno,
    thread::{self, UnshareFlags},
};

/// What a child process and the children it waited for have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time.
    pub(super) cpu: Duration,
    /// The greatest resident set of any one of them.
    pub(super) peak_rss_bytes: u64,
}

/// Waits for the end of a child and returns what it used.
pub(super) fn wait(child: Child) -> io::Result<(ExitStatus, Usage)> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // Nobody else waits for it from here on, so that the id stays the child's until it is reaped.
    drop(child);
    let mut status = 0;
    // SAFETY: all zeros is a value of this struct of integers.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the right types.
        let reaped = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if reaped == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let peak_rss_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    Ok((
        ExitStatus::from_raw(status),
        Usage {
            cpu,
            peak_rss_bytes,
        },
    ))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Lets no descriptor but the standard three outlive the next `exec`.
pub(super) fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: the call takes three integers; with this flag it closes nothing that is in use.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes over a descriptor that the process that started this one left open for it.
///
/// # Errors
/// `EBADF` where it is not open, and for the standard three.
pub(super) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the call takes integers and changes nothing.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and a stage takes it over once, first thing in its process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Moves this process into new namespaces.
///
/// # Panics
/// If asked to unshare the table of descriptors.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(
        !flags.contains(UnshareFlags::FILES),
        "descriptors stay shared"
    );
    // SAFETY: the table of descriptors is not among what is unshared.
    unsafe { thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}
