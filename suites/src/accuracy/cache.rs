//! Items that were evaluated before, kept between runs.
//!
//! An entry is one file, named by a hash of everything its item depends on (`Key` and the prompt):
//! nothing is served across a difference in any of it. It holds the item as it was recorded, behind a
//! magic number and before a checksum that covers its name too. It appears whole or not at all; one
//! that is damaged is said, removed and evaluated anew. Several processes may use one folder.
//!
//! An item from here was not timed: it has neither `elapsed_ns` nor `energy`, and says which attempt
//! evaluated it.

mod folder;
mod key;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tritmark_proto::{
    record::{Item, ItemOrigin},
    wire,
};

pub(super) use key::Key;

use folder::Folder;

use super::Prompt;
use crate::Sink;

/// First bytes of an entry; the last is the version of its layout.
const MAGIC: &[u8; 8] = b"tritit\0\x01";

/// Bytes of the checksum.
const SUM: usize = blake3::OUT_LEN;

/// Largest entry; the largest real ones hold some ten thousand tokens of text.
const MAX_ENTRY_BYTES: u64 = 16 << 20;

/// Where items are kept between runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemCache {
    /// The folder, which is made where it is missing.
    pub folder: PathBuf,
    /// Bytes that the files in it may take; those that were not used for longest go first.
    pub max_bytes: u64,
}

/// The kept items of one task, asked in one way of one model.
pub(super) struct Kept {
    folder: Folder,
    key: String,
    origin: Option<ItemOrigin>,
    /// What went wrong and was not said yet; the items are evaluated all the same.
    problems: Vec<String>,
    /// Whether nothing more is written, as that failed.
    is_full: bool,
}

impl Kept {
    /// Opens the folder, brings it to its size and removes what killed processes left in it.
    pub(super) fn open(
        options: &ItemCache,
        key: &Key<'_>,
        origin: Option<ItemOrigin>,
    ) -> io::Result<Self> {
        Ok(Self {
            folder: Folder::open(&options.folder, options.max_bytes)?,
            key: key.hash(),
            origin,
            problems: Vec::new(),
            is_full: false,
        })
    }

    /// Returns a prompt's item where it is kept.
    pub(super) fn get(&mut self, prompt: &Prompt) -> Option<Item> {
        let name = self.name(prompt.index, &prompt.doc_hash, &prompt.hash());
        let read = self.folder.read(&name, MAX_ENTRY_BYTES).and_then(|bytes| {
            let Some(bytes) = bytes else {
                return Ok(None);
            };
            unpack(&name, &bytes)
                .and_then(|item| {
                    // The name says as much; an entry of another maker might not.
                    let is_its_own = item.index == prompt.index
                        && item.doc_hash == prompt.doc_hash
                        && item.prompt_hash == prompt.hash()
                        && item.from_cache.is_some();
                    is_its_own.then_some(item).ok_or("is of another item")
                })
                .map(Some)
                .map_err(io::Error::other)
        });
        match read {
            Ok(Some(item)) => {
                self.folder.touch(&name);
                Some(item)
            }
            Ok(None) => None,
            Err(error) => {
                let path = self.folder.path(&name);
                self.problems.push(format!(
                    "{}, which holds item {}, {error}; the item is evaluated anew",
                    path.display(),
                    prompt.index
                ));
                self.folder.remove(&name);
                None
            }
        }
    }

    /// Keeps an item that was evaluated just now. Where that fails, nothing more is kept.
    pub(super) fn put(&mut self, item: &Item) {
        // Without an origin nobody could tell where the item comes from.
        let Some(origin) = self.origin.filter(|_| !self.is_full) else {
            return;
        };
        let name = self.name(item.index, &item.doc_hash, &item.prompt_hash);
        let item = Item {
            elapsed_ns: None,
            energy: Vec::new(),
            from_cache: Some(origin),
            ..item.clone()
        };
        if let Err(error) = self.folder.write(&name, &pack(&name, item)) {
            self.is_full = true;
            self.problems
                .push(format!("nothing more is kept of this job: {error}"));
        }
    }

    /// Says what went wrong since the last time.
    pub(super) fn tell_problems(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        for problem in self.problems.drain(..) {
            sink.warn(&problem)?;
        }
        Ok(())
    }

    fn name(&self, index: u32, doc_hash: &str, prompt_hash: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.key, &index.to_string(), doc_hash, prompt_hash] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn pack(name: &str, item: Item) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(wire::Item::from(item).encode_to_vec());
    bytes.extend(sum(name, &bytes).as_bytes());
    bytes
}

fn unpack(name: &str, bytes: &[u8]) -> Result<Item, &'static str> {
    let (covered, found) = bytes
        .split_last_chunk::<SUM>()
        .ok_or("is shorter than an entry")?;
    let payload = covered
        .strip_prefix(MAGIC)
        .ok_or("does not begin as an entry does")?;
    if sum(name, covered) != blake3::Hash::from_bytes(*found) {
        return Err("has a checksum that is not its own");
    }
    let item = wire::Item::decode(payload).map_err(|_| "holds no item")?;
    Item::try_from(item).map_err(|_| "holds an item that says nothing sensible")
}

fn sum(name: &str, covered: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    hasher.update(covered);
    hasher.finalize()
}
