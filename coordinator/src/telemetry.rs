//! What a coordinator tells of itself while it works: figures for a scraper ([`http`]) and the way
//! of each job as a trace.
//!
//! Both are taken at one place, around the store (`observed`): what is stored happened, and what
//! happened is stored. Telling never decides and never waits: a collector that is away costs spans,
//! which are counted, and no job.

use std::sync::Arc;

pub mod http;
mod metrics;
mod observed;
mod process;
mod spans;
#[cfg(test)]
mod tests;
mod traces;

pub(crate) use metrics::Metrics;
pub(crate) use observed::ObservedStore;
pub use traces::{Traces, TracesError};

use crate::store::Store;

/// Puts a store behind figures and, where there is a collector, traces.
pub(crate) fn observe(
    store: Arc<dyn Store>,
    traces: Option<Traces>,
) -> (Arc<dyn Store>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    if let Some(traces) = &traces {
        metrics.count_lost_spans(traces.lost());
    }
    let observed = ObservedStore::new(store, Arc::clone(&metrics), traces);
    (Arc::new(observed), metrics)
}
