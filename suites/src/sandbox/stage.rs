//! The processes between the harness and an untrusted program.
//!
//! With namespaces there are three: the *monitor* makes the namespaces and the root folder and
//! keeps the wall limit; the *init* is process 1 of the new process namespace, so that its end is
//! everyone's; the *jail* takes limits, landlock and the filter of system calls upon itself and
//! becomes the interpreter. Without namespaces the monitor starts the jail.
//!
//! A stage is this very program, started anew: between `fork` and `exec` hardly anything is
//! allowed, in a fresh process everything is.

mod limits;
mod namespaces;
mod syscalls;
mod walls;

use std::{
    env,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    process::{
        Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
        set_parent_process_death_signal, setsid,
    },
};

use super::{
    request::{ENTRY, Fault, InLayer as _, Killed, Request, Status, say},
    scratch, sys,
};

pub(super) use walls::supported_landlock;

/// Where a program finds its files with namespaces.
const SCRATCH: &str = "/tmp";
/// This program in the new root.
const STAGE: &str = "/.stage";
/// Exit code of a stage that failed; the status file has the reason.
const FAILED: u8 = 125;

/// Runs the stage that the command line asks for.
pub(super) fn main(mut args: impl Iterator<Item = String>) -> ExitCode {
    let (Some(stage), Some(fd), Some(request)) = (args.next(), args.next(), args.next()) else {
        return ExitCode::from(FAILED);
    };
    let Ok(request) = serde_json::from_str::<Request>(&request) else {
        return ExitCode::from(FAILED);
    };
    let status = match stage.as_str() {
        "monitor" => open_status(&request),
        _ => fd
            .parse()
            .map_err(io::Error::other)
            .and_then(sys::inherited)
            .map(File::from),
    };
    let Ok(mut status) = status else {
        return ExitCode::from(FAILED);
    };
    let outcome = match stage.as_str() {
        "monitor" => monitor(&request, &mut status),
        "init" => init(&request, &mut status),
        "jail" => jail(&request, &mut status).map(|never| match never {}),
        other => Err(Fault::new("stage", format!("there is no stage `{other}`"))),
    };
    let Err(Fault { layer, reason }) = outcome else {
        return ExitCode::SUCCESS;
    };
    let failed = Status::Failed {
        layer: layer.to_owned(),
        reason,
    };
    // Without a reader there is nobody to tell; the exit code says it.
    let _ = say(&mut status, &failed);
    ExitCode::from(FAILED)
}

/// Opens the status file so that the next stages have it too.
fn open_status(request: &Request) -> io::Result<File> {
    let path = request.folder.join("status");
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn monitor(request: &Request, status: &mut File) -> Result<(), Fault> {
    let start = Instant::now();
    setsid().layer("process group", "setsid")?;
    die_with(request.parent)?;
    // The first to go where memory runs out; a system without this file has no such order.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let child = if request.namespaces {
        namespaces::enter(request)?;
        start_stage(Path::new(STAGE), "init", request, status)?
    } else {
        let program = env::current_exe().layer("stage", "cannot find this program")?;
        let request = Request {
            parent: std::process::id(),
            ..request.clone()
        };
        start_stage(&program, "jail", &request, status)?
    };
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).layer("wall limit", "pidfd_open")?;
    let killed = loop {
        let left = request.wall.saturating_sub(start.elapsed());
        // A file system of its own bounds itself; a plain folder is looked at now and then.
        let step = if request.namespaces {
            left
        } else {
            left.min(Duration::from_millis(100))
        };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let timeout = Timespec::try_from(step).layer("wall limit", "poll")?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left <= step => break Some(Killed::Wall),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => break None,
            Err(error) => return Err(Fault::new("wall limit", format!("poll: {error}"))),
        }
        if !request.namespaces
            && scratch::exceeds(&request.folder.join("scratch"), request.scratch_bytes)
        {
            break Some(Killed::Scratch);
        }
    };
    if killed.is_some() {
        // It may have ended by itself in the meantime.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let (ended, usage) = sys::wait(child).layer("stage", "wait4")?;
    if !request.namespaces {
        let ended = Status::Ended {
            code: ended.code(),
            signal: ended.signal(),
        };
        say(status, &ended).layer("status file", "write")?;
    }
    let done = Status::Done {
        killed,
        cpu: usage.cpu,
        peak_rss_bytes: usage.peak_rss_bytes,
    };
    say(status, &done).layer("status file", "write")
}

fn init(request: &Request, status: &mut File) -> Result<(), Fault> {
    die_with_parent()?;
    let child = start_stage(Path::new(STAGE), "jail", request, status)?;
    let (ended, _) = sys::wait(child).layer("stage", "wait4")?;
    let ended = Status::Ended {
        code: ended.code(),
        signal: ended.signal(),
    };
    say(status, &ended).layer("status file", "write")
}

/// What there is no value of.
enum Never {}

fn jail(request: &Request, status: &mut File) -> Result<Never, Fault> {
    die_with_parent()?;
    let scratch = scratch_of(request);
    env::set_current_dir(&scratch).layer("scratch folder", "chdir")?;
    walls::become_nobody(request)?;
    if !request.namespaces {
        // Once more, as the kernel forgets it when the user changes. With namespaces the end of
        // process 1 is everyone's.
        die_with(request.parent)?;
    }
    limits::set(request)?;
    rustix::thread::set_no_new_privs(true).layer("no_new_privs", "prctl")?;
    let mut command = Command::new(&request.interpreter);
    command
        .args(&request.args)
        .env_clear()
        .env("HOME", &scratch)
        .env("TMPDIR", &scratch)
        .env("PATH", "/usr/bin:/bin")
        // The order of a set of strings decides some verdicts: the same one every time.
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONUTF8", "1")
        .env("OMP_NUM_THREADS", "1");
    sys::close_others_on_exec().layer("descriptors", "close_range")?;
    walls::landlock(request, &scratch)?;
    say(status, &Status::Walled).layer("status file", "write")?;
    syscalls::filter()?;
    let error = command.exec();
    Err(Fault::new(
        "interpreter",
        format!("{}: {error}", request.interpreter.display()),
    ))
}

fn scratch_of(request: &Request) -> PathBuf {
    if request.namespaces {
        PathBuf::from(SCRATCH)
    } else {
        request.folder.join("scratch")
    }
}

fn die_with_parent() -> Result<(), Fault> {
    set_parent_process_death_signal(Some(Signal::KILL)).layer("process group", "prctl")
}

/// Dies with its parent, and at once if that is gone.
fn die_with(parent: u32) -> Result<(), Fault> {
    die_with_parent()?;
    if getppid().map(|pid| pid.as_raw_pid().cast_unsigned()) == Some(parent) {
        Ok(())
    } else {
        Err(Fault::new("process group", "the parent is gone"))
    }
}

fn start_stage(
    program: &Path,
    stage: &str,
    request: &Request,
    status: &File,
) -> Result<Child, Fault> {
    let fd: RawFd = status.as_raw_fd();
    let request = serde_json::to_string(request).layer("stage", "cannot pass the request on")?;
    Command::new(program)
        .args([ENTRY, stage, &fd.to_string(), &request])
        .env_clear()
        .spawn()
        .layer("stage", "cannot start the next process")
}
