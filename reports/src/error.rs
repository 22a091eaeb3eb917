//! What can go wrong between a bundle and a report.

use std::{io, path::PathBuf};

use polars::prelude::PolarsError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of the bundle cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest is not what this version writes.
    #[error("cannot understand `{}`", path.display())]
    ParseManifest {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The bundle was written by another version of the format.
    #[error(
        "`{}` has format version {found}; this version of tritmark reads {supported}{}",
        path.display(),
        if found > supported { ", please update it" } else { "" }
    )]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version understood.
        supported: u32,
    },
    /// The manifest contradicts itself.
    #[error("`{}` contradicts itself: {what}", path.display())]
    Contradiction {
        /// The manifest.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// A table is not readable Parquet.
    #[error("cannot read the table `{}`", path.display())]
    ReadTable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<PolarsError>,
    },
    /// A table is damaged in a way its decoder does not recover from, or claims absurd sizes.
    #[error("the table `{}` is damaged: {what}", path.display())]
    DamagedTable {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A table lacks a column.
    #[error("the table `{}` has no column `{column}`", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// A column has another type.
    #[error(
        "column `{column}` of `{}` holds {found} where {expected} is expected",
        path.display()
    )]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// Type found.
        found: String,
        /// Type expected.
        expected: String,
    },
    /// A value cannot be what it is.
    #[error("row {row} of `{}`, column `{column}`: {what}", path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// Row from 0 in the file.
        row: usize,
        /// What is wrong.
        what: String,
    },
    /// A file of the report cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A table of the report cannot be built.
    #[error("cannot build the table `{name}`")]
    BuildTable {
        /// Its file name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<PolarsError>,
    },
    /// The summary cannot be written as CSV.
    #[error("cannot write the summary as CSV")]
    Csv(#[from] csv::Error),
    /// A chart cannot be drawn.
    #[error("cannot draw the chart `{name}`: {what}")]
    Draw {
        /// The chart.
        name: String,
        /// Why.
        what: String,
    },
    /// A side of a comparison cannot be taken.
    #[error(transparent)]
    Side(crate::comparison::SideError),
    /// A comparison cannot be written as JSON.
    #[error("cannot write the comparison as JSON")]
    Json(#[source] serde_json::Error),
    /// The page cannot be rendered.
    #[error("cannot render the report's page")]
    Render(#[from] minijinja::Error),
}
