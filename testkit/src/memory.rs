//! A store in memory that does what the trait says, and fails where it is told to.
//!
//! It outlives coordinators as a file would. Three things can happen to an operation besides being
//! done: it fails and is not done; it is done but its answer is lost, so that it seems to have failed;
//! and the coordinator dies in it, before or after it is done.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tritmark_coordinator::store::{
    Appended, AttemptEnd, AttemptStart, AttemptState, JobCounts, Quarantine, RecordBatch, Store,
    StoreError, StoredAgent, StoredAttempt, StoredCalibration, StoredJob, StoredRun, expiry,
};
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, Job, JobId, RunId},
    machine::Machine,
    record::{ModelFacts, Record, RecordBody},
};

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Done,
    /// It is not done, and fails.
    Fails,
    /// It is done, and seems to fail.
    LosesAnswer,
    /// The coordinator dies; it is not done.
    DiesBefore,
    /// The coordinator dies; it is done.
    DiesAfter,
}

/// Runs, jobs, attempts, agents and records, in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
    /// What happens to the operation that changes something and is so many away.
    fate: Mutex<Option<(u32, Fate)>>,
    died: Notify,
}

#[derive(Debug, Default)]
struct Tables {
    runs: BTreeMap<RunId, (StoredRun, Vec<StoredJob>)>,
    agents: BTreeMap<String, StoredAgent>,
    records: BTreeMap<AttemptId, BTreeMap<u64, Record>>,
    signatures: BTreeMap<AttemptId, Vec<u8>>,
    calibrations: Vec<StoredCalibration>,
    last_fence: u64,
}

impl MemoryStore {
    /// Plans the fate of the `n`th operation from now that changes something, the next being 0.
    pub fn plan(&self, n: u32, fate: Fate) {
        *lock(&self.fate) = Some((n, fate));
    }

    /// Takes a plan back.
    pub fn calm(&self) {
        *lock(&self.fate) = None;
    }

    /// Waits until the coordinator has to die.
    pub async fn died(&self) {
        self.died.notified().await;
    }

