//! `summary.csv`: the summary's rows, every digit; and other tables as CSV.

use serde::Serialize;

use crate::{error::ReportError, summary::SummaryRow};

/// Returns the rows as CSV with a header line; what a row has not is an empty cell.
pub(crate) fn render(rows: &[SummaryRow]) -> Result<Vec<u8>, ReportError> {
    if !rows.is_empty() {
        return table(rows);
    }
    // A summary of nothing still names its columns.
    let mut text = table(&[SummaryRow::blank()])?;
    let header = text.iter().position(|byte| *byte == b'\n');
    text.truncate(header.map_or(0, |end| end + 1));
    Ok(text)
}

/// Returns rows as CSV with a header line, nothing of none.
pub(crate) fn table<R: Serialize>(rows: &[R]) -> Result<Vec<u8>, ReportError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer
        .into_inner()
        .map_err(|error| csv::Error::from(error.into_error()))?)
}
