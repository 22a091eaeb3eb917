//! A run's jobs, with those that wait in such an order that the next is found without looking at all.
//!
//! Jobs between which the scheduler cannot tell for any agent are of one class: the same suite for the
//! same machines and, if they need a machine to themselves, in the same comparison. Of each class only
//! the first that waits can be next.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::broadcast;
use tritmark_proto::{bundle::JobState, wire};

use super::{WATCH_BACKLOG, scoring::awaits_scores};
use crate::{
    schedule::{Comparison, Waiting},
    store::{JobCounts, StoredJob, StoredRun},
};

/// A run that has not ended.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) stored: StoredRun,
    pub(super) events: broadcast::Sender<wire::RunEvent>,
    pub(super) counts: JobCounts,
    jobs: Vec<RunJob>,
    classes: Vec<Class>,
    /// Jobs that wait until a time.
    delayed: BTreeSet<(i64, u32)>,
    /// Jobs that wait for the coordinator's scores, and until when at least.
    unscored: BTreeSet<(i64, u32)>,
}

#[derive(Debug)]
pub(super) struct RunJob {
    pub(super) stored: StoredJob,
    pub(super) comparison: Arc<Comparison>,
    class: usize,
    not_before_unix_ns: i64,
}

#[derive(Debug)]
struct Class {
    /// Positions of jobs that wait and may begin at once.
    ready: BTreeSet<u32>,
}

impl Run {
    pub(super) fn new(stored: StoredRun, jobs: Vec<StoredJob>) -> Self {
        let (events, _) = broadcast::channel(WATCH_BACKLOG);
        let mut run = Self {
            stored,
            events,
            counts: JobCounts::of(&jobs),
            jobs: Vec::with_capacity(jobs.len()),
            classes: Vec::new(),
            delayed: BTreeSet::new(),
            unscored: BTreeSet::new(),
        };
        let mut comparisons: HashMap<Comparison, Arc<Comparison>> = HashMap::new();
        let mut classes: HashMap<(&'static str, Arc<Comparison>), usize> = HashMap::new();
        let mut shared: HashMap<(&'static str, String), usize> = HashMap::new();
        for stored in jobs {
            let comparison = Comparison::of(&stored.job);
            let comparison = Arc::clone(
                comparisons
                    .entry(comparison.clone())
                    .or_insert_with(|| Arc::new(comparison)),
            );
            let suite = stored.job.suite.name();
            let next = run.classes.len();
            let class = if stored.job.suite.is_exclusive() {
                *classes
                    .entry((suite, Arc::clone(&comparison)))
                    .or_insert(next)
            } else {
                *shared
                    .entry((suite, comparison.selector().to_owned()))
                    .or_insert(next)
            };
            if class == next {
                run.classes.push(Class {
                    ready: BTreeSet::new(),
                });
            }
            if awaits_scores(&stored) {
                run.unscored.insert((0, stored.job.id.index));
            } else if stored.state == JobState::Queued {
                run.classes[class].ready.insert(stored.job.id.index);
            }
            run.jobs.push(RunJob {
                stored,
                comparison,
                class,
                not_before_unix_ns: 0,
            });
        }
        run
    }

    pub(super) fn jobs(&self) -> &[RunJob] {
        &self.jobs
    }

    pub(super) fn job(&self, index: u32) -> Option<&RunJob> {
        self.jobs.get(index as usize)
    }

    /// Changes what is known of a job. A job that is queued afterwards waits until `not_before`.
    pub(super) fn change(
        &mut self,
        index: u32,
        not_before_unix_ns: i64,
        change: impl FnOnce(&mut StoredJob),
    ) {
        self.take(index);
        let Some(job) = self.jobs.get_mut(index as usize) else {
            return;
        };
        let before = job.stored.state;
        let was_expired = job.stored.is_expired();
        change(&mut job.stored);
        let after = job.stored.state;
        self.counts.move_one(before, after);
        self.counts.expired += u32::from(job.stored.is_expired());
        self.counts.expired -= u32::from(was_expired);
        job.not_before_unix_ns = not_before_unix_ns;
        if after != JobState::Queued {
            return;
        }
        if awaits_scores(&job.stored) {
            self.unscored.insert((not_before_unix_ns, index));
        } else if not_before_unix_ns > 0 {
            self.delayed.insert((not_before_unix_ns, index));
        } else {
            self.classes[job.class].ready.insert(index);
        }
    }

    /// Takes a job from those that wait, until [`Self::change`] says how it stands.
    pub(super) fn take(&mut self, index: u32) {
        if let Some(job) = self.jobs.get(index as usize) {
            self.classes[job.class].ready.remove(&index);
            self.delayed.remove(&(job.not_before_unix_ns, index));
            self.unscored.remove(&(job.not_before_unix_ns, index));
        }
    }

    /// Lets the jobs begin whose wait is over. Returns whether there were any.
    pub(super) fn release(&mut self, now: i64) -> bool {
        let mut is_any = false;
        while let Some((until, index)) = self.delayed.first().copied()
            && until <= now
        {
            self.delayed.pop_first();
            let class = self.jobs[index as usize].class;
            self.classes[class].ready.insert(index);
            is_any = true;
        }
        is_any
    }

    /// Returns when the next job may begin that may not yet.
    pub(super) fn next_release(&self) -> Option<i64> {
        self.delayed.first().map(|(until, _)| *until)
    }

    /// Returns the next job to score, and from when on it may be.
    pub(super) fn next_unscored(&self) -> Option<(i64, &RunJob)> {
        let (from, index) = self.unscored.first()?;
        Some((*from, &self.jobs[*index as usize]))
    }

    /// Returns when the jobs that wait are given up, if there are any.
    pub(super) fn expires_at(&self) -> Option<i64> {
        let at = self.stored.expires_unix_ns?;
        (self.has_ready() || !self.delayed.is_empty()).then_some(at)
    }

    /// Returns the positions of the jobs that wait for an agent, with how many attempts they have had.
    pub(super) fn unbegun(&self) -> Vec<(u32, u32)> {
        let ready = self.classes.iter().flat_map(|class| &class.ready);
        let delayed = self.delayed.iter().map(|(_, index)| index);
        let n_attempts = |index: u32| self.jobs[index as usize].stored.attempts.len();
        ready
            .chain(delayed)
            .map(|index| {
                (
                    *index,
                    u32::try_from(n_attempts(*index)).unwrap_or(u32::MAX),
                )
            })
            .collect()
    }

    /// Returns whether any job may begin.
    pub(super) fn has_ready(&self) -> bool {
        self.classes.iter().any(|class| !class.ready.is_empty())
    }

    /// Returns the first job of each class that may begin, in order.
    pub(super) fn heads(&self) -> Vec<Waiting<'_>> {
        let mut heads: Vec<u32> = self
            .classes
            .iter()
            .filter_map(|class| class.ready.first().copied())
            .collect();
        heads.sort_unstable();
        heads
            .into_iter()
            .map(|index| {
                let job = &self.jobs[index as usize];
                Waiting {
                    job: &job.stored.job,
                    comparison: &job.comparison,
                    not_before_unix_ns: 0,
                }
            })
            .collect()
    }
}
