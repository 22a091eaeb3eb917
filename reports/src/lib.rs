//! Turns exported runs into comparisons a reader can trust.
//!
//! A bundle (`tritmark_proto::bundle`) goes in; a page, tables, samples and charts come out:
//!
//! ```text
//! bundle ─► frame (columns) ─► summary (rows, by stats and compare) ─► view ─► html │ md
//!                                        └─► csv, charts (plot)       samples ◄─ bundle
//! ```
//!
//! The report of a bundle is always the same, to the byte.

pub mod agreement;
pub mod bundle;
mod charts;
pub mod compare;
pub mod comparison;
mod csv;
pub mod error;
pub mod export;
pub mod frame;
mod html;
pub mod import;
mod labels;
mod md;
mod plot;
mod report;
pub mod samples;
pub mod score;
pub mod stats;
pub mod summary;
#[cfg(test)]
mod testing;
mod units;
mod view;

pub use error::ReportError;
pub use report::{ReportFiles, write_report};
