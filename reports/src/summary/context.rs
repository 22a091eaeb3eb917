//! What the rows of a summary share: the order of models and machines, and the models' roles.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tritmark_proto::{bundle::JobState, machine::Machine};

use super::Role;
use crate::bundle::Bundle;

/// Stored bits per weight above which weights are not ternary: `TQ2_0` has 2.06, `Q4_0` has 4.5.
const MAX_TERNARY_BITS: f64 = 3.0;

/// What rows share.
pub(crate) struct Context<'a> {
    pub(crate) bundle: &'a Bundle,
    pub(super) model_ranks: HashMap<&'a str, usize>,
    pub(super) machine_ranks: HashMap<&'a str, usize>,
    /// In the order of their ranks.
    machines: Vec<&'a Machine>,
    roles: HashMap<&'a str, Role>,
    /// Models with a job of each state but `Succeeded`.
    pub(super) troubled: BTreeSet<&'a str>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(bundle: &'a Bundle) -> Self {
        let jobs = &bundle.manifest.jobs;
        let mut order: Vec<&str> = Vec::new();
        let pairs = jobs.iter().filter_map(|outcome| {
            let model = &outcome.job.model;
            Some((model.id.as_str(), model.baseline.as_deref()?))
        });
        let baselines: BTreeSet<&str> = pairs.clone().map(|(_, baseline)| baseline).collect();
        let candidates: BTreeSet<&str> = pairs.clone().map(|(candidate, _)| candidate).collect();
        // A pair stands together, whatever the plan's order.
        order.extend(pairs.flat_map(|(candidate, baseline)| [candidate, baseline]));
        order.extend(jobs.iter().map(|outcome| outcome.job.model.id.as_str()));
        let mut model_ranks = HashMap::new();
        for model in order {
            let next = model_ranks.len();
            model_ranks.entry(model).or_insert(next);
        }

        let mut machines: Vec<&Machine> = bundle.manifest.machines.iter().collect();
        machines.sort_unstable_by_key(|machine| (&machine.hostname, &machine.id));
        let machine_ranks = machines
            .iter()
            .enumerate()
            .map(|(rank, machine)| (machine.id.as_str(), rank))
            .collect();

        let mut dense: BTreeMap<&str, bool> = BTreeMap::new();
        for outcome in jobs {
            if let Some(facts) = &outcome.facts {
                dense.insert(
                    &outcome.job.model.id,
                    facts.bits_per_weight > MAX_TERNARY_BITS,
                );
            }
        }
        let roles = jobs
            .iter()
            .map(|outcome| {
                let id = outcome.job.model.id.as_str();
                let role = match dense.get(id) {
                    Some(true) if candidates.contains(id) => Role::Candidate,
                    _ if candidates.contains(id) => Role::Ternary,
                    _ if baselines.contains(id) => Role::Baseline,
                    Some(false) => Role::Ternary,
                    _ => Role::Single,
                };
                (id, role)
            })
            .collect();
        let troubled = jobs
            .iter()
            .filter(|outcome| outcome.state != JobState::Succeeded)
            .map(|outcome| outcome.job.model.id.as_str())
            .collect();
        Self {
            bundle,
            model_ranks,
            machine_ranks,
            machines,
            roles,
            troubled,
        }
    }

    /// Returns the machine of a rank; `None` of the rank of no machine.
    pub(super) fn machine(&self, rank: usize) -> Option<&'a Machine> {
        self.machines.get(rank).copied()
    }

    /// Returns a model's place in the order of models: pairs first, the candidate before its baseline.
    pub(crate) fn model_rank(&self, model: &str) -> usize {
        self.model_ranks.get(model).copied().unwrap_or(usize::MAX)
    }

    /// Returns what a model is to the others.
    pub(crate) fn role(&self, model: &str) -> Role {
        self.roles.get(model).copied().unwrap_or(Role::Single)
    }
}
