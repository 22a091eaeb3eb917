//! The check that nothing was lost and nothing done twice.
//!
//! It compares three accounts that know nothing of each other: the store, the agents' own journals
//! ([`crate::journal`]), and what the workers must have found out ([`crate::work`]).

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use tritmark_coordinator::store::{AttemptState, Store, StoreError, StoredAttempt, StoredJob};
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, JobId},
    record::{Record, RecordBody},
    wire,
};

use crate::{journal::Entry, work};

/// What the check goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The coordinator's clock was set, so that its times say nothing of what overlapped.
    pub clock_stepped: bool,
    /// Whether jobs may have failed or been cancelled.
    pub unsuccessful: bool,
    /// Messages overtook each other, so that an attempt that did not succeed may have gaps beyond
    /// what was acknowledged.
    pub overtaken: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Runs in the store.
    pub n_runs: u64,
    /// Jobs of all runs.
    pub n_jobs: u64,
    /// Those that succeeded.
    pub n_succeeded: u64,
    /// Attempts at them.
    pub n_attempts: u64,
    /// Records in the store.
    pub n_records: u64,
    /// Records the agents were told are stored.
    pub n_acknowledged: u64,
    /// Everything that must not be.
    pub problems: Vec<String>,
}

impl Verdict {
    /// Panics unless everything is as it must be.
    ///
    /// # Panics
    /// With all problems, and what repeats them.
    #[track_caller]
    pub fn assert_right(&self, what: &str) {
        assert!(
            self.problems.is_empty(),
            "{what}: {} problems:\n{}",
            self.problems.len(),
            self.problems.join("\n")
        );
    }
}

/// Checks every run of a store.
///
/// # Errors
/// Only where the store cannot be read; what is wrong with its contents is in the verdict.
pub async fn check(
    store: &dyn Store,
    journal: &[Entry],
    expected: Expected,
) -> Result<Verdict, StoreError> {
    let mut check = Check {
        expected,
        verdict: Verdict::default(),
        fences: BTreeMap::new(),
        nonces: BTreeMap::new(),
        stored: BTreeMap::new(),
    };
    for run in store.runs().await? {
        check.verdict.n_runs += 1;
        if run.ended_unix_ns.is_none() {
            check.wrong(format!("run {} has not ended", run.id));
        }
        for job in store.jobs(run.id).await? {
            let records = store.records(job.job.id).await?;
            check.job(&job, &records);
        }
    }
    check.journal(journal);
    Ok(check.verdict)
}

struct Check {
    expected: Expected,
    verdict: Verdict,
    fences: BTreeMap<u64, AttemptId>,
    nonces: BTreeMap<u64, AttemptId>,
    /// How many records each attempt has without a gap, and whether it is over.
    stored: BTreeMap<AttemptId, (u64, AttemptState)>,
}

impl Check {
    fn wrong(&mut self, problem: String) {
        self.verdict.problems.push(problem);
    }

    fn job(&mut self, job: &StoredJob, records: &[(u32, Record)]) {
        let id = job.job.id;
        self.verdict.n_jobs += 1;
        self.verdict.n_records += records.len() as u64;
        self.attempts(id, &job.attempts);
        let n_succeeded = job
            .attempts
            .iter()
            .filter(|attempt| attempt.state == AttemptState::Succeeded)
            .count();
        match job.state {
            JobState::Succeeded => self.verdict.n_succeeded += 1,
            state if !state.is_final() => self.wrong(format!("job {id} is {}", state.name())),
            state if !self.expected.unsuccessful => {
                let why: Vec<_> = job
                    .attempts
                    .iter()
                    .map(|attempt| {
                        let message = attempt.failure.as_ref().map(|failure| &failure.message);
                        format!("{} {message:?}", attempt.state.name())
                    })
                    .collect();
                self.wrong(format!("job {id} is {}: {}", state.name(), why.join("; ")));
            }
            _ => {}
        }
        if n_succeeded != usize::from(job.state == JobState::Succeeded) {
            self.wrong(format!(
                "job {id} is {} with {n_succeeded} attempts that succeeded",
                job.state.name()
            ));
        }
        let mut of_attempt: BTreeMap<u32, Vec<&Record>> = BTreeMap::new();
        for (attempt, record) in records {
            of_attempt.entry(*attempt).or_default().push(record);
        }
        for attempt in &job.attempts {
            let own = of_attempt.remove(&attempt.id.attempt.get());
            self.records(job, attempt, own.as_deref().unwrap_or_default());
        }
        for attempt in of_attempt.keys() {
            self.wrong(format!(
                "job {id} has records of an unknown attempt {attempt}"
            ));
        }
        if job.state == JobState::Succeeded {
            self.items(job, records);
        }
    }

