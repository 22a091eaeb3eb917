//! A store that tells what it is asked, how long it took and what became of it.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::stream::BoxStream;
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, Job, JobId, RunId},
    machine::Machine,
    record::{ModelFacts, Record, RecordBody},
};

use super::{
    Metrics, Traces,
    spans::{self, Course, JobNames},
};
use crate::store::{
    AgentLink, Appended, AttemptEnd, AttemptStart, Change, JobCounts, Quarantine, RecordBatch,
    Store, StoreError, StoredAgent, StoredAttempt, StoredCalibration, StoredJob, StoredRun,
};

/// Runs that are remembered; of older ones the store knows.
const RUNS: usize = 64;

/// A store behind figures and traces.
#[derive(Debug)]
pub(crate) struct ObservedStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    traces: Option<Traces>,
    known: Mutex<Known>,
}

/// What is remembered of what went on; whatever is missing is read from the store again.
#[derive(Debug, Default)]
struct Known {
    runs: BTreeMap<RunId, KnownRun>,
    /// Since when jobs wait that were given out before.
    waiting: HashMap<JobId, i64>,
    running: HashMap<JobId, Course>,
}

impl Known {
    /// Remembers a run, and forgets the oldest beyond [`RUNS`].
    fn remember(&mut self, id: RunId, run: KnownRun) {
        self.runs.insert(id, run);
        while self.runs.len() > RUNS {
            let Some((oldest, _)) = self.runs.pop_first() else {
                return;
            };
            self.waiting.retain(|job, _| job.run != oldest);
            self.running.retain(|job, _| job.run != oldest);
        }
    }
}

#[derive(Clone, Debug)]
struct KnownRun {
    submitted_unix_ns: i64,
    /// By position; empty without traces.
    names: Arc<[JobNames]>,
}

