//! The agent's state folder: its id, and the lock that keeps a second agent out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use uuid::Uuid;

const ID_FILE: &str = "agent_id";
pub(crate) const LOCK_FILE: &str = "lock";
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent uses it.
    #[error("another agent uses the state folder {}", .0.display())]
    InUse(PathBuf),
    /// Its id file holds something else.
    #[error("{} holds no agent id: `{found}`", path.display())]
    NoId {
        /// The file.
        path: PathBuf,
        /// Its beginning.
        found: String,
    },
    /// The disk fails.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `make`, `read`, …
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A state folder in use by this process.
#[derive(Debug)]
pub(crate) struct State {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// Who the agent is, over all its starts.
    pub(crate) agent_id: Uuid,
    _lock: File,
}

impl State {
    /// Opens the folder, making it and the id where they are missing.
    pub(crate) fn open(folder: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let lock_path = folder.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        let mut tries = 0;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // A child of the last holder has its descriptors for a moment, until it execs.
                Err(Errno::WOULDBLOCK) if tries < LOCK_TRIES => {
                    tries += 1;
                    thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::WOULDBLOCK) => return Err(StateError::InUse(folder.to_owned())),
                Err(error) => return Err(failed("lock", &lock_path)(error.into())),
            }
        }
        // Whoever wants this agent to leave finds it by this.
        let named = lock
            .set_len(0)
            .and_then(|()| writeln!(&lock, "{}", std::process::id()));
        named.map_err(failed("write", &lock_path))?;
        Ok(Self {
            folder: folder.to_owned(),
            agent_id: agent_id(folder)?,
            _lock: lock,
        })
    }
}

fn agent_id(folder: &Path) -> Result<Uuid, StateError> {
    let path = folder.join(ID_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| StateError::NoId {
            path,
            found: text.chars().take(60).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::now_v7();
            write_durably(folder, &path, &format!("{id}\n"))?;
            Ok(id)
        }
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Writes a file that is either there as a whole or not at all.
fn write_durably(folder: &Path, path: &Path, text: &str) -> Result<(), StateError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn an_agent_keeps_its_id_over_its_starts() {
        let folder = TempDir::new().unwrap();
        let inner = folder.path().join("a/b");
        let first = State::open(&inner).unwrap().agent_id;
        assert_eq!(State::open(&inner).unwrap().agent_id, first);
    }

    #[test]
    fn two_agents_cannot_share_a_state_folder() {
        let folder = TempDir::new().unwrap();
        let first = State::open(folder.path()).unwrap();
        let refusal = State::open(folder.path()).unwrap_err();
        assert!(matches!(refusal, StateError::InUse(_)), "{refusal}");
        drop(first);
        State::open(folder.path()).unwrap();
    }

    #[test]
    fn an_id_file_with_something_else_is_named() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(ID_FILE), "hello").unwrap();
        let refusal = State::open(folder.path()).unwrap_err().to_string();
        assert!(
            refusal.contains("agent_id") && refusal.contains("`hello`"),
            "{refusal}"
        );
    }
}
