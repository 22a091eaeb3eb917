//! Data sets as local files: one JSON object a line, plain or gzip, in the hub's field names.
//!
//! Lines are streamed. What a line holds that a task cannot use is an error that names the file,
//! the line and the key.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Value, json};
use thiserror::Error;

use super::{definition::Format, wikitext};

/// Longest line that is read, bytes. The longest of the public sets has 180 kB.
pub const MAX_LINE_BYTES: u64 = 16 << 20;

/// Longest text that is read, bytes.
const MAX_TEXT_BYTES: u64 = 1 << 30;

/// Why a data set cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// None of the files a task can use is there.
    #[error("{} has none of {}", folder.display(), names.join(", "))]
    Missing {
        /// Where they should be.
        folder: PathBuf,
        /// The files looked for, without their endings.
        names: Vec<String>,
    },
    /// The file cannot be read.
    #[error("cannot read {} after line {line}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Lines read before.
        line: u64,
        /// The system's or the decompressor's reason.
        #[source]
        source: io::Error,
    },
    /// A line is too long.
    #[error("{}: line {line} has more than {MAX_LINE_BYTES} bytes", path.display())]
    LongLine {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
    },
    /// A line is no JSON.
    #[error("{}: line {line} is not JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Where in the line and why.
        #[source]
        source: serde_json::Error,
    },
    /// A line is not an item of the task.
    #[error("{}: line {line}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Which key and why.
        #[source]
        source: FieldError,
    },
    /// There is nothing to draw so many examples from.
    #[error("{} has {items} items, too few for {count} examples", path.display())]
    FewExamples {
        /// The file.
        path: PathBuf,
        /// Its items.
        items: u64,
        /// Examples asked for.
        count: u32,
    },
    /// There is no item at all.
    #[error("{} has no items", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with a key of an item.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("key `{key}` {problem}")]
pub struct FieldError {
    /// The key, with dots where it lies within another.
    pub key: String,
    /// In a reader's words.
    pub problem: String,
}

impl FieldError {
    pub(crate) fn new(key: &str, problem: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            problem: problem.into(),
        }
    }
}

/// A data file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
}

impl DataFile {
    /// Finds the first of `names` in `folder`, each plain and then compressed.
    pub fn find<N: AsRef<str>>(
        folder: &Path,
        names: &[N],
        format: Format,
    ) -> Result<Self, DataError> {
        let ending = format.ending();
        let names: Vec<String> = names
            .iter()
            .map(|name| format!("{}{ending}", name.as_ref()))
            .collect();
        names
            .iter()
            .flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))])
            .find(|path| path.is_file())
            .map(|path| Self { path, format })
            .ok_or_else(|| DataError::Missing {
                folder: folder.to_owned(),
                names: names.iter().map(|name| format!("{name}[.gz]")).collect(),
            })
    }

    /// Opens the file from its beginning.
    ///
    /// A file of plain text is read whole; each of its pages is one line then, the JSON object
    /// `{"page": …}`.
    pub fn lines(&self) -> Result<Lines, DataError> {
        let unreadable = |source| DataError::Read {
            path: self.path.clone(),
            line: 0,
            source,
        };
        let file = File::open(&self.path).map_err(unreadable)?;
        let mut reader: Box<dyn BufRead> = if self.path.extension().is_some_and(|e| e == "gz") {
            Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))
        } else {
            Box::new(BufReader::new(file))
        };
        if self.format == Format::WikiText {
            let mut text = String::new();
            reader
                .take(MAX_TEXT_BYTES)
                .read_to_string(&mut text)
                .map_err(unreadable)?;
            let pages = wikitext::pages(&text);
            let lines = pages
                .into_iter()
                .map(|page| json!({"page": page}).to_string());
            let lines: Vec<String> = lines.collect();
            reader = Box::new(io::Cursor::new(lines.join("\n")));
        }
        Ok(Lines {
            path: self.path.clone(),
            reader,
            line: 0,
            ended: false,
        })
    }
}

/// The lines of a data file that hold something, in order.
pub struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: u64,
    ended: bool,
}

/// A line and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Without the line end.
    pub bytes: Vec<u8>,
}

impl Line {
    /// Parses the line and makes an item of it.
    pub fn parse<T>(
        &self,
        path: &Path,
        make: impl FnOnce(&Value) -> Result<T, FieldError>,
    ) -> Result<T, DataError> {
        let value: Value =
            serde_json::from_slice(&self.bytes).map_err(|source| DataError::Json {
                path: path.to_owned(),
                line: self.number,
                source,
            })?;
        make(&value).map_err(|source| DataError::Field {
            path: path.to_owned(),
            line: self.number,
            source,
        })
    }
}