impl ObservedStore {
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        traces: Option<Traces>,
    ) -> Self {
        Self {
            inner,
            metrics,
            traces,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic is done while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let done = work.await;
        // A stale message is an answer, and no fault of the store.
        let failed = done.as_ref().is_err_and(|error| self.is_fault(error));
        self.metrics.operation(operation, begun.elapsed(), failed);
        done
    }

    /// Tells faults of the store from its answers, and counts those to stale messages.
    fn is_fault(&self, error: &StoreError) -> bool {
        match error {
            StoreError::NotQueued { .. } | StoreError::Taken { .. } => false,
            StoreError::Stale { .. } => {
                self.metrics.refused();
                false
            }
            _ => true,
        }
    }

    async fn begun(&self, start: &AttemptStart, attempt: &StoredAttempt) {
        let waiting = self.known().waiting.remove(&start.job);
        let since = match waiting {
            Some(since) => since,
            None => self
                .run_of(start.job.run)
                .await
                .map_or(start.at_unix_ns, |run| run.submitted_unix_ns),
        };
        self.note_start(attempt, since, start.at_unix_ns);
    }

    async fn ended(&self, attempt: AttemptId, end: &AttemptEnd) {
        self.metrics.ended(end.state, end.job_state);
        if let (Some(course), Some(traces)) = (self.course(attempt).await, &self.traces) {
            for span in spans::attempt(&course, end) {
                traces.send(span);
            }
        }
        if end.job_state.is_final() {
            if let Some(run) = self.run_of(attempt.job.run).await {
                self.tell_job(&run, attempt.job, end.job_state, end.at_unix_ns);
            }
        } else {
            self.known().waiting.insert(attempt.job, end.at_unix_ns);
        }
    }

    /// Returns what is known of a run, from the store where it was begun by another process.
    async fn run_of(&self, run: RunId) -> Option<KnownRun> {
        if let Some(known) = self.known().runs.get(&run) {
            return Some(known.clone());
        }
        let stored = self.inner.run(run).await.ok()??;
        let jobs = match self.traces {
            Some(_) => self.inner.jobs(run).await.ok()?,
            None => Vec::new(),
        };
        let known = KnownRun {
            submitted_unix_ns: stored.submitted_unix_ns,
            names: jobs.iter().map(|job| names(&stored, &job.job)).collect(),
        };
        self.known().remember(run, known.clone());
        Some(known)
    }

    fn tell_job(&self, run: &KnownRun, job: JobId, state: JobState, at_unix_ns: i64) {
        if let (Some(traces), Some(names)) = (&self.traces, run.names.get(job.index as usize)) {
            let submitted = run.submitted_unix_ns;
            traces.send(spans::job(job, names, submitted, state, at_unix_ns));
        }
    }

    /// Notes an attempt that begins, or goes on, after its job waited since `since`.
    fn note_start(&self, attempt: &StoredAttempt, since: i64, at_unix_ns: i64) {
        let waited = at_unix_ns.saturating_sub(since).max(0);
        self.metrics
            .started(Duration::from_nanos(waited.cast_unsigned()));
        if let Some(traces) = &self.traces {
            traces.send(spans::queue(attempt.id, since, at_unix_ns));
            let course = Course {
                id: attempt.id,
                agent: attempt.agent_id.clone(),
                machine: attempt.machine_id.clone(),
                started_unix_ns: attempt.started_unix_ns,
                measured_unix_ns: None,
            };
            self.known().running.insert(attempt.id.job, course);
        }
    }

    fn note_records(&self, attempt: AttemptId, records: &[Record]) {
        if self.traces.is_none() {
            return;
        }
        if let Some(course) = self.known().running.get_mut(&attempt.job) {
            for record in records.iter().filter(|_| course.id == attempt) {
                let at = record.at_unix_ns;
                match (&mut course.measured_unix_ns, &record.body) {
                    (Some((_, last)), _) => *last = at.max(*last),
                    (none, RecordBody::Facts(_)) => *none = Some((at, at)),
                    // The facts came to a coordinator before this one.
                    (None, _) => {}
                }
            }
        }
    }

    /// Returns how an attempt went, as far as it is known here.
    async fn course(&self, attempt: AttemptId) -> Option<Course> {
        self.traces.as_ref()?;
        let known = self.known().running.remove(&attempt.job);
        if let Some(course) = known.filter(|course| course.id == attempt) {
            return Some(course);
        }
        let jobs = self.inner.some_jobs(&[attempt.job]).await.ok()?;
        let attempts = &jobs.first()?.attempts;
        let stored = attempts.iter().find(|stored| stored.id == attempt)?;
        Some(Course {
            id: attempt,
            agent: stored.agent_id.clone(),
            machine: stored.machine_id.clone(),
            started_unix_ns: stored.started_unix_ns,
            measured_unix_ns: None,
        })
    }
}

fn names(run: &StoredRun, job: &Job) -> JobNames {
    JobNames {
        run_name: run.name.clone(),
        model: job.model.id.clone(),
        suite: job.suite.name(),
    }
}

#[tonic::async_trait]
impl Store for ObservedStore {
    async fn add_run(&self, run: &StoredRun, jobs: &[Job]) -> Result<(), StoreError> {
        self.timed("add_run", self.inner.add_run(run, jobs)).await?;
        self.metrics.submitted(jobs.len());
        let traced = if self.traces.is_some() { jobs } else { &[] };
        let known = KnownRun {
            submitted_unix_ns: run.submitted_unix_ns,
            names: traced.iter().map(|job| names(run, job)).collect(),
        };
        self.known().remember(run.id, known);
        Ok(())
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        self.timed("runs", self.inner.runs()).await
    }