    /// One after the other, with fences that grow and are nobody else's.
    fn attempts(&mut self, id: JobId, attempts: &[StoredAttempt]) {
        let mut before: Option<&StoredAttempt> = None;
        for (attempt, count) in attempts.iter().zip(1..) {
            self.verdict.n_attempts += 1;
            if attempt.id.attempt.get() != count {
                let found = attempt.id.attempt;
                self.wrong(format!("attempt {count} of job {id} is called {found}"));
            }
            if attempt.state == AttemptState::Running {
                self.wrong(format!("attempt {count} of job {id} still runs"));
            }
            if let Some(other) = self.fences.insert(attempt.id.fence, attempt.id) {
                let fence = attempt.id.fence;
                let others = other.job;
                self.wrong(format!("jobs {id} and {others} both have fence {fence}"));
            }
            if let Some(before) = before {
                if before.id.fence >= attempt.id.fence {
                    self.wrong(format!("fences of job {id} do not grow"));
                }
                let is_after = before
                    .ended_unix_ns
                    .is_some_and(|ended| ended <= attempt.started_unix_ns);
                if !is_after && !self.expected.clock_stepped {
                    self.wrong(format!(
                        "attempt {count} of job {id} began before the one before it had ended"
                    ));
                }
                if before.state == AttemptState::Succeeded {
                    self.wrong(format!("job {id} was begun again after it had succeeded"));
                }
            }
            before = Some(attempt);
        }
    }

    /// One worker's records, in order, each byte as that worker made it.
    fn records(&mut self, job: &StoredJob, attempt: &StoredAttempt, records: &[&Record]) {
        let id = attempt.id;
        let name = format!("attempt {} of job {}", id.attempt, id.job);
        let places = (0..).zip(records);
        let leading = places.take_while(|(place, record)| record.sequence == *place);
        self.stored
            .insert(id, (leading.count() as u64, attempt.state));
        let Some(first) = records.first() else {
            if attempt.state == AttemptState::Succeeded {
                self.wrong(format!("{name} succeeded without a record"));
            }
            return;
        };
        let Some((nonce, items_done)) = work::origin(first) else {
            self.wrong(format!("{name} does not begin with its worker's facts"));
            return;
        };
        if let Some(other) = self.nonces.insert(nonce, id) {
            let AttemptId { job, attempt, .. } = other;
            self.wrong(format!(
                "{name} has records of the worker of attempt {attempt} of job {job}"
            ));
        }
        let made = work::records(&job.job, nonce, items_done);
        if attempt.state == AttemptState::Succeeded && made.len() != records.len() {
            let (n, n_made) = (records.len(), made.len());
            self.wrong(format!("{name} succeeded with {n} of {n_made} records"));
        }
        if records.len() > made.len() {
            let (n, n_made) = (records.len(), made.len());
            self.wrong(format!("{name} has {n} records, its worker made {n_made}"));
        }
        let may_have_gaps = self.expected.overtaken && attempt.state != AttemptState::Succeeded;
        for (place, stored) in (0..).zip(records) {
            let sequence = stored.sequence;
            if sequence != place && !may_have_gaps {
                self.wrong(format!("{name} has record {sequence} at place {place}"));
            }
            if made.get(sequence as usize).map(bytes) != Some(bytes(stored)) {
                self.wrong(format!(
                    "record {sequence} of {name} is not what its worker made"
                ));
            }
        }
    }

    /// Every item once, over all attempts that count.
    fn items(&mut self, job: &StoredJob, records: &[(u32, Record)]) {
        let Some(n_items) = work::n_items(&job.job) else {
            return;
        };
        let void: BTreeSet<u32> = job
            .attempts
            .iter()
            .filter(|attempt| attempt.is_void)
            .map(|attempt| attempt.id.attempt.get())
            .collect();
        let mut times: BTreeMap<u64, u32> = (0..n_items).map(|index| (index, 0)).collect();
        for (attempt, record) in records {
            if let RecordBody::Item(item) = &record.body
                && !void.contains(attempt)
            {
                *times.entry(item.index.into()).or_default() += 1;
            }
        }
        let id = job.job.id;
        for (index, n) in times {
            if n != 1 || index >= n_items {
                self.wrong(format!(
                    "item {index} of {n_items} of job {id} is there {n} times"
                ));
            }
        }
    }

    fn journal(&mut self, journal: &[Entry]) {
        let mut started = BTreeSet::new();
        let mut told: BTreeMap<AttemptId, u64> = BTreeMap::new();
        for entry in journal {
            match *entry {
                Entry::Started(attempt) => {
                    if !started.insert(attempt) {
                        self.wrong(format!("{attempt:?} was worked on twice"));
                    }
                    if !self.stored.contains_key(&attempt) {
                        self.wrong(format!("{attempt:?} was worked on, but nobody assigned it"));
                    }
                }
                Entry::Acknowledged {
                    attempt,
                    stored_below,
                    finished,
                } => {
                    let below = told.entry(attempt).or_default();
                    *below = stored_below.max(*below);
                    match self.stored.get(&attempt) {
                        Some((_, AttemptState::Running)) if finished => self.wrong(format!(
                            "the end of {attempt:?} was acknowledged, and it still runs"
                        )),
                        Some((n_records, _)) if *n_records < stored_below => {
                            let n_records = *n_records;
                            self.wrong(format!(
                                "{stored_below} records of {attempt:?} were acknowledged, \
                                 {n_records} are stored"
                            ));
                        }
                        Some(_) => {}
                        None => self.wrong(format!("{attempt:?} was acknowledged and is unknown")),
                    }
                }
            }
        }
        self.verdict.n_acknowledged = told.values().sum();
    }
}

fn bytes(record: &Record) -> Vec<u8> {
    wire::Record::from(record.clone()).encode_to_vec()
}

#[cfg(test)]
mod tests;
