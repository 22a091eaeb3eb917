//! Rows of Parquet or JSON Lines files as one JSON Lines file, in their order and with their names.
//!
//! A file is told by its first bytes, not by its name.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use serde_json::Value;
use thiserror::Error;
use tritmark_reports::{ReportError, frame::json_rows};

use super::checksum::Found;

/// How a Parquet file begins.
const PARQUET: &[u8] = b"PAR1";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Lines.
    pub(crate) rows: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Of the file, hex.
    pub(crate) sha256: String,
}

/// Why rows cannot be written down.
#[derive(Debug, Error)]
pub(crate) enum RowsError {
    /// A file cannot be read or written.
    #[error("{path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A Parquet file does not hold.
    #[error(transparent)]
    Parquet(#[from] ReportError),
    /// A line is no row.
    #[error("{path}, line {line}: is no JSON object")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
    },
}

/// Writes the rows of `sources`, one after another, to `target`, which is whole or not there.
pub(crate) fn write_rows(sources: &[PathBuf], target: &Path) -> Result<Written, RowsError> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = target.with_file_name(name);
    let file = File::create(&part).map_err(at(&part))?;
    let mut out = BufWriter::new(file);
    let mut rows = 0;
    for source in sources {
        let mut file = File::open(source).map_err(at(source))?;
        let mut magic = Vec::new();
        (&file)
            .take(PARQUET.len() as u64)
            .read_to_end(&mut magic)
            .map_err(at(source))?;
        io::Seek::rewind(&mut file).map_err(at(source))?;
        rows += if magic == PARQUET {
            json_rows(source, |line| writeln!(out, "{line}").map_err(at(&part)))?
        } else {
            json_lines(source, file, &part, &mut out)?
        };
    }
    let file = out
        .into_inner()
        .map_err(|error| at(&part)(error.into_error()))?;
    file.sync_all().map_err(at(&part))?;
    let Found { bytes, sha256, .. } = Found::of(&part).map_err(at(&part))?;
    fs::rename(&part, target).map_err(at(target))?;
    Ok(Written {
        rows,
        bytes,
        sha256,
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RowsError {
    let path = path.to_owned();
    move |source| RowsError::Io { path, source }
}

fn json_lines(
    path: &Path,
    file: File,
    target: &Path,
    out: &mut impl io::Write,
) -> Result<u64, RowsError> {
    let mut rows = 0;
    for (line, text) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let text = text.map_err(at(path))?;
        let text = text.strip_suffix(b"\r").unwrap_or(&text);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let value: Option<Value> = serde_json::from_slice(text).ok();
        if !value.is_some_and(|value| value.is_object()) {
            let path = path.to_owned();
            return Err(RowsError::Line { path, line });
        }
        out.write_all(text).map_err(at(target))?;
        out.write_all(b"\n").map_err(at(target))?;
        rows += 1;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_kind_of_file_become_lines_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let [lines, target] = ["b.jsonl", "test.jsonl"].map(|name| folder.path().join(name));
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hub.parquet"); // as pyarrow writes it
        fs::write(&lines, "{\"b\": 1.50, \"a\": 2}\r\n\n{\"last\": null}").unwrap();
        let written = write_rows(&[table, lines], &target).unwrap();
        let text = fs::read_to_string(&target).unwrap();
        let expected = concat!(
            r#"{"question":"zwölf?","choices":{"text":["a","b"]},"label":7}"#,
            "\n",
            r#"{"question":"one\ntwo","choices":{"text":["c"]},"label":null}"#,
            "\n{\"b\": 1.50, \"a\": 2}\n{\"last\": null}\n",
        );
        assert_eq!(text, expected);
        assert_eq!(written.rows, 4);
        assert_eq!(written.bytes, text.len() as u64);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_row_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let [lines, target] = ["b.jsonl", "test.jsonl"].map(|name| folder.path().join(name));
        fs::write(&lines, "{}\n[1]\n").unwrap();
        let error = write_rows(std::slice::from_ref(&lines), &target).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("b.jsonl, line 2: is no JSON object"),
            "{error}"
        );
        assert!(!target.exists());
        fs::write(&lines, "PAR1 and then nothing of a table").unwrap();
        let error = write_rows(&[lines], &target).unwrap_err();
        assert!(error.to_string().contains("b.jsonl"), "{error}");
    }
}
