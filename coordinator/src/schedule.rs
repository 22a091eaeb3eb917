//! What next, for whom, and whether again. Pure: `run.rs` asks and acts.
//!
//! Performance jobs have their machine to themselves, and all those of one comparison go to the
//! machine that took the first of them. Accuracy and agreement jobs go anywhere, but not beside a
//! performance job.

use std::{collections::BTreeMap, time::Duration};

use tritmark_proto::{
    bundle::{FailureClass, JobState},
    job::{Job, JobId, RunId},
    machine::Machine,
};

pub mod preview;
#[cfg(test)]
mod tests;

/// What the scheduler goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Tries of a job that fails for transient reasons or with its agent.
    pub max_attempts: u32,
    /// Wait before the second try; doubled for each further one.
    pub retry_delay: Duration,
    /// How long a machine may be away before its comparisons go to another.
    pub forget_machine_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            retry_delay: Duration::from_secs(1),
            forget_machine_after: Duration::from_mins(10),
        }
    }
}

/// What must be measured on one machine to be comparable: a baseline and its candidates, for one
/// selector of one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comparison {
    run: RunId,
    root: String,
    selector: String,
}

impl Comparison {
    /// Returns the comparison a job belongs to.
    pub fn of(job: &Job) -> Self {
        Self {
            run: job.id.run,
            root: job.model.baseline.as_ref().unwrap_or(&job.model.id).clone(),
            selector: format!("{:?}", job.selector),
        }
    }

    /// Returns a name that no other comparison of the run has.
    pub fn name(&self) -> String {
        format!("{} {:?}", self.selector, self.root)
    }

    /// Returns what machines it may be measured on, as a text.
    pub(crate) fn selector(&self) -> &str {
        &self.selector
    }
}

/// A job that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// The job.
    pub job: &'a Job,
    /// What it is part of.
    pub comparison: &'a Comparison,
    /// When it may be tried again.
    pub not_before_unix_ns: i64,
}

/// An agent that could take a job.
#[derive(Clone, Copy, Debug)]
pub struct Idle<'a> {
    /// Its machine.
    pub machine: &'a Machine,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Suites it can run; any if empty.
    pub suites: &'a [String],
    /// Whether it takes no performance jobs.
    pub is_quarantined: bool,
    /// What the machine is doing already.
    pub load: Load,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Attempts that run there.
    pub n_running: u32,
    /// Whether one of them needs the machine to itself.
    pub is_exclusive: bool,
}

/// Where comparisons are being measured.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    machines: BTreeMap<Comparison, String>,
}

impl Pins {
    /// Notes that `job` was begun on a machine; the latest such machine counts.
    pub fn note(&mut self, job: &Job, comparison: &Comparison, machine_id: &str) {
        if job.suite.is_exclusive() {
            self.machines
                .insert(comparison.clone(), machine_id.to_owned());
        }
    }

    /// Puts a comparison back to where it was before [`Self::note`].
    pub fn restore(&mut self, comparison: &Comparison, machine_id: Option<String>) {
        match machine_id {
            Some(machine_id) => {
                self.machines.insert(comparison.clone(), machine_id);
            }
            None => {
                self.machines.remove(comparison);
            }
        }
    }

    /// Forgets a run.
    pub fn forget(&mut self, run: RunId) {
        self.machines.retain(|comparison, _| comparison.run != run);
    }

    /// Returns the machine of a comparison.
    pub fn machine(&self, comparison: &Comparison) -> Option<&str> {
        self.machines.get(comparison).map(String::as_str)
    }
}

/// Returns the first job, in order, that the agent may begin now.
///
/// `is_away` tells of a machine that nobody has heard of for [`Policy::forget_machine_after`], or that
/// is in quarantine.
pub fn next<'a>(
    waiting: impl IntoIterator<Item = Waiting<'a>>,
    agent: &Idle<'_>,
    pins: &Pins,
    is_away: impl Fn(&str) -> bool,
    now_unix_ns: i64,
) -> Option<JobId> {
    if agent.load.is_exclusive {
        return None;
    }
    for waiting in waiting {
        let job = waiting.job;
        let is_allowed = waiting.not_before_unix_ns <= now_unix_ns
            && job.suite.is_among(agent.suites)
            && !(agent.is_quarantined && job.suite.is_exclusive())
            && job.selector.matches(agent.machine, agent.labels);
        if !is_allowed {
            continue;
        }
        if !job.suite.is_exclusive() {
            return Some(job.id);
        }
        let is_elsewhere = pins
            .machine(waiting.comparison)
            .is_some_and(|machine| machine != agent.machine.id && !is_away(machine));
        if is_elsewhere {
            continue;
        }
        // Where another agent works on this machine, nothing new begins until the performance job
        // could: else accuracy jobs would keep it waiting for ever.
        return (agent.load.n_running == 0).then_some(job.id);
    }
    None
}

/// Returns a job's state after an attempt failed, the `n_counted`th that counts.
pub fn after_failure(class: FailureClass, n_counted: u32, policy: &Policy) -> JobState {
    match class {
        FailureClass::Permanent | FailureClass::Expired => JobState::Failed,
        FailureClass::Transient | FailureClass::Infrastructure => {
            if n_counted < policy.max_attempts {
                JobState::Queued
            } else {
                JobState::Failed
            }
        }
    }
}

/// Returns how long a job waits after its `n_counted`th failure; at once after none that counts.
pub fn retry_delay(n_counted: u32, policy: &Policy) -> Duration {
    match n_counted {
        0 => Duration::ZERO,
        n => policy.retry_delay.saturating_mul(1 << (n - 1).min(16)),
    }
}
