//! Files by their hashes on this machine's disk, no more of them than there is room for.
//!
//! `blobs/<hash>` is a whole file, checked once, read-only; its time of change is when a job last used
//! it. `partial/<hash>` is what has come of one. `jobs/<attempt>/…` are hard links under the names a
//! worker looks for. One agent uses a folder; the lock on its state folder sees to that.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tritmark_proto::{
    artefact::{ContentHash, FileSet, NamedFile},
    job::AttemptId,
};

/// Why a file cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the job's files have {wanted_bytes} bytes, the cache takes {max_bytes} (--cache-size), \
         of which {used_bytes} are in use"
    )]
    NoRoom {
        wanted_bytes: u64,
        max_bytes: u64,
        used_bytes: u64,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io {
        action,
        path,
        source,
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    max_bytes: u64,
    /// How many jobs use a file.
    pins: Pins,
}

type Pins = Arc<Mutex<HashMap<ContentHash, u32>>>;

fn lock(pins: &Mutex<HashMap<ContentHash, u32>>) -> MutexGuard<'_, HashMap<ContentHash, u32>> {
    pins.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file of the cache, as eviction sees it.
struct Kept {
    path: PathBuf,
    used_at: SystemTime,
    bytes: u64,
}

impl Cache {
    /// Opens the folder, which is made where it is missing, and removes what jobs of an earlier life
    /// left linked.
    pub(crate) fn open(folder: PathBuf, max_bytes: u64) -> Result<Self, CacheError> {
        let jobs = folder.join("jobs");
        if jobs.exists() {
            fs::remove_dir_all(&jobs).map_err(failed("remove", &jobs))?;
        }
        for name in ["blobs", "partial", "jobs"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(failed("make", &path))?;
        }
        Ok(Self {
            folder,
            max_bytes,
            pins: Pins::default(),
        })
    }

    fn blob(&self, hash: ContentHash) -> PathBuf {
        self.folder.join("blobs").join(hash.to_string())
    }

    fn partial_path(&self, hash: ContentHash) -> PathBuf {
        self.folder.join("partial").join(hash.to_string())
    }

    /// Tells whether a file is there as a whole.
    pub(crate) fn has(&self, file: &NamedFile) -> bool {
        fs::metadata(self.blob(file.hash)).is_ok_and(|meta| meta.len() == file.size_bytes)
    }

    /// Holds a job's files, those that are there and those that will be, and makes room for the latter
    /// by removing what was not used for longest.
    pub(crate) fn reserve(
        &self,
        attempt: AttemptId,
        sets: &[FileSet],
    ) -> Result<InUse, CacheError> {
        let files: HashMap<ContentHash, &NamedFile> = sets
            .iter()
            .flat_map(FileSet::files)
            .map(|file| (file.hash, file))
            .collect();
        let name = format!(
            "{}-{}-{}-{}",
            attempt.job.run, attempt.job.index, attempt.attempt, attempt.fence
        );
        let in_use = InUse {
            cache: self.folder.clone(),
            folder: self.folder.join("jobs").join(name),
            pins: Arc::clone(&self.pins),
            hashes: files.keys().copied().collect(),
        };
        for hash in &in_use.hashes {
            *lock(&self.pins).entry(*hash).or_insert(0) += 1;
            // Used from now on. One that cannot be marked is merely removed earlier.
            let _ =
                File::open(self.blob(*hash)).and_then(|blob| blob.set_modified(SystemTime::now()));
        }
        let wanted_bytes = files.values().map(|file| file.size_bytes).sum();
        self.make_room(&in_use.hashes, wanted_bytes)?;
        Ok(in_use)
    }

    /// Removes what was not used for longest, until the job's own files fit beside the rest.
    fn make_room(&self, own: &[ContentHash], wanted_bytes: u64) -> Result<(), CacheError> {
        let own: HashSet<String> = own.iter().map(ToString::to_string).collect();
        let pinned: HashSet<String> = lock(&self.pins).keys().map(ToString::to_string).collect();
        let mut unused = Vec::new();
        let (mut unused_bytes, mut used_bytes) = (0, 0);
        for name in ["blobs", "partial"] {
            let folder = self.folder.join(name);
            for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
                let entry = entry.map_err(failed("list", &folder))?;
                let Ok(meta) = entry.metadata() else {
                    continue;
                };
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if own.contains(&*name) {
                    // Counts with the size it will have.
                } else if pinned.contains(&*name) {
                    used_bytes += meta.len();
                } else {
                    unused_bytes += meta.len();
                    unused.push(Kept {
                        path: entry.path(),
                        used_at: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                        bytes: meta.len(),
                    });
                }
            }
        }
        let needed = wanted_bytes.saturating_add(used_bytes);
        if needed > self.max_bytes {
            return Err(CacheError::NoRoom {
                wanted_bytes,
                max_bytes: self.max_bytes,
                used_bytes,
            });
        }
        unused.sort_by_key(|kept| kept.used_at);
        for Kept { path, bytes, .. } in unused {
            if unused_bytes + needed <= self.max_bytes {
                break;
            }
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            tracing::info!(path = %path.display(), bytes, "removed from the cache");
            unused_bytes -= bytes;
        }
        Ok(())
    }

    /// Opens what has come of a file, to go on with it.
    pub(crate) fn partial(&self, file: &NamedFile) -> Result<Partial, CacheError> {
        let path = self.partial_path(file.hash);
        let io = failed("read", &path);
        let open = || {
            let mut options = OpenOptions::new();
            let mut open = options
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)?;
            if open.metadata()?.len() > file.size_bytes {
                open.set_len(0)?;
            }
            let mut hasher = blake3::Hasher::new();
            let mut block = vec![0; 1 << 20];
            let mut offset = 0;
            loop {
                match open.read(&mut block)? {
                    0 => break,
                    n => {
                        hasher.update(&block[..n]);
                        offset += n as u64;
                    }
                }
            }
            Ok((open, hasher, offset))
        };
        let (open, hasher, offset) = open().map_err(io)?;
        Ok(Partial {
            path,
            blob: self.blob(file.hash),
            file: open,
            hasher,
            offset,
            is_resumed: offset > 0,
        })
    }
}