    async fn open_runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        self.timed("open_runs", self.inner.open_runs()).await
    }

    async fn run(&self, id: RunId) -> Result<Option<StoredRun>, StoreError> {
        self.timed("run", self.inner.run(id)).await
    }

    async fn newest_run_of(&self, plan_hash: &str) -> Result<Option<StoredRun>, StoreError> {
        self.timed("newest_run_of", self.inner.newest_run_of(plan_hash))
            .await
    }

    async fn jobs(&self, run: RunId) -> Result<Vec<StoredJob>, StoreError> {
        self.timed("jobs", self.inner.jobs(run)).await
    }

    async fn some_jobs(&self, jobs: &[JobId]) -> Result<Vec<StoredJob>, StoreError> {
        self.timed("some_jobs", self.inner.some_jobs(jobs)).await
    }

    async fn put_agent(&self, agent: &StoredAgent) -> Result<(), StoreError> {
        self.timed("put_agent", self.inner.put_agent(agent)).await
    }

    async fn agents(&self) -> Result<Vec<StoredAgent>, StoreError> {
        self.timed("agents", self.inner.agents()).await
    }

    async fn some_agents(&self, ids: &[String]) -> Result<Vec<StoredAgent>, StoreError> {
        self.timed("some_agents", self.inner.some_agents(ids)).await
    }

    async fn machines(&self, ids: &[String]) -> Result<Vec<Machine>, StoreError> {
        self.timed("machines", self.inner.machines(ids)).await
    }

    async fn start_attempts(
        &self,
        starts: &[AttemptStart],
    ) -> Result<Vec<Result<StoredAttempt, StoreError>>, StoreError> {
        let answers = self
            .timed("start_attempts", self.inner.start_attempts(starts))
            .await?;
        for (start, answer) in starts.iter().zip(&answers) {
            match answer {
                Ok(attempt) => self.begun(start, attempt).await,
                Err(error) => {
                    self.is_fault(error);
                }
            }
        }
        Ok(answers)
    }

    async fn revive_attempt(
        &self,
        attempt: AttemptId,
        at_unix_ns: i64,
        lease_until_unix_ns: i64,
    ) -> Result<(), StoreError> {
        let revived = self
            .inner
            .revive_attempt(attempt, at_unix_ns, lease_until_unix_ns);
        self.timed("revive_attempt", revived).await?;
        self.known().waiting.remove(&attempt.job);
        Ok(())
    }

    async fn renew_leases(
        &self,
        leases: &[(AttemptId, i64)],
    ) -> Result<Vec<AttemptId>, StoreError> {
        self.timed("renew_leases", self.inner.renew_leases(leases))
            .await
    }

    async fn append(
        &self,
        batches: &[RecordBatch],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        let answers = self
            .timed("add_records", self.inner.append(batches))
            .await?;
        for (batch, answer) in batches.iter().zip(&answers) {
            match answer {
                Ok(appended) => {
                    self.metrics.appended(appended.n_new, appended.n_conflicts);
                    self.note_records(batch.attempt, &batch.records);
                }
                Err(error) => {
                    self.is_fault(error);
                }
            }
        }
        Ok(answers)
    }

    async fn attempt_agent(&self, attempt: AttemptId) -> Result<Option<String>, StoreError> {
        self.timed("attempt_agent", self.inner.attempt_agent(attempt))
            .await
    }

    async fn put_signature(&self, attempt: AttemptId, signed: &[u8]) -> Result<(), StoreError> {
        self.timed("put_signature", self.inner.put_signature(attempt, signed))
            .await
    }

    async fn signatures(&self, run: RunId) -> Result<Vec<(u32, u32, Vec<u8>)>, StoreError> {
        self.timed("signatures", self.inner.signatures(run)).await
    }

    async fn standings(
        &self,
        attempts: &[AttemptId],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        self.timed("standings", self.inner.standings(attempts))
            .await
    }

    async fn end_attempts(
        &self,
        ends: &[(AttemptId, AttemptEnd)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let answers = self
            .timed("end_attempts", self.inner.end_attempts(ends))
            .await?;
        for ((attempt, end), answer) in ends.iter().zip(&answers) {
            match answer {
                Ok(()) => self.ended(*attempt, end).await,
                Err(error) => {
                    self.is_fault(error);
                }
            }
        }
        Ok(answers)
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn now_unix_ns(&self) -> Result<i64, StoreError> {
        self.inner.now_unix_ns().await
    }

    async fn running_attempts(&self) -> Result<Vec<StoredAttempt>, StoreError> {
        self.timed("running_attempts", self.inner.running_attempts())
            .await
    }

    async fn running_on(&self, agent_id: &str) -> Result<Vec<JobId>, StoreError> {
        self.timed("running_on", self.inner.running_on(agent_id))
            .await
    }

    async fn agent_links(&self) -> Result<Vec<AgentLink>, StoreError> {
        self.timed("agent_links", self.inner.agent_links()).await
    }

    async fn touch_agents(&self, seen: &[(String, i64)]) -> Result<(), StoreError> {
        self.timed("touch_agents", self.inner.touch_agents(seen))
            .await
    }

    async fn unlink_agent(&self, id: &str, last_seen_unix_ns: i64) -> Result<(), StoreError> {
        let unlinked = self.inner.unlink_agent(id, last_seen_unix_ns);
        self.timed("unlink_agent", unlinked).await
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, StoreError> {
        self.inner.changes().await
    }

    async fn pause_run(
        &self,
        run: RunId,
        since_unix_ns: Option<i64>,
        at_unix_ns: i64,
    ) -> Result<(), StoreError> {
        let paused = self.inner.pause_run(run, since_unix_ns, at_unix_ns);
        self.timed("pause_run", paused).await
    }

    async fn expire_jobs(
        &self,
        run: RunId,
        jobs: &[(u32, u32)],
        at_unix_ns: i64,
    ) -> Result<Vec<u32>, StoreError> {
        let expired = self.inner.expire_jobs(run, jobs, at_unix_ns);
        let expired = self.timed("expire_jobs", expired).await?;
        self.metrics
            .job_ended(JobState::Failed, expired.len() as u64);
        let known = self.run_of(run).await;
        for index in &expired {
            let job = JobId { run, index: *index };
            if let Some(known) = &known {
                self.tell_job(known, job, JobState::Failed, at_unix_ns);
            }
            self.known().waiting.remove(&job);
        }
        Ok(expired)
    }

    async fn ask_drain(
        &self,
        agent_id: &str,
        since_unix_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        let asked = self.inner.ask_drain(agent_id, since_unix_ns);
        self.timed("ask_drain", asked).await
    }

    async fn quarantine(&self, agent_id: &str, why: &Quarantine) -> Result<(), StoreError> {
        self.timed("quarantine", self.inner.quarantine(agent_id, why))
            .await
    }

    async fn release_agent(&self, agent_id: &str) -> Result<(), StoreError> {
        self.timed("release_agent", self.inner.release_agent(agent_id))
            .await
    }

    async fn add_calibration(&self, calibration: &StoredCalibration) -> Result<(), StoreError> {
        let added = self.inner.add_calibration(calibration);
        self.timed("add_calibration", added).await
    }

    async fn calibrations(
        &self,
        machine_id: &str,
        at_most: u32,
    ) -> Result<Vec<StoredCalibration>, StoreError> {
        let read = self.inner.calibrations(machine_id, at_most);
        self.timed("calibrations", read).await
    }

    async fn cancel_run(&self, run: RunId, at_unix_ns: i64) -> Result<(), StoreError> {
        let before = self.inner.jobs(run).await?;
        self.timed("cancel_run", self.inner.cancel_run(run, at_unix_ns))
            .await?;
        let open: Vec<JobId> = before
            .iter()
            .filter(|job| !job.state.is_final())
            .map(|job| job.job.id)
            .collect();
        self.metrics
            .job_ended(JobState::Cancelled, open.len() as u64);
        if let Some(known) = self.run_of(run).await {
            for job in &open {
                self.tell_job(&known, *job, JobState::Cancelled, at_unix_ns);
            }
        }
        let mut known = self.known();
        for job in &open {
            known.waiting.remove(job);
            known.running.remove(job);
        }
        Ok(())
    }

    async fn items_done_of(&self, jobs: &[JobId]) -> Result<Vec<u64>, StoreError> {
        self.timed("items_done", self.inner.items_done_of(jobs))
            .await
    }

    async fn facts_of(&self, jobs: &[JobId]) -> Result<Vec<Vec<(u32, ModelFacts)>>, StoreError> {
        self.timed("facts", self.inner.facts_of(jobs)).await
    }

    async fn records(&self, job: JobId) -> Result<Vec<(u32, Record)>, StoreError> {
        self.timed("records", self.inner.records(job)).await
    }

    async fn job_counts(&self, run: RunId) -> Result<JobCounts, StoreError> {
        self.timed("job_counts", self.inner.job_counts(run)).await
    }

    async fn jobs_to_do(&self) -> Result<BTreeMap<RunId, u64>, StoreError> {
        self.timed("jobs_to_do", self.inner.jobs_to_do()).await
    }
}