impl Iterator for Lines {
    type Item = Result<Line, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let mut bytes = Vec::new();
            let read = (&mut self.reader)
                .take(MAX_LINE_BYTES + 1)
                .read_until(b'\n', &mut bytes);
            let read = match read {
                Ok(read) => read as u64,
                Err(source) => {
                    self.ended = true;
                    return Some(Err(DataError::Read {
                        path: self.path.clone(),
                        line: self.line,
                        source,
                    }));
                }
            };
            if read == 0 {
                self.ended = true;
                return None;
            }
            self.line += 1;
            if read > MAX_LINE_BYTES {
                self.ended = true;
                return Some(Err(DataError::LongLine {
                    path: self.path.clone(),
                    line: self.line,
                }));
            }
            let kept = bytes.trim_ascii_end().len();
            bytes.truncate(kept);
            if !bytes.is_empty() {
                return Some(Ok(Line {
                    number: self.line,
                    bytes,
                }));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, DataFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let format = Format::JsonLines;
        (folder, DataFile { path, format })
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads a text under two keys.
    fn text(item: &Value) -> Result<String, FieldError> {
        item.pointer("/a/b")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| FieldError::new("a.b", "is not a text"))
    }

    fn numbers(file: &DataFile) -> Vec<(u64, Vec<u8>)> {
        let lines = file.lines().unwrap();
        lines
            .map(|line| line.map(|line| (line.number, line.bytes)).unwrap())
            .collect()
    }

    #[test]
    fn plain_and_compressed_files_have_the_same_lines() {
        let text = b"{\"a\":1}\r\n\n{\"a\":2}";
        let expected = vec![(1, b"{\"a\":1}".to_vec()), (3, b"{\"a\":2}".to_vec())];
        let (_folder, plain) = file("x.jsonl", text);
        assert_eq!(numbers(&plain), expected);
        // Two members, as `cat a.gz b.gz` makes.
        let both = [gzip(&text[..9]), gzip(&text[9..])].concat();
        let (_folder, compressed) = file("x.jsonl.gz", &both);
        assert_eq!(numbers(&compressed), expected);
    }

    #[test]
    fn the_first_name_that_exists_is_taken_and_none_is_an_error_that_lists_them() {
        let (folder, _) = file("train_l.jsonl.gz", &gzip(b"{}"));
        let found =
            DataFile::find(folder.path(), &["train_xl", "train_l"], Format::JsonLines).unwrap();
        assert!(found.path.ends_with("train_l.jsonl.gz"));
        let error = DataFile::find(folder.path(), &["test", "dev"], Format::JsonLines).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("has none of test.jsonl[.gz], dev.jsonl[.gz]")
        );
    }

    #[test]
    fn errors_name_the_file_the_line_and_the_key() {
        let (_folder, data) = file("x.jsonl", b"{\"a\":{\"b\":1}}\n[\n");
        let lines: Vec<Line> = data.lines().unwrap().map(Result::unwrap).collect();
        let error = lines[0].parse(&data.path, text).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().ends_with("x.jsonl: line 1"), "{error}");
        assert_eq!(cause, "key `a.b` is not a text");
        let error = lines[1].parse(&data.path, |_| Ok(())).unwrap_err();
        assert!(
            error.to_string().ends_with("x.jsonl: line 2 is not JSON"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_plain_text_is_a_page_a_line() {
        let (folder, _) = file("wiki.test.raw.gz", &gzip(b" = A = \n x \n = B = \n"));
        let data = DataFile::find(folder.path(), &["wiki.test.raw"], Format::WikiText).unwrap();
        let pages: Vec<Line> = data.lines().unwrap().map(Result::unwrap).collect();
        assert_eq!(pages.len(), 2);
        assert_eq!(pages[1].bytes, br#"{"page":" = B = \n"}"#);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        // 32 MiB of blanks in 32 kB.
        let (_folder, data) = file("x.jsonl.gz", &gzip(&vec![b' '; 32 << 20]));
        let lines: Vec<_> = data.lines().unwrap().collect();
        assert!(matches!(
            lines[..],
            [Err(DataError::LongLine { line: 1, .. })]
        ));
    }

    #[test]
    fn a_torn_archive_is_an_error_after_its_last_whole_line() {
        let whole = gzip("{\"a\":1}\n".repeat(10_000).as_bytes());
        let (_folder, data) = file("x.jsonl.gz", &whole[..whole.len() - 9]);
        let mut lines = data.lines().unwrap();
        let last = lines.find(Result::is_err).unwrap().unwrap_err();
        assert!(matches!(last, DataError::Read { .. }), "{last}");
        assert!(lines.next().is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, compressed: bool) {
            let (name, stored) = if compressed {
                ("x.jsonl.gz", gzip(&bytes))
            } else {
                ("x.jsonl", bytes.clone())
            };
            for stored in [stored, bytes] {
                let (_folder, data) = file(name, &stored);
                for line in data.lines().unwrap().flatten() {
                    let _ = line.parse(&data.path, text);
                }
            }
        }
    }
}
