//! Accuracy jobs that are one measurement: the shards of a task, wherever they ran.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tritmark_proto::{
    bundle::JobOutcome,
    job::{AccuracySpec, Shard, SuiteSpec},
};

use super::{context::Context, key::Key};

/// Jobs whose items make one row.
pub(super) struct Whole<'a> {
    /// The row's key, but for what depends on the figure.
    pub(super) key: Key,
    /// The jobs, in the manifest's order.
    pub(super) jobs: Vec<&'a JobOutcome>,
    /// Shards that are not there, each (index, count).
    pub(super) missing: Vec<(u32, u32)>,
    /// Names of the machines, where there are several.
    pub(super) machines: Vec<&'a str>,
}

impl Whole<'_> {
    /// Says which shards are not there; `None` where none is missing.
    pub(super) fn what_is_missing(&self) -> Option<String> {
        let (_, count) = self.missing.first()?;
        let missing: Vec<String> = self
            .missing
            .iter()
            .map(|(index, _)| (index + 1).to_string())
            .collect();
        let noun = if missing.len() == 1 {
            "shard"
        } else {
            "shards"
        };
        Some(format!("{noun} {} of {count} missing", missing.join(", ")))
    }
}

/// What the shards of one measurement share. Kernels and machines may differ: all of them give the
/// same answers, unless they round.
#[derive(PartialEq, Eq, Hash)]
struct Identity<'a> {
    key: Key,
    rounding_kernel: Option<&'a str>,
}

/// Puts the accuracy jobs among `jobs` together.
pub(super) fn unite<'a>(
    context: &Context<'a>,
    jobs: &HashMap<u32, &'a JobOutcome>,
) -> Vec<Whole<'a>> {
    let mut wholes: Vec<Whole<'a>> = Vec::new();
    let mut sharded: HashMap<Identity<'a>, usize> = HashMap::new();
    for outcome in &context.bundle.manifest.jobs {
        let SuiteSpec::Accuracy(spec) = &outcome.job.suite else {
            continue;
        };
        let Some(outcome) = jobs.get(&outcome.job.id.index).copied() else {
            continue;
        };
        let mut key = Key::of_job(context, outcome);
        key.job_index = None;
        let identity = spec.shard.and(identity(&key, outcome));
        let known = identity
            .as_ref()
            .and_then(|identity| sharded.get(identity).copied());
        if let Some(at) = known {
            wholes[at].add(&key, outcome);
            continue;
        }
        if let Some(identity) = identity {
            sharded.insert(identity, wholes.len());
        }
        wholes.push(Whole {
            key,
            jobs: vec![outcome],
            missing: Vec::new(),
            machines: Vec::new(),
        });
    }
    for whole in &mut wholes {
        whole.missing = missing(&whole.jobs);
        let machines: BTreeSet<&str> = whole
            .jobs
            .iter()
            .filter_map(|outcome| context.bundle.machine_of(outcome))
            .map(|machine| machine.hostname.as_str())
            .collect();
        if machines.len() > 1 {
            whole.machines = machines.into_iter().collect();
        }
    }
    wholes
}

impl<'a> Whole<'a> {
    /// Adds a shard. The row stands with the first of the machines.
    fn add(&mut self, key: &Key, outcome: &'a JobOutcome) {
        self.key.machine_rank = self.key.machine_rank.min(key.machine_rank);
        if !self
            .key
            .kernel
            .split(" + ")
            .any(|known| known == key.kernel)
        {
            self.key.kernel = format!("{} + {}", self.key.kernel, key.kernel);
        }
        self.jobs.push(outcome);
    }
}

fn identity<'a>(key: &Key, outcome: &'a JobOutcome) -> Option<Identity<'a>> {
    let facts = outcome.facts.as_ref()?;
    let mut key = key.clone();
    key.machine_rank = 0;
    key.kernel = String::new();
    Some(Identity {
        key,
        rounding_kernel: facts.lossy_kernel.then_some(facts.kernel.as_str()),
    })
}

/// Returns the shards none of the jobs did, of the finest cut there is.
fn missing(jobs: &[&JobOutcome]) -> Vec<(u32, u32)> {
    let mut done: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for outcome in jobs {
        match &outcome.job.suite {
            SuiteSpec::Accuracy(AccuracySpec {
                shard: Some(Shard { index, count }),
                ..
            }) => {
                done.entry(count.get()).or_default().insert(*index);
            }
            _ => return Vec::new(),
        }
    }
    // Cuts of several sizes are judged by their items alone.
    match done.into_iter().collect::<Vec<_>>().as_slice() {
        [(count, done)] => (0..*count)
            .filter(|index| !done.contains(index))
            .map(|index| (index, *count))
            .collect(),
        _ => Vec::new(),
    }
}
