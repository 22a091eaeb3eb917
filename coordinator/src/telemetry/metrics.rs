//! The figures, in OpenMetrics: names end in their unit, counters in `_total`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};
use tritmark_proto::bundle::JobState;

use super::process;
use crate::store::{AttemptState, JobCounts};

/// Bounds of the store's times: from a read in memory to a busy disk.
const STORE_SECONDS: [f64; 12] = [
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
];

/// Bounds of the time a job waits for an agent.
const QUEUE_SECONDS: [f64; 12] = [
    0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0, 3600.0, 14400.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// The figures of one coordinator.
pub(crate) struct Metrics {
    registry: Registry,
    runs_submitted: Counter,
    jobs_submitted: Counter,
    attempts_started: Counter,
    attempts_ended: Family<StateLabel, Counter>,
    jobs_ended: Family<StateLabel, Counter>,
    records: Counter,
    conflicts: Counter,
    refused: Counter,
    queue: Histogram,
    store: Family<OperationLabel, Histogram, fn() -> Histogram>,
    store_errors: Family<OperationLabel, Counter>,
    jobs: Family<StateLabel, Gauge>,
    agents: Family<StateLabel, Gauge>,
    lost_spans: Arc<LostSpans>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Makes all figures, at nought.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tritmark");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What serves here", Info::new(version.to_vec()));
        let runs_submitted = counter(&mut registry, "runs_submitted", "Plans taken");
        let jobs_submitted = counter(&mut registry, "jobs_submitted", "Jobs of plans taken");
        let attempts_started = counter(&mut registry, "attempts_started", "Jobs given to agents");
        let attempts_ended = Family::<StateLabel, Counter>::default();
        registry.register(
            "attempts_ended",
            "Attempts that are over, by how they ended",
            attempts_ended.clone(),
        );
        let jobs_ended = Family::<StateLabel, Counter>::default();
        registry.register(
            "jobs_ended",
            "Jobs that are over, by how they ended",
            jobs_ended.clone(),
        );
        let records = counter(&mut registry, "records", "Records stored");
        let conflicts = counter(
            &mut registry,
            "record_conflicts",
            "Records that came again with other contents; the first ones are kept",
        );
        let refused = counter(
            &mut registry,
            "stale_messages",
            "Messages of attempts that no longer count",
        );
        let queue = Histogram::new(QUEUE_SECONDS);
        registry.register_with_unit(
            "job_queue",
            "Time from when a job could be begun to its attempt",
            Unit::Seconds,
            queue.clone(),
        );
        let store: Family<OperationLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(STORE_SECONDS));
        registry.register_with_unit(
            "store_operation",
            "Time of the store's operations",
            Unit::Seconds,
            store.clone(),
        );
        let store_errors = Family::<OperationLabel, Counter>::default();
        registry.register(
            "store_errors",
            "Operations of the store that failed",
            store_errors.clone(),
        );
        let jobs = Family::<StateLabel, Gauge>::default();
        registry.register("jobs", "Jobs of open runs, by state", jobs.clone());
        let agents = Family::<StateLabel, Gauge>::default();
        registry.register(
            "agents",
            "Agents: idle, busy, or not connected",
            agents.clone(),
        );
        let lost_spans = Arc::new(LostSpans::default());
        registry.register_collector(Box::new(Shared(Arc::clone(&lost_spans))));
        registry.register_collector(Box::new(Process));
        Self {
            registry,
            runs_submitted,
            jobs_submitted,
            attempts_started,
            attempts_ended,
            jobs_ended,
            records,
            conflicts,
            refused,
            queue,
            store,
            store_errors,
            jobs,
            agents,
            lost_spans,
        }
    }

    pub(super) fn count_lost_spans(&self, lost: Arc<AtomicU64>) {
        // Set once, before anything is scraped.
        let _ = self.lost_spans.0.set(lost);
    }

    pub(super) fn submitted(&self, n_jobs: usize) {
        self.runs_submitted.inc();
        self.jobs_submitted.inc_by(n_jobs as u64);
    }

    pub(super) fn started(&self, queued: Duration) {
        self.attempts_started.inc();
        self.queue.observe(queued.as_secs_f64());
    }

    pub(super) fn ended(&self, attempt: AttemptState, job: JobState) {
        let state = attempt.name();
        self.attempts_ended
            .get_or_create(&StateLabel { state })
            .inc();
        if job.is_final() {
            self.job_ended(job, 1);
        }
    }

    pub(super) fn job_ended(&self, job: JobState, n: u64) {
        let state = job.name();
        self.jobs_ended
            .get_or_create(&StateLabel { state })
            .inc_by(n);
    }

    pub(super) fn appended(&self, n_new: u64, n_conflicts: u64) {
        self.records.inc_by(n_new);
        self.conflicts.inc_by(n_conflicts);
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn operation(&self, operation: &'static str, took: Duration, failed: bool) {
        let label = OperationLabel { operation };
        self.store.get_or_create(&label).observe(took.as_secs_f64());
        if failed {
            self.store_errors.get_or_create(&label).inc();
        }
    }

    /// Says how many jobs of open runs there are; asked for at a scrape.
    pub(super) fn set_jobs(&self, counts: JobCounts) {
        let JobCounts {
            queued,
            running,
            succeeded,
            failed,
            cancelled,
            expired: _,
        } = counts;
        for (state, n) in [
            (JobState::Queued, queued),
            (JobState::Running, running),
            (JobState::Succeeded, succeeded),
            (JobState::Failed, failed),
            (JobState::Cancelled, cancelled),
        ] {
            let state = state.name();
            self.jobs
                .get_or_create(&StateLabel { state })
                .set(i64::from(n));
        }
    }

    /// Says how many agents there are.
    pub(super) fn set_agents(&self, idle: usize, busy: usize, away: usize) {
        for (state, n) in [("idle", idle), ("busy", busy), ("away", away)] {
            self.agents
                .get_or_create(&StateLabel { state })
                .set(i64::try_from(n).unwrap_or(i64::MAX));
        }
    }

    /// Returns all figures as text in the format OpenMetrics 1.0.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// Spans that no collector took, as the exporter counts them.
#[derive(Debug, Default)]
struct LostSpans(std::sync::OnceLock<Arc<AtomicU64>>);

#[derive(Debug)]
struct Shared(Arc<LostSpans>);

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(lost) = self.0.0.get() else {
            return Ok(());
        };
        let counter = ConstCounter::new(lost.load(Ordering::Relaxed));
        let descriptor = encoder.encode_descriptor(
            "spans_lost",
            "Spans that the collector did not take",
            None,
            counter.metric_type(),
        )?;
        counter.encode(descriptor)
    }
}

/// What the system says of this process, read at each scrape.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(now) = process::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(now.cpu_seconds);
        let descriptor = encoder.encode_descriptor(
            "process_cpu",
            "User and system time",
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?;
        cpu.encode(descriptor)?;
        let gauges = [
            (
                "process_resident_memory",
                "Memory in use",
                now.resident_bytes,
            ),
            (
                "process_peak_resident_memory",
                "Most memory in use so far",
                now.peak_resident_bytes,
            ),
        ];
        for (name, help, bytes) in gauges {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            let descriptor =
                encoder.encode_descriptor(name, help, Some(&Unit::Bytes), gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }
}
