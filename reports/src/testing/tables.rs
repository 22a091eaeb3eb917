//! Tables of a made-up bundle, to be spoilt.

use std::{fs, path::Path};

use polars::prelude::DataFrame;

use crate::bundle::{Bundle, write};

/// Writes a table.
pub(crate) fn save(frame: &mut DataFrame, path: &Path) {
    let bytes = write::parquet(frame.clone()).expect("a table");
    fs::write(path, bytes).expect("a file");
}

/// Builds the table of measurements.
pub(crate) fn measurements(bundle: &Bundle) -> DataFrame {
    write::measurements(bundle).expect("a table")
}

/// Builds the table of items.
pub(crate) fn items(bundle: &Bundle) -> DataFrame {
    write::items(bundle).expect("a table")
}

/// Builds the table of scores.
pub(crate) fn scores(bundle: &Bundle) -> DataFrame {
    write::scores(bundle).expect("a table")
}

/// Builds the table of tokens.
pub(crate) fn tokens(bundle: &Bundle) -> DataFrame {
    write::tokens(bundle).expect("a table")
}

/// Builds the table of cells.
pub(crate) fn cells(bundle: &Bundle) -> DataFrame {
    write::cells(bundle).expect("a table")
}
