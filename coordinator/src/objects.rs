//! Where large things are kept: a folder or a bucket, each under the hash of its contents.
//!
//! `blobs/<first two digits>/<hash>` are files of any kind; they are never changed. `runs/<id>.json`
//! names those that a run's bundle consists of. Nothing here is the only copy of a measurement: those
//! are in the store.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{
    ObjectStore, ObjectStoreExt as _, WriteMultipart, local::LocalFileSystem, parse_url_opts,
    path::Path as Key,
};
use tritmark_proto::{artefact::ContentHash, job::RunId};
use url::Url;

#[cfg(test)]
mod s3;
#[cfg(test)]
mod tests;

/// What is sent and read at once.
pub(crate) const BLOCK_BYTES: u64 = 4 << 20;

/// Buckets take ten thousand parts of one object.
const MAX_PARTS: u64 = 9_000;

/// Least bytes of a part but the last; S3 asks for five million.
const MIN_PART_BYTES: u64 = 8 << 20;

/// Parts on their way at a time.
const PARTS_AT_ONCE: usize = 4;

/// Places objects can be kept in, by the beginnings of their URLs.
const SCHEMES: [&str; 7] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];

/// Variables that clouds' own tools are set up with.
const VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Why an object cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The place is none.
    #[error(
        "`{place}` is no place for objects: write file:///folder, s3://bucket, gs://bucket or az://container"
    )]
    NoPlace {
        /// What was given.
        place: String,
    },
    /// The place cannot be used.
    #[error("cannot use {place} for objects")]
    Open {
        /// The place.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object cannot be read or written.
    #[error("cannot {operation} the object {key}")]
    Object {
        /// What was tried.
        operation: &'static str,
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A local file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or an object is not what it should be.
    #[error("{what} has other contents than its hash {hash} says")]
    Changed {
        /// Which.
        what: String,
        /// What was expected.
        hash: ContentHash,
    },
}

/// A place for objects.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    place: String,
}

impl Objects {
    /// Opens `file:///folder`, which is made where it is missing, or `s3://bucket/prefix`,
    /// `gs://…`, `az://…`, with the settings in those clouds' usual environment variables.
    pub fn open(place: &str) -> Result<Self, ObjectsError> {
        let variables = std::env::vars()
            .filter(|(name, _)| VARIABLES.iter().any(|prefix| name.starts_with(prefix)));
        Self::open_with(place, variables)
    }

    /// As [`Self::open`], with settings from elsewhere.
    pub(crate) fn open_with(
        place: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ObjectsError> {
        let no_place = || ObjectsError::NoPlace {
            place: place.to_owned(),
        };
        if let Some(folder) = place.strip_prefix("file://") {
            if folder.is_empty() {
                return Err(no_place());
            }
            return Self::folder(Path::new(folder));
        }
        let url: Url = place.parse().map_err(|_| no_place())?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(no_place());
        }
        let (store, prefix) =
            parse_url_opts(&url, settings).map_err(|source| ObjectsError::Open {
                place: place.to_owned(),
                source: source.into(),
            })?;
        Ok(Self {
            store: Arc::from(store),
            prefix,
            place: place.to_owned(),
        })
    }

    /// Opens a folder, which is made where it is missing.
    pub fn folder(folder: &Path) -> Result<Self, ObjectsError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ObjectsError::Open {
            place: folder.display().to_string(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let store =
            LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(error.into()))?;
        Ok(Self {
            store: Arc::new(store),
            prefix: Key::default(),
            place: format!("file://{}", folder.display()),
        })
    }

