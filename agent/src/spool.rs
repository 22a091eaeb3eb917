//! What was measured, kept on disk until the coordinator has stored it.
//!
//! One file an attempt, in `<state>/spool/`. Its name is the attempt's; it holds frames
//! (`frame`): records in order of their sequence, how far the coordinator has acknowledged them,
//! and at last how the job ended. A frame is appended, made durable with many others by one
//! `fdatasync`, and only then sent. After a crash the torn end of a file is found by its checksums
//! and cut off.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prost::Message as _;
use tritmark_proto::{
    job::{AttemptId, JobId, RunId},
    wire,
};

mod frame;
#[cfg(test)]
mod tests;

pub use frame::MAX_PAYLOAD_BYTES;
use frame::{Content, Kind};

/// Folder of the spool inside the state folder.
const FOLDER: &str = "spool";
const EXTENSION: &str = "spool";

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// All attempts together are as large as they may be.
    #[error("the spool is full: {used_bytes} of {max_bytes} bytes wait for the coordinator")]
    Full {
        /// Bytes in use.
        used_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A record is larger than a message of the link may be.
    #[error(
        "record {sequence} has {bytes} bytes, more than the {MAX_PAYLOAD_BYTES} the link takes"
    )]
    TooLarge {
        /// The record's sequence.
        sequence: u64,
        /// Its encoded size.
        bytes: usize,
    },
    /// A file was written by a newer agent.
    #[error("the spool file {} has format {version}, this agent knows {}", path.display(), frame::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The disk fails.
    #[error("cannot {action} the spool file {}", path.display())]
    Io {
        /// `write`, `read`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The folder of all attempts that are not acknowledged.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    max_bytes: u64,
    used_bytes: Arc<AtomicU64>,
}

/// One attempt's file.
#[derive(Debug)]
pub struct AttemptSpool {
    path: PathBuf,
    file: Arc<File>,
    key: [u8; 32],
    /// Where each record's frame starts; the index is the sequence.
    offsets: Vec<u64>,
    /// Where the last record's frame ends.
    records_end: u64,
    /// Length of the whole frames.
    length: u64,
    durable_length: u64,
    /// Length at the last flush; acknowledgements after it may be lost.
    flushed_length: u64,
    durable_below: u64,
    stored_below: u64,
    finished: Option<wire::JobFinished>,
    cut_bytes: u64,
    is_frozen: bool,
    max_bytes: u64,
    used_bytes: Arc<AtomicU64>,
}

/// What one `fdatasync` will make durable; run it where blocking does no harm.
#[derive(Debug)]
pub struct Flush {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
    below: u64,
}

/// Proof of a done [`Flush`].
#[derive(Debug)]
pub struct Flushed {
    length: u64,
    below: u64,
}

impl Spool {
    /// Opens the spool of a state folder, with at most `max_bytes` in all files together.
    pub fn open(state_dir: &Path, max_bytes: u64) -> Result<Self, SpoolError> {
        let folder = state_dir.join(FOLDER);
        fs::create_dir_all(&folder).map_err(failed("make the folder of", &folder))?;
        sync_folder(state_dir)?;
        Ok(Self {
            folder,
            max_bytes,
            used_bytes: Arc::default(),
        })
    }

