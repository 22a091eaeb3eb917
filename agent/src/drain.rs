//! Tells an agent on this machine to finish its job and leave.
//!
//! By a signal (`SIGUSR1`) to the process that holds the state folder's lock, whose id is in it. Unlike
//! `SIGTERM`, it may be sent twice: the job in hand is never ended by it.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::state::LOCK_FILE;

/// Why an agent cannot be told to leave.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Nobody uses the folder.
    #[error("no agent uses the state folder {}", .0.display())]
    NotRunning(PathBuf),
    /// The lock does not say who holds it.
    #[error("{} does not say which process holds it: `{found}`", path.display())]
    Unnamed {
        /// The lock.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `open`, `signal the holder of`, …
        action: &'static str,
        /// The lock.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An agent that was told to leave.
#[derive(Debug)]
pub struct Leaving {
    lock: File,
    path: PathBuf,
}

impl Leaving {
    /// Waits until it has left. Blocks.
    pub fn wait(self) -> Result<(), DrainError> {
        let Self { lock, path } = self;
        loop {
            match flock(&lock, FlockOperation::LockShared) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed("wait for", &path)(error.into())),
            }
        }
    }
}

/// Tells the agent that uses a state folder to finish its job and leave. Telling it twice is harmless.
pub fn drain_agent(state_dir: &Path) -> Result<Leaving, DrainError> {
    let path = state_dir.join(LOCK_FILE);
    let lock = match OpenOptions::new().read(true).open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DrainError::NotRunning(state_dir.to_owned()));
        }
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let is_held = || match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            // An agent that starts just now tries again.
            let _ = flock(&lock, FlockOperation::Unlock);
            Ok(false)
        }
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(failed("look at", &path)(error.into())),
    };
    let not_running = || DrainError::NotRunning(state_dir.to_owned());
    if !is_held()? {
        return Err(not_running());
    }
    let text = io::read_to_string(&lock).map_err(failed("read", &path))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| DrainError::Unnamed {
        path: path.clone(),
        found: text.chars().take(60).collect(),
    })?;
    let signalled = failed("signal the holder of", &path);
    // While the lock is held the process is there, and what was opened is it.
    let process = pidfd_open(pid, PidfdFlags::empty());
    if !is_held()? {
        return Err(not_running());
    }
    let sent = process.and_then(|process| pidfd_send_signal(process, Signal::USR1));
    sent.map_err(|error| signalled(error.into()))?;
    Ok(Leaving { lock, path })
}

/// Lets the agent of this process be told; to be called before its folder names the process.
pub(crate) fn listen(
    leave: CancellationToken,
) -> io::Result<impl Future<Output = std::convert::Infallible>> {
    let mut told = signal(SignalKind::user_defined1())?;
    Ok(async move {
        while told.recv().await.is_some() {
            tracing::info!("told to leave");
            leave.cancel();
        }
        std::future::pending().await
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DrainError {
    let path = path.to_owned();
    move |source| DrainError::Io {
        action,
        path,
        source,
    }
}