    /// Does an operation as its fate is.
    async fn change<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Tables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fate = {
            let mut planned = lock(&self.fate);
            match &mut *planned {
                None => Fate::Done,
                Some((0, fate)) => {
                    let fate = *fate;
                    *planned = None;
                    fate
                }
                Some((n, _)) => {
                    *n -= 1;
                    Fate::Done
                }
            }
        };
        let failed = || StoreError::Damaged {
            what: operation.to_owned(),
            problem: "the simulated store fails".to_owned(),
        };
        match fate {
            Fate::Done => change(&mut lock(&self.tables)),
            Fate::Fails => Err(failed()),
            Fate::LosesAnswer => {
                change(&mut lock(&self.tables))?;
                Err(failed())
            }
            Fate::DiesBefore => self.die().await,
            Fate::DiesAfter => {
                let done = change(&mut lock(&self.tables));
                drop(done);
                self.die().await
            }
        }
    }

    /// Never ends: whoever drives the coordinator drops it.
    async fn die<T>(&self) -> T {
        self.died.notify_one();
        std::future::pending().await
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stale(attempt: AttemptId, why: &'static str) -> StoreError {
    StoreError::Stale {
        job: attempt.job,
        attempt: attempt.attempt.get(),
        why,
    }
}

impl Tables {
    fn job(&mut self, id: JobId) -> Option<&mut StoredJob> {
        let (_, jobs) = self.runs.get_mut(&id.run)?;
        jobs.get_mut(id.index as usize)
    }

    fn attempt(&mut self, id: AttemptId) -> Result<&mut StoredAttempt, StoreError> {
        let attempt = self
            .job(id.job)
            .and_then(|job| {
                job.attempts
                    .iter_mut()
                    .find(|attempt| attempt.id.attempt == id.attempt)
            })
            .ok_or_else(|| stale(id, "unknown"))?;
        if attempt.id.fence == id.fence {
            Ok(attempt)
        } else {
            Err(stale(id, "of another fence"))
        }
    }

    fn stored_below(&self, attempt: AttemptId) -> u64 {
        let records = self.records.get(&attempt);
        (0..)
            .zip(records.into_iter().flat_map(BTreeMap::keys))
            .take_while(|(rank, sequence)| rank == *sequence)
            .count() as u64
    }

    fn start(&mut self, start: &AttemptStart) -> Result<StoredAttempt, StoreError> {
        let fence = self.last_fence + 1;
        let run = self.runs.get(&start.job.run);
        let is_paused = run.is_some_and(|(run, _)| run.paused_unix_ns.is_some());
        let job = self
            .job(start.job)
            .filter(|job| job.state == JobState::Queued && !is_paused)
            .ok_or(StoreError::NotQueued { job: start.job })?;
        let count = u32::try_from(job.attempts.len()).expect("a job is not tried so often");
        let attempt = StoredAttempt {
            id: AttemptId {
                job: start.job,
                attempt: NonZeroU32::MIN.saturating_add(count),
                fence,
            },
            agent_id: start.agent_id.clone(),
            machine_id: start.machine_id.clone(),
            state: AttemptState::Running,
            started_unix_ns: start.at_unix_ns,
            lease_until_unix_ns: start.lease_until_unix_ns,
            ended_unix_ns: None,
            failure: None,
            counts: true,
            is_void: false,
        };
        job.state = JobState::Running;
        job.attempts.push(attempt.clone());
        self.last_fence = fence;
        Ok(attempt)
    }

    fn standing(&mut self, attempt: AttemptId) -> Result<Appended, StoreError> {
        let stored_below = self.stored_below(attempt);
        let finished = match self.attempt(attempt)?.state {
            AttemptState::Running => false,
            AttemptState::Succeeded | AttemptState::Failed => true,
            AttemptState::Lost => return Err(stale(attempt, "lost")),
            AttemptState::Cancelled => return Err(stale(attempt, "cancelled")),
        };
        Ok(Appended {
            stored_below,
            finished,
            ..Appended::default()
        })
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<Appended, StoreError> {
        let mut appended = self.standing(batch.attempt)?;
        if appended.finished {
            return Ok(appended);
        }
        let stored = self.records.entry(batch.attempt).or_default();
        for record in &batch.records {
            match stored.get(&record.sequence) {
                None => {
                    stored.insert(record.sequence, record.clone());
                    appended.n_new += 1;
                }
                Some(first) => appended.n_conflicts += u64::from(first != record),
            }
        }
        appended.stored_below = self.stored_below(batch.attempt);
        Ok(appended)
    }

    fn end(&mut self, attempt: AttemptId, end: &AttemptEnd) -> Result<(), StoreError> {
        let stored = self.attempt(attempt)?;
        let goes_on = end
            .if_lease_over_by_unix_ns
            .is_some_and(|by| stored.lease_until_unix_ns > by);
        if stored.state != AttemptState::Running || goes_on {
            return Err(stale(attempt, "over, or not yet"));
        }
        stored.state = end.state;
        stored.ended_unix_ns = Some(end.at_unix_ns);
        stored.failure.clone_from(&end.failure);
        stored.counts = end.counts;
        let job = self.job(attempt.job).expect("its attempt was found");
        job.state = end.job_state;
        if end.voids_earlier {
            for earlier in &mut job.attempts {
                earlier.is_void |= earlier.id.attempt < attempt.attempt;
            }
        }
        self.end_run_if_done(attempt.job.run, end.at_unix_ns);
        Ok(())
    }

    fn end_run_if_done(&mut self, run: RunId, at_unix_ns: i64) {
        if let Some((run, jobs)) = self.runs.get_mut(&run)
            && run.ended_unix_ns.is_none()
            && jobs.iter().all(|job| job.state.is_final())
        {
            run.ended_unix_ns = Some(at_unix_ns);
        }
    }

    fn items_done(&mut self, job: JobId) -> u64 {
        let void: Vec<u32> = self.job(job).map_or_else(Vec::new, |job| {
            let void = job.attempts.iter().filter(|attempt| attempt.is_void);
            void.map(|attempt| attempt.id.attempt.get()).collect()
        });
        let mut indexes: Vec<u64> = self
            .records_of(job)
            .filter(|(attempt, _)| !void.contains(attempt))
            .filter_map(|(_, record)| match &record.body {
                RecordBody::Item(item) => Some(item.index.into()),
                _ => None,
            })
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        let leading = (0..).zip(indexes).take_while(|(rank, index)| rank == index);
        leading.count() as u64
    }

    fn facts(&self, job: JobId) -> Vec<(u32, ModelFacts)> {
        let mut facts: Vec<(u32, ModelFacts)> = Vec::new();
        for (attempt, record) in self.records_of(job) {
            if let RecordBody::Facts(said) = &record.body
                && facts.last().is_none_or(|(last, _)| *last != attempt)
            {
                facts.push((attempt, said.clone()));
            }
        }
        facts
    }

    /// Returns a job's records with the attempts they belong to.
    fn records_of(&self, job: JobId) -> impl Iterator<Item = (u32, &Record)> {
        self.records
            .iter()
            .filter(move |(attempt, _)| attempt.job == job)
            .flat_map(|(attempt, records)| {
                records
                    .values()
                    .map(|record| (attempt.attempt.get(), record))
            })
    }
}

#[tonic::async_trait]
impl Store for MemoryStore {
    async fn add_run(&self, run: &StoredRun, jobs: &[Job]) -> Result<(), StoreError> {
        self.change("add a run", |tables| {
            let jobs = jobs.iter().cloned().map(StoredJob::queued).collect();
            tables.runs.insert(run.id, (run.clone(), jobs));
            Ok(())
        })
        .await
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        let tables = self.tables();
        Ok(tables.runs.values().map(|(run, _)| run.clone()).collect())
    }

    async fn open_runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        let mut runs = self.runs().await?;
        runs.retain(|run| run.ended_unix_ns.is_none());
        Ok(runs)
    }

    async fn run(&self, id: RunId) -> Result<Option<StoredRun>, StoreError> {
        Ok(self.tables().runs.get(&id).map(|(run, _)| run.clone()))
    }

    async fn newest_run_of(&self, plan_hash: &str) -> Result<Option<StoredRun>, StoreError> {
        let tables = self.tables();
        let runs = tables.runs.values().map(|(run, _)| run);
        Ok(runs
            .filter(|run| run.plan_hash == plan_hash)
            .max_by_key(|run| (run.submitted_unix_ns, run.id))
            .cloned())
    }

    async fn jobs(&self, run: RunId) -> Result<Vec<StoredJob>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .runs
            .get(&run)
            .map_or_else(Vec::new, |(_, jobs)| jobs.clone()))
    }

    async fn some_jobs(&self, jobs: &[JobId]) -> Result<Vec<StoredJob>, StoreError> {
        let mut tables = self.tables();
        let mut jobs = jobs.to_vec();
        jobs.sort_unstable();
        jobs.dedup();
        let known = jobs.into_iter().filter_map(|job| tables.job(job).cloned());
        Ok(known.collect())
    }

    async fn put_agent(&self, agent: &StoredAgent) -> Result<(), StoreError> {
        self.change("store an agent", |tables| {
            let mut agent = agent.clone();
            if let Some(before) = tables.agents.remove(&agent.id) {
                agent.quarantine = before.quarantine;
                agent.drain_unix_ns = before.drain_unix_ns;
            }
            tables.agents.insert(agent.id.clone(), agent);
            Ok(())
        })
        .await
    }

    async fn agents(&self) -> Result<Vec<StoredAgent>, StoreError> {
        Ok(self.tables().agents.values().cloned().collect())
    }

    async fn some_agents(&self, ids: &[String]) -> Result<Vec<StoredAgent>, StoreError> {
        let tables = self.tables();
        let known = ids.iter().filter_map(|id| tables.agents.get(id).cloned());
        Ok(known.collect())
    }

    async fn running_attempts(&self) -> Result<Vec<StoredAttempt>, StoreError> {
        let tables = self.tables();
        let jobs = tables.runs.values().flat_map(|(_, jobs)| jobs);
        let attempts = jobs.flat_map(|job| &job.attempts);
        let running = attempts.filter(|attempt| attempt.state == AttemptState::Running);
        Ok(running.cloned().collect())
    }

    async fn running_on(&self, agent_id: &str) -> Result<Vec<JobId>, StoreError> {
        let mut running = self.running_attempts().await?;
        running.retain(|attempt| attempt.agent_id == agent_id);
        Ok(running.into_iter().map(|attempt| attempt.id.job).collect())
    }

    async fn machines(&self, ids: &[String]) -> Result<Vec<Machine>, StoreError> {
        let tables = self.tables();
        let known = |id: &String| {
            tables
                .agents
                .values()
                .find(|agent| agent.machine.id == *id)
                .map(|agent| agent.machine.clone())
        };
        Ok(ids.iter().filter_map(known).collect())
    }

    async fn start_attempts(
        &self,
        starts: &[AttemptStart],
    ) -> Result<Vec<Result<StoredAttempt, StoreError>>, StoreError> {
        self.change("start attempts", |tables| {
            Ok(starts.iter().map(|start| tables.start(start)).collect())
        })
        .await
    }

    async fn revive_attempt(
        &self,
        attempt: AttemptId,
        _at_unix_ns: i64,
        lease_until_unix_ns: i64,
    ) -> Result<(), StoreError> {
        self.change("take an attempt up again", |tables| {
            if tables.attempt(attempt)?.state != AttemptState::Lost {
                return Err(stale(attempt, "not lost"));
            }
            let job = tables.job(attempt.job).expect("its attempt was found");
            let is_last = job.attempts.last().map(|last| last.id) == Some(attempt);
            if job.state != JobState::Queued || !is_last {
                return Err(StoreError::NotQueued { job: attempt.job });
            }
            job.state = JobState::Running;
            let last = tables.attempt(attempt)?;
            last.state = AttemptState::Running;
            last.ended_unix_ns = None;
            last.failure = None;
            last.counts = true;
            last.lease_until_unix_ns = lease_until_unix_ns;
            Ok(())
        })
        .await
    }

    async fn renew_leases(
        &self,
        leases: &[(AttemptId, i64)],
    ) -> Result<Vec<AttemptId>, StoreError> {
        self.change("renew leases", |tables| {
            let mut over = Vec::new();
            for (id, until) in leases {
                match tables.attempt(*id) {
                    Ok(attempt) if attempt.state == AttemptState::Running => {
                        attempt.lease_until_unix_ns = *until;
                    }
                    _ => over.push(*id),
                }
            }
            Ok(over)
        })
        .await
    }

    async fn attempt_agent(&self, attempt: AttemptId) -> Result<Option<String>, StoreError> {
        let tables = self.tables();
        let jobs = tables.runs.get(&attempt.job.run).map(|(_, jobs)| jobs);
        let job = jobs.and_then(|jobs| jobs.get(attempt.job.index as usize));
        let attempts = job.into_iter().flat_map(|job| &job.attempts);
        let mut same = attempts.filter(|stored| stored.id.attempt == attempt.attempt);
        Ok(same.next().map(|stored| stored.agent_id.clone()))
    }

    async fn put_signature(&self, attempt: AttemptId, signed: &[u8]) -> Result<(), StoreError> {
        self.change("keep a signature", |tables| {
            tables.signatures.insert(attempt, signed.to_vec());
            Ok(())
        })
        .await
    }

    async fn signatures(&self, run: RunId) -> Result<Vec<(u32, u32, Vec<u8>)>, StoreError> {
        let tables = self.tables();
        let of_run = tables.signatures.iter();
        Ok(of_run
            .filter(|(attempt, _)| attempt.job.run == run)
            .map(|(attempt, signed)| (attempt.job.index, attempt.attempt.get(), signed.clone()))
            .collect())
    }

    async fn standings(
        &self,
        attempts: &[AttemptId],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        let mut tables = self.tables();
        Ok(attempts
            .iter()
            .map(|attempt| tables.standing(*attempt))
            .collect())
    }

    async fn append(
        &self,
        batches: &[RecordBatch],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        self.change("store records", |tables| {
            Ok(batches.iter().map(|batch| tables.append(batch)).collect())
        })
        .await
    }

    async fn end_attempts(
        &self,
        ends: &[(AttemptId, AttemptEnd)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.change("end attempts", |tables| {
            Ok(ends
                .iter()
                .map(|(attempt, end)| tables.end(*attempt, end))
                .collect())
        })
        .await
    }

    async fn pause_run(
        &self,
        run: RunId,
        since_unix_ns: Option<i64>,
        _at_unix_ns: i64,
    ) -> Result<(), StoreError> {
        self.change("pause a run", |tables| {
            if let Some((run, _)) = tables.runs.get_mut(&run)
                && run.ended_unix_ns.is_none()
            {
                run.paused_unix_ns = since_unix_ns;
            }
            Ok(())
        })
        .await
    }

    async fn expire_jobs(
        &self,
        run: RunId,
        jobs: &[(u32, u32)],
        at_unix_ns: i64,
    ) -> Result<Vec<u32>, StoreError> {
        self.change("let jobs expire", |tables| {
            let mut expired = Vec::new();
            for (index, n_attempts) in jobs {
                let id = JobId { run, index: *index };
                if let Some(job) = tables.job(id)
                    && job.state == JobState::Queued
                    && job.attempts.len() == *n_attempts as usize
                {
                    job.state = JobState::Failed;
                    job.failure = Some(expiry());
                    expired.push(*index);
                }
            }
            tables.end_run_if_done(run, at_unix_ns);
            Ok(expired)
        })
        .await
    }

    async fn ask_drain(
        &self,
        agent_id: &str,
        since_unix_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        self.change("tell an agent to leave", |tables| {
            if let Some(agent) = tables.agents.get_mut(agent_id) {
                agent.drain_unix_ns = since_unix_ns;
            }
            Ok(())
        })
        .await
    }

    async fn quarantine(&self, agent_id: &str, why: &Quarantine) -> Result<(), StoreError> {
        self.change("quarantine an agent", |tables| {
            if let Some(agent) = tables.agents.get_mut(agent_id) {
                agent.quarantine.get_or_insert_with(|| why.clone());
            }
            Ok(())
        })
        .await
    }

    async fn release_agent(&self, agent_id: &str) -> Result<(), StoreError> {
        self.change("release an agent", |tables| {
            let Some(agent) = tables.agents.get_mut(agent_id) else {
                return Ok(());
            };
            if agent.quarantine.take().is_some() {
                let machine_id = &agent.machine.id;
                let of_machine = tables.calibrations.iter_mut();
                let of_machine = of_machine.filter(|it| it.machine_id == *machine_id);
                let mut latest: Option<&mut StoredCalibration> = None;
                for calibration in of_machine {
                    calibration.counts = false;
                    if latest
                        .as_ref()
                        .is_none_or(|it| it.at_unix_ns <= calibration.at_unix_ns)
                    {
                        latest = Some(calibration);
                    }
                }
                if let Some(latest) = latest {
                    latest.counts = true;
                }
            }
            Ok(())
        })
        .await
    }

    async fn add_calibration(&self, calibration: &StoredCalibration) -> Result<(), StoreError> {
        self.change("store a calibration", |tables| {
            if !tables.calibrations.contains(calibration) {
                tables.calibrations.push(calibration.clone());
            }
            Ok(())
        })
        .await
    }

    async fn calibrations(
        &self,
        machine_id: &str,
        at_most: u32,
    ) -> Result<Vec<StoredCalibration>, StoreError> {
        let tables = self.tables();
        let of_machine = tables.calibrations.iter();
        let mut found: Vec<StoredCalibration> = of_machine
            .filter(|it| it.machine_id == machine_id)
            .cloned()
            .collect();
        found.sort_by_key(|it| std::cmp::Reverse(it.at_unix_ns));
        found.truncate(at_most as usize);
        Ok(found)
    }

    async fn cancel_run(&self, run: RunId, at_unix_ns: i64) -> Result<(), StoreError> {
        self.change("cancel a run", |tables| {
            let Some((_, jobs)) = tables.runs.get_mut(&run) else {
                return Ok(());
            };
            for job in jobs.iter_mut().filter(|job| !job.state.is_final()) {
                job.state = JobState::Cancelled;
                for attempt in &mut job.attempts {
                    if attempt.state == AttemptState::Running {
                        attempt.state = AttemptState::Cancelled;
                        attempt.ended_unix_ns = Some(at_unix_ns);
                    }
                }
            }
            tables.end_run_if_done(run, at_unix_ns);
            Ok(())
        })
        .await
    }

    async fn items_done_of(&self, jobs: &[JobId]) -> Result<Vec<u64>, StoreError> {
        let mut tables = self.tables();
        Ok(jobs.iter().map(|job| tables.items_done(*job)).collect())
    }

    async fn facts_of(&self, jobs: &[JobId]) -> Result<Vec<Vec<(u32, ModelFacts)>>, StoreError> {
        let tables = self.tables();
        Ok(jobs.iter().map(|job| tables.facts(*job)).collect())
    }

    async fn records(&self, job: JobId) -> Result<Vec<(u32, Record)>, StoreError> {
        let tables = self.tables();
        let records = tables.records_of(job);
        Ok(records
            .map(|(attempt, record)| (attempt, record.clone()))
            .collect())
    }

    async fn job_counts(&self, run: RunId) -> Result<JobCounts, StoreError> {
        let tables = self.tables();
        let jobs = tables.runs.get(&run).into_iter().flat_map(|(_, jobs)| jobs);
        Ok(JobCounts::of(jobs))
    }
}