    /// Makes an attempt's file, durably.
    pub fn create(&self, attempt: AttemptId) -> Result<AttemptSpool, SpoolError> {
        let path = self.folder.join(file_name(attempt));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("make", &path))?;
        file.write_all(&frame::HEADER)
            .and_then(|()| file.sync_all())
            .map_err(failed("write", &path))?;
        sync_folder(&self.folder)?;
        let length = frame::HEADER.len() as u64;
        self.used_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(self.attempt_spool(path, file, attempt, length))
    }

    fn attempt_spool(
        &self,
        path: PathBuf,
        file: File,
        attempt: AttemptId,
        length: u64,
    ) -> AttemptSpool {
        AttemptSpool {
            path,
            file: Arc::new(file),
            key: frame::key(attempt),
            offsets: Vec::new(),
            records_end: length,
            length,
            durable_length: length,
            flushed_length: length,
            durable_below: 0,
            stored_below: 0,
            finished: None,
            cut_bytes: 0,
            is_frozen: false,
            max_bytes: self.max_bytes,
            used_bytes: Arc::clone(&self.used_bytes),
        }
    }

    /// Reads what an earlier agent left, oldest run first, and cuts off torn ends.
    ///
    /// A file that cannot be read is reported and left alone.
    pub fn recover(&self) -> (Vec<(AttemptId, AttemptSpool)>, Vec<SpoolError>) {
        let mut found = Vec::new();
        let mut errors = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                errors.push(failed("list the folder of", &self.folder)(error));
                return (found, errors);
            }
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        for name in names {
            let Some(attempt) = attempt_of(&name) else {
                continue;
            };
            match self.read(attempt, self.folder.join(&name)) {
                Ok(spool) => found.push((attempt, spool)),
                Err(error) => errors.push(error),
            }
        }
        (found, errors)
    }

    fn read(&self, attempt: AttemptId, path: PathBuf) -> Result<AttemptSpool, SpoolError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        let file_length = file.metadata().map_err(failed("look at", &path))?.len();
        let mut header = Vec::new();
        (&mut file)
            .take(frame::HEADER.len() as u64)
            .read_to_end(&mut header)
            .map_err(failed("read", &path))?;
        match frame::version(&header) {
            Some(frame::VERSION) => {}
            Some(version) => return Err(SpoolError::Version { path, version }),
            // Torn at its very start: nothing was ever sent from it.
            None => {
                file.set_len(0).map_err(failed("mend", &path))?;
                file.write_all_at(&frame::HEADER, 0)
                    .map_err(failed("mend", &path))?;
            }
        }
        let start = frame::HEADER.len() as u64;
        let mut spool = self.attempt_spool(path, file, attempt, start);
        let end = if header == frame::HEADER {
            file_length
        } else {
            start
        };
        while let Some((content, next)) = spool.read_frame(spool.length, end)? {
            match content {
                Content::Record(record)
                    if spool.finished.is_none()
                        && record.sequence == spool.offsets.len() as u64 =>
                {
                    spool.offsets.push(spool.length);
                    spool.records_end = next;
                }
                Content::StoredBelow(below) if below <= spool.offsets.len() as u64 => {
                    spool.stored_below = below;
                }
                Content::Finished(finished) if finished.n_records == spool.offsets.len() as u64 => {
                    spool.finished = Some(finished);
                }
                // A whole frame that does not follow what stands before it: no agent wrote that.
                Content::Record(_) | Content::StoredBelow(_) | Content::Finished(_) => break,
            }
            spool.length = next;
        }
        spool.cut_bytes = file_length.saturating_sub(spool.length);
        spool.truncate(spool.length)?;
        spool
            .file
            .sync_all()
            .map_err(failed("write", &spool.path))?;
        spool.durable_length = spool.length;
        spool.flushed_length = spool.length;
        spool.durable_below = spool.offsets.len() as u64;
        self.used_bytes.fetch_add(spool.length, Ordering::Relaxed);
        Ok(spool)
    }
}

impl AttemptSpool {
    /// Returns how many records are kept.
    pub fn n_records(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// Returns the sequence below which every record survives a crash.
    pub fn durable_below(&self) -> u64 {
        self.durable_below
    }

    /// Returns the sequence below which the coordinator has every record.
    pub fn stored_below(&self) -> u64 {
        self.stored_below
    }

    /// Returns the file, and the length up to which it was made durable.
    pub(crate) fn flushed_length(&self) -> (&Path, u64) {
        (&self.path, self.flushed_length)
    }

    /// Returns how the job ended, once that is written.
    pub fn finished(&self) -> Option<&wire::JobFinished> {
        self.finished.as_ref()
    }

    /// Returns the bytes that had to be cut off when the file was read again.
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// Tells whether everything survives a crash.
    pub fn is_durable(&self) -> bool {
        self.durable_length == self.length
    }

    /// Returns how many records a [`Flush`] would make durable, and whether it would the end.
    pub fn undurable(&self) -> (u64, bool) {
        if self.is_frozen {
            return (0, false);
        }
        let is_end = self.finished.is_some() && !self.is_durable();
        (self.n_records() - self.durable_below, is_end)
    }

    /// Appends the next record. It survives a crash only after a [`Flush`].
    pub fn append(&mut self, record: &wire::Record) -> Result<(), SpoolError> {
        debug_assert_eq!(record.sequence, self.n_records(), "records come in order");
        let payload = record.encode_to_vec();
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(SpoolError::TooLarge {
                sequence: record.sequence,
                bytes: payload.len(),
            });
        }
        let used_bytes = self.used_bytes.load(Ordering::Relaxed);
        if used_bytes + payload.len() as u64 > self.max_bytes {
            return Err(SpoolError::Full {
                used_bytes,
                max_bytes: self.max_bytes,
            });
        }
        let offset = self.length;
        self.write(Kind::Record, &payload)?;
        self.offsets.push(offset);
        self.records_end = self.length;
        Ok(())
    }

    /// Appends how the job ended; nothing follows. The limit of the spool does not hold for this.
    pub fn finish(&mut self, finished: wire::JobFinished) -> Result<(), SpoolError> {
        debug_assert_eq!(finished.n_records, self.n_records(), "all records are in");
        self.write(Kind::Finished, &finished.encode_to_vec())?;
        self.finished = Some(finished);
        Ok(())
    }

    /// Notes that the coordinator has every record below `below`, so that they are not sent again.
    ///
    /// What it says last counts: a lower number than before comes from a coordinator that has lost
    /// some, e.g. with its disk.
    ///
    /// Losing this costs a needless sending, so it is not made durable by itself.
    pub fn acknowledge(&mut self, below: u64) -> Result<(), SpoolError> {
        let below = below.min(self.durable_below);
        if below == self.stored_below {
            return Ok(());
        }
        self.stored_below = below;
        let was_durable = self.is_durable();
        self.write(Kind::StoredBelow, &below.to_le_bytes())?;
        if was_durable {
            self.durable_length = self.length;
        }
        Ok(())
    }

