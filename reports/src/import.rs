//! Runs of other programs as bundles, so that `compare` takes them.
//!
//! What the files do not say is left out rather than made up; `docs/compare.md` lists it. Files come
//! from anywhere: an error names file, line and key, and nothing panics.

mod evalplus;
mod lm_eval;
mod run;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use evalplus::evalplus;
pub use lm_eval::lm_eval;

use crate::bundle::Bundle;

/// Most bytes of one file; lm-evaluation-harness's largest, MMLU with its prompts, have some 10^8.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// A run that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The run.
    pub bundle: Bundle,
    /// What could not be taken over as it stands.
    pub warnings: Vec<String>,
}

/// Why files cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds no JSON.
    #[error("{}: no JSON", at(path, *line))]
    Json {
        /// The file.
        path: PathBuf,
        /// Line from 1, of files with a document a line.
        line: Option<usize>,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A value is missing or of another kind.
    #[error("{}, key `{key}`: {what}", at(path, *line))]
    Value {
        /// The file.
        path: PathBuf,
        /// Line from 1, of files with a document a line.
        line: Option<usize>,
        /// Where in the document.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The files are not a run.
    #[error("{what}")]
    Files {
        /// What is wrong.
        what: String,
    },
}

fn at(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("`{}`, line {line}", path.display()),
        None => format!("`{}`", path.display()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Read {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        return Err(failed(io::Error::other("it is larger than 4 GiB")));
    }
    fs::read(path).map_err(failed)
}

/// Returns the files named, and those of folders that were named and of folders in these, sorted.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ImportError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            for entry in listed(path)? {
                if entry.is_dir() {
                    files.extend(listed(&entry)?.into_iter().filter(|path| path.is_file()));
                } else {
                    files.push(entry);
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn listed(dir: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    };
    read().map_err(|source| ImportError::Read {
        path: dir.to_owned(),
        source,
    })
}

/// A JSON document and where it stands, for errors that say so.
struct Document<'a> {
    path: &'a Path,
    line: Option<usize>,
    value: serde_json::Value,
}

impl<'a> Document<'a> {
    fn whole(path: &'a Path, bytes: &[u8]) -> Result<Self, ImportError> {
        let value = serde_json::from_slice(bytes).map_err(|source| ImportError::Json {
            path: path.to_owned(),
            line: None,
            source,
        })?;
        let document = Self {
            path,
            line: None,
            value,
        };
        document.must_be_object()
    }

    /// Cuts a file into its lines that are not blank.
    fn lines(
        path: &'a Path,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = Result<Self, ImportError>> + 'a {
        let numbered = (1..).zip(bytes.split(|byte| *byte == b'\n'));
        numbered
            .filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace))
            .map(move |(number, line)| {
                let value = serde_json::from_slice(line).map_err(|source| ImportError::Json {
                    path: path.to_owned(),
                    line: Some(number),
                    source,
                })?;
                let document = Self {
                    path,
                    line: Some(number),
                    value,
                };
                document.must_be_object()
            })
    }

    fn must_be_object(self) -> Result<Self, ImportError> {
        if self.value.is_object() {
            return Ok(self);
        }
        Err(self.bad("", "no object"))
    }

    fn bad(&self, key: impl Into<String>, what: impl Into<String>) -> ImportError {
        ImportError::Value {
            path: self.path.to_owned(),
            line: self.line,
            key: key.into(),
            what: what.into(),
        }
    }

    /// Returns a value that is not null.
    fn get(&self, key: &str) -> Option<&serde_json::Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&str>, ImportError> {
        self.get(key)
            .map(|value| value.as_str().ok_or_else(|| self.bad(key, "no text")))
            .transpose()
    }

    fn required_text(&self, key: &str) -> Result<&str, ImportError> {
        self.text(key)?.ok_or_else(|| self.bad(key, "missing"))
    }
}