/// What has come of a file.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    blob: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    offset: u64,
    is_resumed: bool,
}

impl Partial {
    /// Returns how much has come.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Tells whether a part is from an earlier life, which a power cut may have spoilt.
    pub(crate) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Adds what came.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), CacheError> {
        let path = &self.path;
        self.file.write_all(data).map_err(failed("write", path))?;
        self.hasher.update(data);
        self.offset += data.len() as u64;
        Ok(())
    }

    /// Puts a whole file in its place, if its contents are those of its hash; removes it otherwise and
    /// returns false.
    pub(crate) fn finish(self, hash: ContentHash) -> Result<bool, CacheError> {
        let Self {
            path,
            blob,
            file,
            hasher,
            ..
        } = self;
        if ContentHash::from(hasher.finalize()) != hash {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            return Ok(false);
        }
        file.sync_all().map_err(failed("write", &path))?;
        file.set_permissions(Permissions::from_mode(0o444))
            .map_err(failed("protect", &path))?;
        fs::rename(&path, &blob).map_err(failed("move", &path))?;
        Ok(true)
    }
}

/// A job's files: none of them is removed as long as this lives.
#[derive(Debug)]
pub(crate) struct InUse {
    cache: PathBuf,
    folder: PathBuf,
    pins: Pins,
    hashes: Vec<ContentHash>,
}

impl InUse {
    /// Links a set's files as `<what>/<set>/<file>` and returns the set's folder.
    pub(crate) fn link(&self, what: &str, set: &FileSet) -> Result<PathBuf, CacheError> {
        let folder = self.folder.join(what).join(set.name().as_str());
        fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        for file in set.files() {
            let blob = self.cache.join("blobs").join(file.hash.to_string());
            let path = folder.join(file.name.as_str());
            match fs::hard_link(&blob, &path) {
                Ok(()) => {}
                // Left by an earlier try at the same attempt.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("link", &path)(error)),
            }
        }
        Ok(folder)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = fs::remove_dir_all(&self.folder);
        let mut pins = lock(&self.pins);
        for hash in &self.hashes {
            if let Some(count) = pins.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(hash);
                }
            }
        }
    }
}
