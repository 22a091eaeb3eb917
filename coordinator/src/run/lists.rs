//! A run's jobs, with those that wait in such an order that the next is found without looking at all.
//!
//! Jobs between which the scheduler cannot tell for any agent are of one class: the same suite for the
//! same machines and, if they need a machine to themselves, in the same comparison. Of each class only
//! the first that waits, its head, can be next. Classes of one suite for the same machines are of one
//! kind. For an agent they differ only by where their comparisons are pinned, so that the heads of a
//! kind stand in lanes: one of comparisons that are pinned nowhere, and one for each machine.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::broadcast;
use tritmark_proto::{bundle::JobState, job::Job, wire};

use super::{WATCH_BACKLOG, scoring::awaits_scores};
use crate::{
    schedule::{Comparison, Waiting},
    store::{JobCounts, StoredJob, StoredRun},
};

/// A run that has not ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) stored: StoredRun,
    pub(super) events: broadcast::Sender<wire::RunEvent>,
    pub(super) counts: JobCounts,
    jobs: Vec<RunJob>,
    classes: Vec<Class>,
    kinds: Vec<Kind>,
    /// The classes of each comparison whose jobs need their machine to themselves.
    exclusive: HashMap<Arc<Comparison>, Vec<usize>>,
    /// Jobs in the classes, over all.
    n_ready: usize,
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
    kind: usize,
    /// The machine its comparison is pinned to.
    pinned_to: Option<Arc<str>>,
}

/// The heads of a kind's classes.
#[derive(Debug, Default)]
struct Kind {
    anywhere: BTreeSet<u32>,
    pinned: HashMap<Arc<str>, BTreeSet<u32>>,
}

impl Kind {
    fn add(&mut self, head: u32, pinned_to: Option<&Arc<str>>) {
        match pinned_to {
            None => self.anywhere.insert(head),
            Some(machine) => self
                .pinned
                .entry(Arc::clone(machine))
                .or_default()
                .insert(head),
        };
    }

