//! Files that have come in part: `<folder>/<hash>.part`, until they are whole.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tritmark_proto::artefact::ContentHash;

/// What nobody went on with for so long is given up.
const KEEP: Duration = Duration::from_hours(7 * 24);

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagingError {
    #[error("somebody else sends {hash}")]
    Busy { hash: ContentHash },
    #[error("{hash} goes on at {have_bytes} and not at {offset}")]
    Offset {
        hash: ContentHash,
        have_bytes: u64,
        offset: u64,
    },
    #[error("only {have_bytes} of {size_bytes} bytes of {hash} came")]
    Short {
        hash: ContentHash,
        have_bytes: u64,
        size_bytes: u64,
    },
    #[error("more than the {size_bytes} bytes of {hash} came")]
    Long { hash: ContentHash, size_bytes: u64 },
    #[error("cannot write {}", path.display())]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The folder, and what is being written in it.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    busy: Arc<Mutex<HashSet<ContentHash>>>,
}

impl Staging {
    /// Opens the folder, which is made where it is missing; what is too old in it is removed.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let now = SystemTime::now();
        for entry in fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            let is_part = path.extension().is_some_and(|ending| ending == "part");
            let age = entry.metadata().and_then(|meta| meta.modified());
            let age = age.map(|at| now.duration_since(at).unwrap_or_default());
            if is_part && age.is_ok_and(|age| age > KEEP) {
                // If it cannot be removed, it only takes room.
                let _ = fs::remove_file(path);
            }
        }
        Ok(Self {
            folder,
            busy: Arc::default(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, hash: ContentHash) -> PathBuf {
        self.folder.join(format!("{hash}.part"))
    }

    /// Returns how much of a file has come.
    pub(super) fn have_bytes(&self, hash: ContentHash) -> u64 {
        fs::metadata(self.path(hash)).map_or(0, |meta| meta.len())
    }

    /// Goes on with a file, or begins it.
    pub(super) async fn begin(
        &self,
        hash: ContentHash,
        size_bytes: u64,
        offset: u64,
    ) -> Result<Staged, StagingError> {
        let claim = Claim::new(Arc::clone(&self.busy), hash)?;
        let path = self.path(hash);
        let have_bytes = self.have_bytes(hash);
        // A beginning may be made anew at any time.
        if offset != have_bytes && offset != 0 {
            return Err(StagingError::Offset {
                hash,
                have_bytes,
                offset,
            });
        }
        if offset > size_bytes {
            return Err(StagingError::Long { hash, size_bytes });
        }
        let opened = blocking({
            let path = path.clone();
            move || {
                let mut options = OpenOptions::new();
                options
                    .create(true)
                    .append(true)
                    .open(path)
                    .and_then(|file| {
                        file.set_len(offset)?;
                        Ok(file)
                    })
            }
        });
        let file = opened.await.map_err(|source| StagingError::Disk {
            path: path.clone(),
            source,
        })?;
        Ok(Staged {
            hash,
            path,
            file: Some(file),
            have_bytes: offset,
            size_bytes,
            _claim: claim,
        })
    }
}

/// A file that somebody sends.
#[derive(Debug)]
pub(super) struct Staged {
    hash: ContentHash,
    path: PathBuf,
    file: Option<File>,
    have_bytes: u64,
    size_bytes: u64,
    _claim: Claim,
}

impl Staged {
    /// Adds what came.
    pub(super) async fn append(&mut self, data: Vec<u8>) -> Result<(), StagingError> {
        let n_bytes = data.len() as u64;
        if n_bytes > self.size_bytes - self.have_bytes {
            return Err(StagingError::Long {
                hash: self.hash,
                size_bytes: self.size_bytes,
            });
        }
        let mut file = self.file.take().ok_or_else(|| self.disk(lost()))?;
        // A full disk may take a part of it: that is a part of the file, and the next try begins behind.
        let written = blocking(move || file.write_all(&data).map(|()| file));
        self.file = Some(written.await.map_err(|source| self.disk(source))?);
        self.have_bytes += n_bytes;
        Ok(())
    }

    /// Ends the file and returns where it is.
    pub(super) fn finish(&mut self) -> Result<PathBuf, StagingError> {
        if self.have_bytes < self.size_bytes {
            return Err(StagingError::Short {
                hash: self.hash,
                have_bytes: self.have_bytes,
                size_bytes: self.size_bytes,
            });
        }
        self.file = None;
        Ok(self.path.clone())
    }

    /// Removes the file.
    pub(super) fn forget(&self) {
        // If it cannot be removed, it only takes room.
        let _ = fs::remove_file(&self.path);
    }

    fn disk(&self, source: io::Error) -> StagingError {
        StagingError::Disk {
            path: self.path.clone(),
            source,
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("an earlier write failed")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::from)
        .flatten()
}

/// That nobody else writes the file.
#[derive(Debug)]
struct Claim {
    busy: Arc<Mutex<HashSet<ContentHash>>>,
    hash: ContentHash,
}

impl Claim {
    fn new(
        busy: Arc<Mutex<HashSet<ContentHash>>>,
        hash: ContentHash,
    ) -> Result<Self, StagingError> {
        if lock(&busy).insert(hash) {
            Ok(Self { busy, hash })
        } else {
            Err(StagingError::Busy { hash })
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.busy).remove(&self.hash);
    }
}

fn lock(busy: &Mutex<HashSet<ContentHash>>) -> MutexGuard<'_, HashSet<ContentHash>> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}