    /// Returns the place as it was given.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn blob(&self, hash: ContentHash) -> Key {
        let hash = hash.to_string();
        self.prefix
            .clone()
            .join("blobs")
            .join(&hash[..2])
            .join(hash)
    }

    fn run(&self, run: RunId) -> Key {
        self.prefix.clone().join("runs").join(format!("{run}.json"))
    }

    /// Returns how large an object is; `None` where there is none.
    pub(crate) async fn size_bytes(&self, hash: ContentHash) -> Result<Option<u64>, ObjectsError> {
        let key = self.blob(hash);
        match self.store.head(&key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("find", &key, source)),
        }
    }

    /// Returns a part of an object, which must have so many bytes.
    pub(crate) async fn range(
        &self,
        hash: ContentHash,
        range: Range<u64>,
    ) -> Result<Bytes, ObjectsError> {
        let key = self.blob(hash);
        let n_bytes = range.end - range.start;
        let read = self.store.get_range(&key, range).await;
        let bytes = read.map_err(|source| failed("read", &key, source))?;
        if bytes.len() as u64 != n_bytes {
            return Err(ObjectsError::Changed {
                what: format!("the object {key}"),
                hash,
            });
        }
        Ok(bytes)
    }

    async fn get(&self, key: &Key) -> object_store::Result<Bytes> {
        self.store.get(key).await?.bytes().await
    }

    /// Returns a whole object whose contents are what its hash says.
    pub(crate) async fn read(&self, hash: ContentHash) -> Result<Bytes, ObjectsError> {
        let key = self.blob(hash);
        let bytes = self
            .get(&key)
            .await
            .map_err(|source| failed("read", &key, source))?;
        if ContentHash::of(&bytes) == hash {
            Ok(bytes)
        } else {
            Err(ObjectsError::Changed {
                what: format!("the object {key}"),
                hash,
            })
        }
    }

    /// Keeps bytes. What is there already is written over, so that what was spoilt is mended.
    pub(crate) async fn put(&self, bytes: Bytes) -> Result<ContentHash, ObjectsError> {
        let hash = ContentHash::of(&bytes);
        let key = self.blob(hash);
        let put = self.store.put(&key, bytes.into()).await;
        put.map_err(|source| failed("write", &key, source))?;
        Ok(hash)
    }

    /// Keeps a file's bytes, if their hash is the one given; else nothing.
    pub(crate) async fn put_file(
        &self,
        hash: ContentHash,
        path: &Path,
        size_bytes: u64,
    ) -> Result<(), ObjectsError> {
        if self.size_bytes(hash).await? == Some(size_bytes) {
            return Ok(());
        }
        let changed = || ObjectsError::Changed {
            what: path.display().to_string(),
            hash,
        };
        let key = self.blob(hash);
        let writes = |source| failed("write", &key, source);
        let mut blocks = Blocks::open(path).await?;
        let part_bytes = size_bytes.div_ceil(MAX_PARTS).max(MIN_PART_BYTES);
        if size_bytes <= part_bytes {
            // In one piece: most files of data and all but the weights of a model.
            let mut bytes = Vec::new();
            while let Some(block) = blocks.next().await? {
                bytes.extend_from_slice(&block);
                if bytes.len() as u64 > size_bytes {
                    return Err(changed());
                }
            }
            if ContentHash::of(&bytes) != hash {
                return Err(changed());
            }
            self.store.put(&key, bytes.into()).await.map_err(writes)?;
            return Ok(());
        }
        let upload = self.store.put_multipart(&key).await.map_err(writes)?;
        let mut write = WriteMultipart::new_with_chunk_size(upload, part_bytes as usize);
        let mut hasher = blake3::Hasher::new();
        let sent = async {
            while let Some(block) = blocks.next().await? {
                hasher.update(&block);
                let room = write.wait_for_capacity(PARTS_AT_ONCE).await;
                room.map_err(writes)?;
                write.put(block);
            }
            if ContentHash::from(hasher.finalize()) == hash {
                Ok(())
            } else {
                Err(changed())
            }
        };
        if let Err(error) = sent.await {
            // What cannot be given up either is cleared away by the bucket's own rules.
            let _ = write.abort().await;
            return Err(error);
        }
        write.finish().await.map_err(writes)?;
        Ok(())
    }

    /// Returns the objects that were last written before a time, in seconds since 1970.
    pub(crate) async fn written_before(
        &self,
        unix_s: i64,
    ) -> Result<Vec<ContentHash>, ObjectsError> {
        let folder = self.prefix.clone().join("blobs");
        let old = self
            .store
            .list(Some(&folder))
            .try_filter(|meta| std::future::ready(meta.last_modified.timestamp() < unix_s))
            // What somebody else has put there is theirs.
            .try_filter_map(|meta| {
                let hash = meta
                    .location
                    .filename()
                    .and_then(|name| name.parse::<ContentHash>().ok());
                std::future::ready(Ok(hash))
            });
        old.try_collect()
            .await
            .map_err(|source| failed("list", &folder, source))
    }

    /// Takes an object away. That it is gone already is no fault.
    pub(crate) async fn remove(&self, hash: ContentHash) -> Result<(), ObjectsError> {
        let key = self.blob(hash);
        match self.store.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("remove", &key, source)),
        }
    }

    /// Returns everything that was put down of runs.
    pub(crate) async fn run_texts(&self) -> Result<Vec<Bytes>, ObjectsError> {
        let folder = self.prefix.clone().join("runs");
        let listed: Vec<Key> = self
            .store
            .list(Some(&folder))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(|source| failed("list", &folder, source))?;
        let mut texts = Vec::with_capacity(listed.len());
        for key in listed {
            let text = self.get(&key).await;
            texts.push(text.map_err(|source| failed("read", &key, source))?);
        }
        Ok(texts)
    }

    /// Returns what was put down of a run.
    pub(crate) async fn run_text(&self, run: RunId) -> Result<Option<Bytes>, ObjectsError> {
        let key = self.run(run);
        match self.get(&key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("read", &key, source)),
        }
    }

    /// Puts something down of a run.
    pub(crate) async fn put_run_text(&self, run: RunId, text: Vec<u8>) -> Result<(), ObjectsError> {
        let key = self.run(run);
        let put = self.store.put(&key, text.into()).await;
        put.map(|_| ())
            .map_err(|source| failed("write", &key, source))
    }
}

fn failed(operation: &'static str, key: &Key, source: object_store::Error) -> ObjectsError {
    ObjectsError::Object {
        operation,
        key: key.to_string(),
        source,
    }
}

/// A file read block by block, beside the tasks.
struct Blocks {
    path: PathBuf,
    file: Option<File>,
}

impl Blocks {
    async fn open(path: &Path) -> Result<Self, ObjectsError> {
        let wanted = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || File::open(wanted)).await;
        let file = opened.map_err(io::Error::from).flatten();
        Ok(Self {
            path: path.to_owned(),
            file: Some(file.map_err(|source| unreadable(path, source))?),
        })
    }

    /// Returns the next block; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ObjectsError> {
        let Some(mut file) = self.file.take() else {
            return Ok(None);
        };
        let read = tokio::task::spawn_blocking(move || {
            let mut block = Vec::with_capacity(BLOCK_BYTES as usize);
            file.by_ref().take(BLOCK_BYTES).read_to_end(&mut block)?;
            Ok((file, block))
        });
        let read = read.await.map_err(io::Error::from).flatten();
        let (file, block) = read.map_err(|source| unreadable(&self.path, source))?;
        if block.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(block.into()))
    }
}

fn unreadable(path: &Path, source: io::Error) -> ObjectsError {
    ObjectsError::Read {
        path: path.display().to_string(),
        source,
    }
}
