//! From the paths a plan names to sets of files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::OwnedRwLockReadGuard;
use tritmark_proto::artefact::{ContentHash, FileName, FileSet, NamedFile, NoArtefact};

use super::Shelf;
use crate::objects::ObjectsError;

/// Files whose hashes are remembered; those of a large fleet's plans are far fewer.
const MAX_REMEMBERED: usize = 1 << 16;

/// Why files cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file leads out of the folders that may be read.
    #[error("{} leads out of the folders this coordinator may read", path.display())]
    Outside {
        /// Which.
        path: PathBuf,
    },
    /// The files make no set.
    #[error("{} cannot be registered", path.display())]
    Set {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: NoArtefact,
    },
    /// They cannot be kept.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The coordinator does not have a file that a submitter says it has.
    #[error("the file {hash} of {} was not sent before the plan", path.display())]
    NotSent {
        /// The plan's path.
        path: PathBuf,
        /// The file.
        hash: ContentHash,
    },
}

/// A file or folder as a set, and where each file is.
#[derive(Clone, Debug)]
pub struct Described {
    /// The set.
    pub files: FileSet,
    /// Paths in the set's order.
    pub paths: Vec<PathBuf>,
}

/// Reads a file, or all files that lie in a folder, and hashes them. Folders in it and hidden files
/// are left out; links are followed.
///
/// # Errors
/// Something cannot be read, or has a name that cannot be handed on.
pub fn describe(path: &Path) -> Result<Described, RegisterError> {
    describe_with(path, |path| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(hasher.finalize().into())
    })
}

fn describe_with(
    path: &Path,
    mut hash: impl FnMut(&Path) -> io::Result<ContentHash>,
) -> Result<Described, RegisterError> {
    let unreadable = |path: &Path, source| RegisterError::Read {
        path: path.to_owned(),
        source,
    };
    let no_set = |source| RegisterError::Set {
        path: path.to_owned(),
        source,
    };
    let meta = fs::metadata(path).map_err(|source| unreadable(path, source))?;
    let mut paths = Vec::new();
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(|source| unreadable(path, source))? {
            let entry = entry.map_err(|source| unreadable(path, source))?;
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            // Follows links: what a download tool keeps elsewhere is a part of the model.
            let is_file = fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file());
            if is_file && !is_hidden {
                paths.push(entry.path());
            }
        }
        paths.sort();
    } else {
        paths.push(path.to_owned());
    }
    let mut files = Vec::new();
    for path in &paths {
        let size = fs::metadata(path).map_err(|source| unreadable(path, source))?;
        files.push(NamedFile {
            name: name_of(path).map_err(no_set)?,
            hash: hash(path).map_err(|source| unreadable(path, source))?,
            size_bytes: size.len(),
        });
    }
    // `x/..` has no name of its own.
    let named = match path.file_name() {
        Some(_) => path.to_owned(),
        None => fs::canonicalize(path).map_err(|source| unreadable(path, source))?,
    };
    let name = name_of(&named).map_err(no_set)?;
    let files = FileSet::new(name, !meta.is_dir(), files).map_err(no_set)?;
    Ok(Described { files, paths })
}

fn name_of(path: &Path) -> Result<FileName, NoArtefact> {
    let name = path.file_name().unwrap_or_default();
    // What is not UTF-8 gets a sign that says so, and stays one plain name.
    name.to_string_lossy().into_owned().try_into()
}

/// Folders that may be read, and the hashes of files in them.
#[derive(Debug)]
pub(super) struct Readable {
    folders: Vec<PathBuf>,
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

/// What a file looked like when it was hashed.
#[derive(Clone, Copy, Debug)]
struct Known {
    size_bytes: u64,
    modified: SystemTime,
    hash: ContentHash,
}

impl Readable {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            known: Mutex::default(),
        }
    }

    /// Tells whether a path, with all links followed, lies in one of the folders.
    fn holds(&self, path: &Path) -> bool {
        let Ok(real) = fs::canonicalize(path) else {
            return false;
        };
        let folders = self.folders.iter();
        let mut folders = folders.filter_map(|folder| fs::canonicalize(folder).ok());
        folders.any(|folder| real.starts_with(folder))
    }

    fn describe(&self, path: &Path) -> Result<Described, RegisterError> {
        let described = describe_with(path, |file| {
            if self.holds(file) {
                self.hash(file)
            } else {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        });
        match described {
            Err(RegisterError::Read { path, source })
                if source.kind() == io::ErrorKind::PermissionDenied && !self.holds(&path) =>
            {
                Err(RegisterError::Outside { path })
            }
            described => described,
        }
    }

    /// Hashes a file, unless it looks as it did when it was hashed before.
    fn hash(&self, path: &Path) -> io::Result<ContentHash> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let (size_bytes, modified) = (meta.len(), meta.modified()?);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known().get(path)
            && (known.size_bytes, known.modified) == (size_bytes, modified)
        {
            return Ok(known.hash);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        let hash = hasher.finalize().into();
        let mut known = known();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(
            path.to_owned(),
            Known {
                size_bytes,
                modified,
                hash,
            },
        );
        Ok(hash)
    }
}

/// What stands for a plan's paths. None of it is taken away while this is held.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) files: BTreeMap<PathBuf, FileSet>,
    _naming: OwnedRwLockReadGuard<()>,
}

impl Shelf {
    /// Returns what stands for the paths of a plan: what its submitter has sent, and what lies in the
    /// folders that may be read, which is kept for agents if it is `for_agents`. The other paths are left
    /// to the agents.
    pub(crate) async fn register(
        self: &std::sync::Arc<Self>,
        paths: Vec<PathBuf>,
        sent: BTreeMap<PathBuf, FileSet>,
        for_agents: bool,
    ) -> Result<Registered, RegisterError> {
        let naming = std::sync::Arc::clone(&self.naming).read_owned().await;
        let mut files = BTreeMap::new();
        for path in paths {
            if let Some(set) = sent.get(&path) {
                self.check_sent(&path, set).await?;
                files.insert(path, set.clone());
            } else if let Some(described) = self.local(&path).await? {
                if for_agents {
                    self.keep(&described).await?;
                }
                files.insert(path, described.files);
            }
        }
        Ok(Registered {
            files,
            _naming: naming,
        })
    }

    async fn check_sent(&self, path: &Path, files: &FileSet) -> Result<(), RegisterError> {
        for file in files.files() {
            if self.objects.size_bytes(file.hash).await? != Some(file.size_bytes) {
                return Err(RegisterError::NotSent {
                    path: path.to_owned(),
                    hash: file.hash,
                });
            }
        }
        Ok(())
    }

    /// Looks for a path in the folders that may be read; `None` where it lies in none of them.
    async fn local(
        self: &std::sync::Arc<Self>,
        path: &Path,
    ) -> Result<Option<Described>, RegisterError> {
        if self.readable.folders.is_empty() {
            return Ok(None);
        }
        let held = std::sync::Arc::clone(self);
        let wanted = path.to_owned();
        let described = tokio::task::spawn_blocking(move || {
            let readable = &held.readable;
            readable.holds(&wanted).then(|| readable.describe(&wanted))
        });
        described
            .await
            .map_err(|error| RegisterError::Read {
                path: path.to_owned(),
                source: error.into(),
            })?
            .transpose()
    }

    /// Keeps files where agents can have them.
    async fn keep(&self, described: &Described) -> Result<(), RegisterError> {
        for (file, path) in described.files.files().iter().zip(&described.paths) {
            self.objects
                .put_file(file.hash, path, file.size_bytes)
                .await?;
        }
        Ok(())
    }
}
