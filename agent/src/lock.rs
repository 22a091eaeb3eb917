//! The machine-wide lock: a performance job runs alone, accuracy jobs run beside each other.
//!
//! Two advisory file locks (`flock`) that every agent of the machine opens by the same path. The
//! lock itself is held exclusively by a performance job and shared by accuracy jobs. Who wants it
//! first takes the *turn* (`<path>.turn`), so that a stream of accuracy jobs cannot keep a
//! performance job waiting for ever. The kernel drops both when their holder dies.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, open, stat},
    io::Errno,
};

/// Variable that names another path.
pub const LOCK_VARIABLE: &str = "TRITMARK_LOCK";

/// How often a waiting agent looks; waiting must not disturb who is measuring.
const POLL: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 250 });

/// Returns `$TRITMARK_LOCK`, or the path every agent of this machine shares.
///
/// It does not follow `TMPDIR`, which may differ between the users of a machine.
pub fn default_path() -> PathBuf {
    std::env::var_os(LOCK_VARIABLE)
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from("/tmp/tritmark.lock"), PathBuf::from)
}

/// How a job holds the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing else of Tritmark runs.
    Exclusive,
    /// Other jobs that do not depend on time may run.
    Shared,
}

/// Why the lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be opened, made or locked.
    #[error("cannot {action} the machine lock {}", path.display())]
    Io {
        /// `open`, `make`, `lock`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What lies at the path is no file of its own.
    #[error("the machine lock {} is {found}, not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
}

/// The lock of one machine.
#[derive(Clone, Debug)]
pub struct MachineLock {
    path: PathBuf,
}

/// The machine, held until dropped.
#[derive(Debug)]
pub struct MachineGuard {
    _file: File,
}

impl MachineLock {
    /// The lock at `path`, see [`default_path`].
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Waits for the machine. Dropping the future gives up.
    ///
    /// `on_wait` is called once if someone else has the machine.
    pub async fn acquire(
        &self,
        hold: Hold,
        on_wait: impl FnOnce(),
    ) -> Result<MachineGuard, LockError> {
        let mut on_wait = Some(on_wait);
        let mut turn_path = self.path.clone().into_os_string();
        turn_path.push(".turn");
        let turn_path = PathBuf::from(turn_path);
        let _turn = poll(&turn_path, Hold::Exclusive, &mut on_wait).await?;
        let file = poll(&self.path, hold, &mut on_wait).await?;
        Ok(MachineGuard { _file: file })
    }
}