    /// Reads records from `from` on: at least one if there is a durable one, then as many as fit
    /// into `max_records` and `max_bytes`.
    pub fn batch(
        &self,
        from: u64,
        max_records: usize,
        max_bytes: u64,
    ) -> Result<Vec<wire::Record>, SpoolError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for sequence in from..self.durable_below {
            let start = self.offsets[sequence as usize];
            let end = self
                .offsets
                .get(sequence as usize + 1)
                .map_or(self.records_end, |end| *end);
            bytes += end - start;
            if !records.is_empty() && (records.len() == max_records || bytes > max_bytes) {
                break;
            }
            match self.read_frame(start, self.length)? {
                Some((Content::Record(record), _)) if record.sequence == sequence => {
                    records.push(record);
                }
                _ => {
                    let source = io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("record {sequence} at offset {start} has changed"),
                    );
                    return Err(failed("read", &self.path)(source));
                }
            }
        }
        Ok(records)
    }

    /// Returns what makes everything written so far durable; `None` where it is.
    pub fn flush(&self) -> Option<Flush> {
        (!self.is_durable() && !self.is_frozen).then(|| Flush {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            length: self.length,
            below: self.n_records(),
        })
    }

    /// Takes note of a done [`Flush`].
    pub fn flushed(&mut self, flushed: &Flushed) {
        self.durable_length = self.durable_length.max(flushed.length);
        self.flushed_length = self.flushed_length.max(flushed.length);
        self.durable_below = self.durable_below.max(flushed.below);
    }

    /// Gives up what is not durable: nothing more is written or flushed after a failure of the disk.
    ///
    /// After a failed `fdatasync` the kernel may have thrown the pages away, so trying again would
    /// prove nothing.
    pub fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// Forgets the attempt.
    pub fn remove(self) -> Result<(), SpoolError> {
        fs::remove_file(&self.path).map_err(failed("remove", &self.path))?;
        self.used_bytes.fetch_sub(self.length, Ordering::Relaxed);
        self.path.parent().map_or(Ok(()), sync_folder)
    }

    fn write(&mut self, kind: Kind, payload: &[u8]) -> Result<(), SpoolError> {
        if self.is_frozen {
            let source = io::Error::other("an earlier write failed");
            return Err(failed("write", &self.path)(source));
        }
        let bytes = frame::encode(&self.key, self.length, kind, payload);
        if let Err(error) = self.file.write_all_at(&bytes, self.length) {
            // What was written of it would be cut off after a crash; now it is overwritten.
            self.truncate(self.length).ok();
            return Err(failed("write", &self.path)(error));
        }
        self.length += bytes.len() as u64;
        self.used_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn truncate(&self, length: u64) -> Result<(), SpoolError> {
        self.file.set_len(length).map_err(failed("cut", &self.path))
    }

    /// Reads the frame at `offset` of a file of `end` bytes, and where the next one starts.
    ///
    /// `None`: no whole frame is there.
    fn read_frame(&self, offset: u64, end: u64) -> Result<Option<(Content, u64)>, SpoolError> {
        let mut head = [0; frame::HEAD_BYTES];
        if end.saturating_sub(offset) < head.len() as u64 {
            return Ok(None);
        }
        let read = failed("read", &self.path);
        self.file.read_exact_at(&mut head, offset).map_err(&read)?;
        let payload_start = offset + head.len() as u64;
        let Some(length) = frame::payload_length(&head) else {
            return Ok(None);
        };
        if end - payload_start < length as u64 {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        self.file
            .read_exact_at(&mut payload, payload_start)
            .map_err(&read)?;
        Ok(frame::decode(&self.key, offset, &head, &payload)
            .map(|content| (content, payload_start + length as u64)))
    }
}

impl Flush {
    /// Makes it durable; blocks.
    pub fn run(self) -> Result<Flushed, SpoolError> {
        self.file.sync_data().map_err(failed("write", &self.path))?;
        Ok(Flushed {
            length: self.length,
            below: self.below,
        })
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// Makes a new or removed name durable.
fn sync_folder(folder: &Path) -> Result<(), SpoolError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("write the folder of", folder))
}

fn file_name(attempt: AttemptId) -> String {
    let AttemptId {
        job: JobId { run, index },
        attempt,
        fence,
    } = attempt;
    format!("{run}.{index}.{attempt}.{fence}.{EXTENSION}")
}

fn attempt_of(name: &str) -> Option<AttemptId> {
    let mut parts = name.split('.');
    let attempt = AttemptId {
        job: JobId {
            run: parts.next()?.parse::<RunId>().ok()?,
            index: parts.next()?.parse().ok()?,
        },
        attempt: parts.next()?.parse().ok()?,
        fence: parts.next()?.parse().ok()?,
    };
    // Only the name this agent would give, so that no two files are the same attempt.
    (file_name(attempt) == name).then_some(attempt)
}
