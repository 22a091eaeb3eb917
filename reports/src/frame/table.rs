//! One Parquet file as columns of known names and types.

use std::{
    fs,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use polars::prelude::*;

use crate::error::ReportError;

/// Most rows a table may claim; the largest real ones hold a few million tokens.
const MAX_ROWS: usize = 200_000_000;
/// Most bytes a table may claim to unpack to.
const MAX_UNPACKED_BYTES: usize = 16 << 30;

/// A table in memory, its columns known to exist.
pub(super) struct Table {
    path: PathBuf,
    frame: DataFrame,
}

impl Table {
    /// Reads `columns` of a file; other columns, which a newer writer may have, are left alone.
    pub(super) fn read(path: &Path, columns: &'static [&'static str]) -> Result<Self, ReportError> {
        let bytes = fs::read(path).map_err(|source| ReportError::Read {
            path: path.to_owned(),
            source,
        })?;
        let frame = guarded(path, || {
            let mut reader = ParquetReader::new(Cursor::new(bytes.as_slice()));
            check_sizes(path, &mut reader)?;
            let schema = reader.schema().map_err(|error| unreadable(path, error))?;
            for column in columns {
                if !schema.contains(column) {
                    return Err(ReportError::MissingColumn {
                        path: path.to_owned(),
                        column,
                    });
                }
            }
            let wanted = columns.iter().map(|column| (*column).to_owned()).collect();
            let frame = reader
                .with_columns(Some(wanted))
                .finish()
                .map_err(|error| unreadable(path, error))?;
            frame
                .lazy()
                .select(
                    columns
                        .iter()
                        .map(|column| col(*column))
                        .collect::<Vec<_>>(),
                )
                .collect()
                .map_err(|error| unreadable(path, error))
        })?;
        Ok(Self {
            path: path.to_owned(),
            frame,
        })
    }

    pub(super) fn height(&self) -> usize {
        self.frame.height()
    }

    pub(super) fn bad(&self, column: &'static str, row: usize, what: &str) -> ReportError {
        ReportError::BadValue {
            path: self.path.clone(),
            column,
            row,
            what: what.to_owned(),
        }
    }

    fn column(&self, name: &'static str, expected: &DataType) -> Result<&Column, ReportError> {
        let column = self
            .frame
            .column(name)
            .map_err(|_| ReportError::MissingColumn {
                path: self.path.clone(),
                column: name,
            })?;
        if column.dtype() != expected {
            return Err(ReportError::ColumnType {
                path: self.path.clone(),
                column: name,
                found: column.dtype().to_string(),
                expected: expected.to_string(),
            });
        }
        Ok(column)
    }

    fn broken(&self, error: PolarsError) -> ReportError {
        unreadable(&self.path, error)
    }

    pub(super) fn u32(&self, name: &'static str) -> Result<Vec<Option<u32>>, ReportError> {
        let column = self.column(name, &DataType::UInt32)?;
        let values = column.u32().map_err(|error| self.broken(error))?;
        Ok(values.iter().collect())
    }

    pub(super) fn u64(&self, name: &'static str) -> Result<Vec<Option<u64>>, ReportError> {
        let column = self.column(name, &DataType::UInt64)?;
        let values = column.u64().map_err(|error| self.broken(error))?;
        Ok(values.iter().collect())
    }

    pub(super) fn f64(&self, name: &'static str) -> Result<Vec<Option<f64>>, ReportError> {
        let column = self.column(name, &DataType::Float64)?;
        let values = column.f64().map_err(|error| self.broken(error))?;
        Ok(values.iter().collect())
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Vec<Option<String>>, ReportError> {
        let column = self.column(name, &DataType::String)?;
        let values = column.str().map_err(|error| self.broken(error))?;
        Ok(values.iter().map(|text| text.map(str::to_owned)).collect())
    }

    pub(super) fn flags(&self, name: &'static str) -> Result<Vec<Option<bool>>, ReportError> {
        let column = self.column(name, &DataType::Boolean)?;
        let values = column.bool().map_err(|error| self.broken(error))?;
        Ok(values.iter().collect())
    }

    pub(super) fn required<T>(
        &self,
        column: &'static str,
        values: Vec<Option<T>>,
    ) -> Result<Vec<T>, ReportError> {
        values
            .into_iter()
            .enumerate()
            .map(|(row, value)| value.ok_or_else(|| self.bad(column, row, "no value")))
            .collect()
    }

    fn lists<T>(
        &self,
        name: &'static str,
        inner: DataType,
        read: impl Fn(&Series) -> PolarsResult<Vec<Option<T>>>,
    ) -> Result<Vec<Vec<T>>, ReportError> {
        let column = self.column(name, &DataType::List(Box::new(inner)))?;
        let lists = column.list().map_err(|error| self.broken(error))?;
        (0..self.height())
            .map(|row| {
                let series = lists
                    .get_as_series(row)
                    .ok_or_else(|| self.bad(name, row, "no list"))?;
                read(&series)
                    .map_err(|error| self.broken(error))?
                    .into_iter()
                    .collect::<Option<Vec<T>>>()
                    .ok_or_else(|| self.bad(name, row, "a list with holes"))
            })
            .collect()
    }

    pub(super) fn f64_lists(&self, name: &'static str) -> Result<Vec<Vec<f64>>, ReportError> {
        self.lists(name, DataType::Float64, |series| {
            Ok(series.f64()?.iter().collect())
        })
    }

    pub(super) fn u32_lists(&self, name: &'static str) -> Result<Vec<Vec<u32>>, ReportError> {
        self.lists(name, DataType::UInt32, |series| {
            Ok(series.u32()?.iter().collect())
        })
    }

    pub(super) fn text_lists(&self, name: &'static str) -> Result<Vec<Vec<String>>, ReportError> {
        self.lists(name, DataType::String, |series| {
            let texts = series.str()?.iter();
            Ok(texts.map(|text| text.map(str::to_owned)).collect())
        })
    }

    pub(super) fn bool_lists(&self, name: &'static str) -> Result<Vec<Vec<bool>>, ReportError> {
        self.lists(name, DataType::Boolean, |series| {
            Ok(series.bool()?.iter().collect())
        })
    }
}

pub(super) fn unreadable(path: &Path, source: PolarsError) -> ReportError {
    ReportError::ReadTable {
        path: path.to_owned(),
        source: Box::new(source),
    }
}

/// Refuses sizes that no run has, before they are allocated.
pub(super) fn check_sizes(
    path: &Path,
    reader: &mut ParquetReader<Cursor<&[u8]>>,
) -> Result<(), ReportError> {
    let metadata = reader
        .get_metadata()
        .map_err(|error| unreadable(path, error))?;
    let damaged = |what: String| ReportError::DamagedTable {
        path: path.to_owned(),
        what,
    };
    let in_groups = metadata
        .row_groups
        .iter()
        .try_fold(0_usize, |sum, group| sum.checked_add(group.num_rows()));
    if in_groups != Some(metadata.num_rows) {
        return Err(damaged(format!(
            "its row groups do not add up to the {} rows it claims",
            metadata.num_rows
        )));
    }
    if metadata.num_rows > MAX_ROWS {
        return Err(damaged(format!("it claims {} rows", metadata.num_rows)));
    }
    let unpacked = metadata.row_groups.iter().try_fold(0_usize, |sum, group| {
        sum.checked_add(group.total_byte_size())
    });
    if unpacked.is_none_or(|bytes| bytes > MAX_UNPACKED_BYTES) {
        return Err(damaged(
            "it claims to unpack to more than 16 GiB".to_owned(),
        ));
    }
    Ok(())
}

/// Turns a panic of the Parquet decoder, which some damaged files provoke, into an error.
pub(super) fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, ReportError>,
) -> Result<T, ReportError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(ReportError::DamagedTable {
            path: path.to_owned(),
            what: format!("the decoder gave up ({message})"),
        })
    })
}