async fn poll(
    path: &Path,
    hold: Hold,
    on_wait: &mut Option<impl FnOnce()>,
) -> Result<File, LockError> {
    loop {
        if let Some(file) = try_lock(path, hold)? {
            return Ok(file);
        }
        if let Some(on_wait) = on_wait.take() {
            on_wait();
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Locks the file at `path`; `None` where another has it.
fn try_lock(path: &Path, hold: Hold) -> Result<Option<File>, LockError> {
    let failed = |action| {
        move |source: Errno| LockError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    };
    let file = open_shared(path)?;
    let operation = match hold {
        Hold::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Hold::Shared => FlockOperation::NonBlockingLockShared,
    };
    match flock(&file, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(failed("lock")(error)),
    }
    // Something that tidies the temporary folder may have removed the file in between; a lock on a
    // file that nobody else can open is none.
    let locked = fstat(&file).map_err(failed("look at"))?;
    match stat(path) {
        Ok(there) if (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino) => {
            Ok(Some(file))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed("look at")(error)),
    }
}

/// Opens a file that all users of the machine share, in a folder all may write to.
///
/// No link is followed, and nothing is ever written, so that a file planted there does no harm. An
/// existing file is opened without `O_CREAT`, which the kernel (`fs.protected_regular`) would
/// refuse for another user's file in a sticky folder.
fn open_shared(path: &Path) -> Result<File, LockError> {
    let failed = |action| {
        move |source: Errno| LockError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    };
    let not_a_file = |found| LockError::NotAFile {
        path: path.to_owned(),
        found,
    };
    let mode = Mode::from_raw_mode(0o666);
    let existing = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let new = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = loop {
        match open(path, existing, Mode::empty()) {
            Ok(file) => break file,
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => return Err(not_a_file("a symbolic link")),
            Err(error) => return Err(failed("open")(error)),
        }
        match open(path, new, mode) {
            Ok(file) => {
                // The umask has cut the mode.
                fchmod(&file, mode).map_err(failed("share"))?;
                break file;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make")(error)),
        }
    };
    let facts = fstat(&file).map_err(failed("look at"))?;
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile if facts.st_nlink <= 1 => Ok(File::from(file)),
        FileType::RegularFile => Err(not_a_file("a file with several names")),
        FileType::Directory => Err(not_a_file("a folder")),
        _ => Err(not_a_file("a device or pipe")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt as _, symlink},
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use tempfile::TempDir;

    use super::*;

    fn a_lock() -> (TempDir, MachineLock) {
        let folder = TempDir::new().unwrap();
        let lock = MachineLock::new(folder.path().join("tritmark.lock"));
        (folder, lock)
    }

    #[tokio::test]
    async fn two_performance_jobs_run_one_after_the_other() {
        let (_folder, lock) = a_lock();
        let inside = Arc::new(AtomicU32::new(0));
        let waited = Arc::new(AtomicU32::new(0));
        let job = |lock: MachineLock| {
            let (inside, waited) = (Arc::clone(&inside), Arc::clone(&waited));
            async move {
                let on_wait = || {
                    waited.fetch_add(1, Ordering::SeqCst);
                };
                let guard = lock.acquire(Hold::Exclusive, on_wait).await.unwrap();
                assert_eq!(
                    inside.fetch_add(1, Ordering::SeqCst),
                    0,
                    "the other one is inside"
                );
                tokio::time::sleep(10 * POLL).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(guard);
            }
        };
        tokio::join!(job(lock.clone()), job(lock.clone()), job(lock.clone()));
        assert_eq!(waited.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn accuracy_jobs_share_the_machine_but_not_with_a_performance_job() {
        let (_folder, lock) = a_lock();
        let unexpected = || panic!("nobody else is there");
        let first = lock.acquire(Hold::Shared, unexpected).await.unwrap();
        let second = lock.acquire(Hold::Shared, unexpected).await.unwrap();
        assert!(try_lock(&lock.path, Hold::Exclusive).unwrap().is_none());
        drop((first, second));
        let alone = lock.acquire(Hold::Exclusive, || ()).await.unwrap();
        assert!(try_lock(&lock.path, Hold::Shared).unwrap().is_none());
        drop(alone);
    }

    #[tokio::test]
    async fn a_waiting_performance_job_goes_before_later_accuracy_jobs() {
        let (_folder, lock) = a_lock();
        let running = lock.acquire(Hold::Shared, || ()).await.unwrap();
        let mut exclusive = Box::pin(lock.acquire(Hold::Exclusive, || ()));
        let soon = 10 * POLL;
        assert!(tokio::time::timeout(soon, &mut exclusive).await.is_err());
        let late = lock.acquire(Hold::Shared, || ());
        assert!(
            tokio::time::timeout(soon, late).await.is_err(),
            "the performance job is first"
        );
        drop(running);
        exclusive.await.unwrap();
    }

    #[tokio::test]
    async fn giving_up_waiting_leaves_the_turn_to_others() {
        let (_folder, lock) = a_lock();
        let running = lock.acquire(Hold::Shared, || ()).await.unwrap();
        let waiting = lock.acquire(Hold::Exclusive, || ());
        assert!(tokio::time::timeout(10 * POLL, waiting).await.is_err());
        // Not at once: a process started by another test may have a copy of the lock for a moment.
        let next = lock.acquire(Hold::Shared, || ());
        tokio::time::timeout(Duration::from_mins(1), next)
            .await
            .expect("the turn is free")
            .unwrap();
        drop(running);
    }

    #[test]
    fn every_user_may_open_the_lock() {
        let (_folder, lock) = a_lock();
        drop(try_lock(&lock.path, Hold::Shared).unwrap());
        let mode = std::fs::metadata(&lock.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
    }

    #[test]
    fn a_link_a_folder_and_a_second_name_are_refused() {
        let (folder, lock) = a_lock();
        let target = folder.path().join("precious");
        std::fs::write(&target, "kept").unwrap();
        symlink(&target, &lock.path).unwrap();
        let refusal = try_lock(&lock.path, Hold::Shared).unwrap_err().to_string();
        assert!(refusal.contains("a symbolic link"), "{refusal}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept");

        std::fs::remove_file(&lock.path).unwrap();
        std::fs::hard_link(&target, &lock.path).unwrap();
        let refusal = try_lock(&lock.path, Hold::Shared).unwrap_err().to_string();
        assert!(refusal.contains("several names"), "{refusal}");

        let refusal = try_lock(folder.path(), Hold::Shared).unwrap_err();
        assert!(refusal.to_string().contains("a folder"), "{refusal}");
    }

    #[test]
    fn a_removed_lock_file_is_made_again() {
        let (_folder, lock) = a_lock();
        let held = try_lock(&lock.path, Hold::Exclusive).unwrap().unwrap();
        std::fs::remove_file(&lock.path).unwrap();
        assert!(try_lock(&lock.path, Hold::Exclusive).unwrap().is_some());
        drop(held);
    }
}