    fn remove(&mut self, head: u32, pinned_to: Option<&Arc<str>>) {
        match pinned_to {
            None => {
                self.anywhere.remove(&head);
            }
            Some(machine) => {
                if let Some(lane) = self.pinned.get_mut(machine) {
                    lane.remove(&head);
                    if lane.is_empty() {
                        self.pinned.remove(machine);
                    }
                }
            }
        }
    }
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
            kinds: Vec::new(),
            exclusive: HashMap::new(),
            n_ready: 0,
            delayed: BTreeSet::new(),
            unscored: BTreeSet::new(),
        };
        let mut comparisons: HashMap<Comparison, Arc<Comparison>> = HashMap::new();
        let mut classes: HashMap<(usize, Option<Arc<Comparison>>), usize> = HashMap::new();
        let mut kinds: HashMap<(&'static str, String), usize> = HashMap::new();
        for stored in jobs {
            let comparison = Comparison::of(&stored.job);
            let comparison = Arc::clone(
                comparisons
                    .entry(comparison.clone())
                    .or_insert_with(|| Arc::new(comparison)),
            );
            let suite = stored.job.suite.name();
            let next = run.kinds.len();
            let kind = *kinds
                .entry((suite, comparison.selector().to_owned()))
                .or_insert(next);
            if kind == next {
                run.kinds.push(Kind::default());
            }
            let is_exclusive = stored.job.suite.is_exclusive();
            let next = run.classes.len();
            let of = is_exclusive.then(|| Arc::clone(&comparison));
            let class = *classes.entry((kind, of)).or_insert(next);
            if class == next {
                run.classes.push(Class {
                    ready: BTreeSet::new(),
                    kind,
                    pinned_to: None,
                });
                if is_exclusive {
                    let same = run.exclusive.entry(Arc::clone(&comparison));
                    same.or_default().push(class);
                }
            }
            if awaits_scores(&stored) {
                run.unscored.insert((0, stored.job.id.index));
            } else if stored.state == JobState::Queued {
                run.add_ready(class, stored.job.id.index);
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

    /// Returns a run of which nothing has begun.
    pub(super) fn submitted(stored: StoredRun, jobs: Vec<Job>) -> Self {
        let jobs = jobs.into_iter().map(StoredJob::queued);
        Self::new(stored, jobs.collect())
    }

    pub(super) fn jobs(&self) -> &[RunJob] {
        &self.jobs
    }

    pub(super) fn job(&self, index: u32) -> Option<&RunJob> {
        self.jobs.get(index as usize)
    }

    /// Changes what is known of a job. A job that is queued afterwards waits until `not_before`. Returns
    /// whether it may begin at once.
    pub(super) fn change(
        &mut self,
        index: u32,
        not_before_unix_ns: i64,
        change: impl FnOnce(&mut StoredJob),
    ) -> bool {
        self.take(index);
        let Some(job) = self.jobs.get_mut(index as usize) else {
            return false;
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
            return false;
        }
        if awaits_scores(&job.stored) {
            self.unscored.insert((not_before_unix_ns, index));
        } else if not_before_unix_ns > 0 {
            self.delayed.insert((not_before_unix_ns, index));
        } else {
            let class = job.class;
            self.add_ready(class, index);
            return true;
        }
        false
    }

    /// Takes a job from those that wait, until [`Self::change`] says how it stands.
    pub(super) fn take(&mut self, index: u32) {
        if let Some(job) = self.jobs.get(index as usize) {
            self.delayed.remove(&(job.not_before_unix_ns, index));
            self.unscored.remove(&(job.not_before_unix_ns, index));
            let class = job.class;
            self.remove_ready(class, index);
        }
    }

    /// Notes where a comparison is measured, or that it is nowhere.
    pub(super) fn pin(&mut self, comparison: &Comparison, machine_id: Option<&str>) {
        let Some(classes) = self.exclusive.get(comparison) else {
            return;
        };
        let machine: Option<Arc<str>> = machine_id.map(Into::into);
        for class in classes {
            let class = &mut self.classes[*class];
            if class.pinned_to == machine {
                continue;
            }
            let before = std::mem::replace(&mut class.pinned_to, machine.clone());
            if let Some(head) = class.ready.first() {
                let kind = &mut self.kinds[class.kind];
                kind.remove(*head, before.as_ref());
                kind.add(*head, machine.as_ref());
            }
        }
    }

    fn add_ready(&mut self, class: usize, index: u32) {
        let class = &mut self.classes[class];
        let head = class.ready.first().copied();
        if !class.ready.insert(index) {
            return;
        }
        self.n_ready += 1;
        if head.is_none_or(|head| index < head) {
            let kind = &mut self.kinds[class.kind];
            if let Some(head) = head {
                kind.remove(head, class.pinned_to.as_ref());
            }
            kind.add(index, class.pinned_to.as_ref());
        }
    }

    fn remove_ready(&mut self, class: usize, index: u32) {
        let class = &mut self.classes[class];
        let head = class.ready.first().copied();
        if !class.ready.remove(&index) {
            return;
        }
        self.n_ready -= 1;
        if head == Some(index) {
            let kind = &mut self.kinds[class.kind];
            kind.remove(index, class.pinned_to.as_ref());
            if let Some(head) = class.ready.first() {
                kind.add(*head, class.pinned_to.as_ref());
            }
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
            self.add_ready(class, index);
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
        self.n_ready > 0
    }

    /// Returns those jobs, in order, of which one is the first that an agent of a machine may begin, if
    /// there is any: the first of each lane that is open to the machine. Those of machines that nobody
    /// has heard of for long are.
    pub(super) fn heads<'a>(
        &'a self,
        machine_id: &'a str,
        away: &'a BTreeSet<String>,
    ) -> Vec<Waiting<'a>> {
        if !self.has_ready() {
            return Vec::new();
        }
        let mut heads: Vec<u32> = self
            .kinds
            .iter()
            .flat_map(|kind| {
                let machines = std::iter::once(machine_id).chain(away.iter().map(String::as_str));
                let pinned = machines.filter_map(|machine| kind.pinned.get(machine));
                std::iter::once(&kind.anywhere).chain(pinned)
            })
            .filter_map(|lane| lane.first().copied())
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

#[cfg(test)]
mod tests {
    use tritmark_proto::job::RunId;

    use super::*;
    use crate::{
        schedule::Pins,
        testing::{accuracy, job, latency},
    };

    /// What heads would be without lanes: of each class the first that waits.
    fn all_ready(run: &Run) -> Vec<u32> {
        let mut heads: Vec<u32> = run
            .classes
            .iter()
            .filter_map(|class| class.ready.first().copied())
            .collect();
        heads.sort_unstable();
        heads
    }

    /// The lanes leave out only what the agent may not begin anyway, whatever is done to them.
    #[test]
    fn lanes_hide_nothing_an_agent_may_begin() {
        let id = RunId::generate();
        let jobs: Vec<StoredJob> = (0..60)
            .map(|index| {
                let model = format!("m{}", index % 7);
                let suite = if index % 3 == 2 {
                    accuracy()
                } else {
                    latency()
                };
                StoredJob::queued(job(id, index, &model, None, suite))
            })
            .collect();
        let mut run = Run::new(crate::testing::run("plan"), jobs);
        let mut pins = Pins::default();
        let mut random = 0x9e37_79b9_u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        for _ in 0..2_000 {
            let index = next(60);
            match next(4) {
                0 => run.take(index),
                1 | 2 => {
                    run.change(index, 0, |job| job.state = JobState::Queued);
                }
                _ => {
                    let (job, comparison) = {
                        let entry = run.job(index).unwrap();
                        (entry.stored.job.clone(), Arc::clone(&entry.comparison))
                    };
                    if job.suite.is_exclusive() {
                        let machine = (next(3) > 0).then(|| format!("machine-{}", next(3)));
                        pins.restore(&comparison, machine.clone());
                        run.pin(&comparison, machine.as_deref());
                    }
                }
            }
            let away: BTreeSet<String> = ["machine-2".to_owned()].into();
            for machine in ["machine-0", "machine-1", "machine-9"] {
                let may = |index: &u32| {
                    let job = run.job(*index).unwrap();
                    let pin = pins.machine(&job.comparison);
                    !job.stored.job.suite.is_exclusive()
                        || pin.is_none_or(|pin| pin == machine || away.contains(pin))
                };
                let first = all_ready(&run).into_iter().find(may);
                let heads = run.heads(machine, &away);
                let heads: Vec<u32> = heads.iter().map(|head| head.job.id.index).collect();
                assert_eq!(heads.iter().copied().find(may), first);
                assert!(heads.iter().all(may), "{heads:?}");
            }
            let n_ready: usize = run.classes.iter().map(|class| class.ready.len()).sum();
            assert_eq!(run.n_ready, n_ready);
        }
    }
}
