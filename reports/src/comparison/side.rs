//! One model's tasks, taken out of a bundle.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use tritmark_proto::{
    bundle::{JobOutcome, JobState},
    job::SuiteSpec,
    record::Item,
};

use crate::{bundle::Bundle, summary};

/// A model of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The run's name.
    pub run: String,
    /// The run's id.
    pub run_id: String,
    /// The model's id in the plan.
    pub model: String,
    /// Hash of its weights, where it is known; several where jobs ran several.
    pub weights: Vec<String>,
    /// Kernels that ran.
    pub kernels: Vec<String>,
}

/// Why a side cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SideError {
    /// The bundle has no such model.
    #[error(
        "run `{run}` has no model `{model}` with accuracy items; it has {}",
        names(known)
    )]
    NoModel {
        /// The run's name.
        run: String,
        /// What was asked for.
        model: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The bundle has several and none was named.
    #[error(
        "run `{run}` has several models; name one as RUN#MODEL: {}",
        names(known)
    )]
    Several {
        /// The run's name.
        run: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The bundle holds no items of accuracy tasks.
    #[error("run `{run}` has no accuracy items to compare")]
    NoItems {
        /// The run's name.
        run: String,
    },
}

fn names(known: &[String]) -> String {
    if known.is_empty() {
        return "none".to_owned();
    }
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// A task as one model answered it.
#[derive(Clone, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) name: String,
    pub(crate) num_fewshot: u32,
    pub(crate) add_bos: bool,
    pub(crate) variant: Option<String>,
    /// In the order of the data set, each once.
    pub(crate) items: Vec<&'a Item>,
    /// Items the task has under its limit.
    pub(crate) n_expected: Option<u64>,
    pub(crate) data_hash: Option<String>,
}

impl Task<'_> {
    /// Returns the task's name with what it was asked with.
    pub(super) fn title(&self) -> String {
        let mut title = self.name.clone();
        if self.num_fewshot > 0 {
            title = format!("{title}, {}-shot", self.num_fewshot);
        }
        if let Some(variant) = &self.variant {
            title = format!("{title}, {variant}");
        }
        title
    }

    fn is_asked_as(&self, other: &Self) -> bool {
        self.name == other.name
            && self.num_fewshot == other.num_fewshot
            && self.add_bos == other.add_bos
            && self.variant == other.variant
    }
}

/// Returns the models of a bundle that have items, in the order of their first one.
pub(crate) fn models(bundle: &Bundle) -> Vec<String> {
    let jobs: HashMap<u32, &str> = bundle
        .manifest
        .jobs
        .iter()
        .filter(|outcome| outcome.state == JobState::Succeeded)
        .map(|outcome| (outcome.job.id.index, outcome.job.model.id.as_str()))
        .collect();
    let mut models: Vec<String> = Vec::new();
    for row in &bundle.items {
        if let Some(model) = jobs.get(&row.job_index)
            && models.iter().all(|known| known != model)
        {
            models.push((*model).to_owned());
        }
    }
    models
}

/// Takes a model's tasks out of a bundle, in the order of its jobs.
pub(crate) fn collect<'a>(
    bundle: &'a Bundle,
    model: Option<&str>,
) -> Result<(Side, Vec<Task<'a>>), SideError> {
    let run = &bundle.manifest.run;
    let jobs: BTreeMap<u32, &JobOutcome> = bundle
        .manifest
        .jobs
        .iter()
        .filter(|outcome| outcome.state == JobState::Succeeded)
        .map(|outcome| (outcome.job.id.index, outcome))
        .collect();
    let known = models(bundle);
    let model = match (model, known.as_slice()) {
        (Some(model), _) if known.iter().any(|name| name == model) => model.to_owned(),
        (Some(model), _) => {
            return Err(SideError::NoModel {
                run: run.name.clone(),
                model: model.to_owned(),
                known,
            });
        }
        (None, [only]) => only.clone(),
        (None, []) => {
            return Err(SideError::NoItems {
                run: run.name.clone(),
            });
        }
        (None, _) => {
            return Err(SideError::Several {
                run: run.name.clone(),
                known,
            });
        }
    };
    let mut items: HashMap<u32, Vec<&Item>> = HashMap::new();
    for row in &bundle.items {
        items.entry(row.job_index).or_default().push(&row.item);
    }
    let mut tasks: Vec<Task<'_>> = Vec::new();
    let mut weights = BTreeSet::new();
    let mut kernels = BTreeSet::new();
    for outcome in jobs.values() {
        let SuiteSpec::Accuracy(spec) = &outcome.job.suite else {
            continue;
        };
        if outcome.job.model.id != model {
            continue;
        }
        let facts = outcome.facts.as_ref();
        weights.extend(facts.map(|facts| facts.weights_hash.clone()));
        kernels.extend(facts.map(|facts| facts.kernel.clone()));
        let task = Task {
            name: spec.task.clone(),
            num_fewshot: spec.num_fewshot,
            add_bos: spec.add_bos,
            variant: summary::variant(spec),
            items: Vec::new(),
            n_expected: facts.and_then(|facts| facts.n_items),
            data_hash: facts.and_then(|facts| facts.data_hash.clone()),
        };
        let at = tasks
            .iter()
            .position(|known| known.is_asked_as(&task) && known.data_hash == task.data_hash)
            .unwrap_or_else(|| {
                tasks.push(task);
                tasks.len() - 1
            });
        let of_job = items.get(&outcome.job.id.index);
        tasks[at].items.extend(of_job.into_iter().flatten());
    }
    for task in &mut tasks {
        // Other shards, kernels and threads give the same answers: the first counts.
        let mut seen = HashSet::new();
        task.items.retain(|item| seen.insert(item.index));
        task.items.sort_by_key(|item| item.index);
    }
    tasks.retain(|task| !task.items.is_empty());
    let side = Side {
        run: run.name.clone(),
        run_id: run.id.to_string(),
        model,
        weights: weights.into_iter().collect(),
        kernels: kernels.into_iter().collect(),
    };
    Ok((side, tasks))
}

/// Finds what B has of A's task: asked in the same way, else the only one of its name where A has
/// but one, too.
pub(super) fn counterpart(task: &Task<'_>, of_a: &[Task<'_>], of_b: &[Task<'_>]) -> Option<usize> {
    if let Some(at) = of_b.iter().position(|other| other.is_asked_as(task)) {
        return Some(at);
    }
    let only = |tasks: &[Task<'_>]| {
        let mut found = (0..tasks.len()).filter(|at| tasks[*at].name == task.name);
        found.next().filter(|_| found.next().is_none())
    };
    only(of_a).and(only(of_b))
}
