//! Runs one job on an engine and yields records.
//!
//! [`worker`] is the border of the fresh process a job runs in: one request in, events out.

pub mod worker;
