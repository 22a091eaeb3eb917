//! From a bundle to the rows of its summary.

use std::collections::{BTreeMap, HashMap, HashSet};

use tritmark_proto::{
    bundle::{JobOutcome, JobState},
    record::{Grade, Metric, Outcome, Phase},
};

use super::{
    ENERGY_PER_ITEM, ITL, Status, SummaryRow,
    context::Context,
    counterpart::{ByComparison, Comparison},
    entry::Entry,
    key::Key,
    roofline,
    shards::{self, Whole},
};
use crate::{bundle::Bundle, frame::ItemRow, score::Figure};

/// Returns the summary of a bundle, sorted by machine, model, threads, kernel, suite and metric.
pub fn rows(bundle: &Bundle) -> Vec<SummaryRow> {
    let context = Context::new(bundle);
    let mut entries = BTreeMap::new();
    for outcome in &bundle.manifest.jobs {
        if outcome.state != JobState::Succeeded {
            let key = Key::of_job(&context, outcome);
            entries.insert(key.clone(), Entry::of_failure(&context, key, outcome));
        }
    }
    let jobs: HashMap<u32, &JobOutcome> = bundle
        .manifest
        .jobs
        .iter()
        .filter(|outcome| outcome.state == JobState::Succeeded)
        .map(|outcome| (outcome.job.id.index, outcome))
        .collect();
    add_measurements(&context, &jobs, &mut entries);
    roofline::add(&context, &jobs, &mut entries);
    add_tokens(&context, &jobs, &mut entries);
    add_items(&context, &jobs, &mut entries);
    add_energy(&context, &jobs, &mut entries);

    let mut entries: Vec<Entry<'_>> = entries.into_values().collect();
    for entry in &mut entries {
        entry.summarise();
    }
    let comparisons: Vec<Comparison> = {
        let by_key = ByComparison::new(&entries);
        entries
            .iter()
            .map(|entry| by_key.compare(&context, entry))
            .collect()
    };
    entries
        .into_iter()
        .zip(comparisons)
        .map(|(entry, comparison)| comparison.into_row(entry.row))
        .collect()
}

pub(super) type Entries<'a> = BTreeMap<Key, Entry<'a>>;

/// Returns the row of a key, which is begun where there is none.
pub(super) fn entry<'e, 'a>(
    entries: &'e mut Entries<'a>,
    context: &Context<'a>,
    key: Key,
    outcome: &'a JobOutcome,
) -> &'e mut Entry<'a> {
    let entry = entries
        .entry(key)
        .or_insert_with_key(|key| Entry::new(context, key.clone(), outcome));
    entry.requested_kernels.insert(&outcome.job.kernel);
    entry
}

fn add_measurements<'a>(
    context: &Context<'a>,
    jobs: &HashMap<u32, &'a JobOutcome>,
    entries: &mut Entries<'a>,
) {
    for measurement in &context.bundle.measurements {
        let Some(outcome) = jobs.get(&measurement.job_index) else {
            continue;
        };
        let mut key = Key::of_metric(context, outcome, &measurement.metric, &measurement.unit);
        key.phase = measurement.phase;
        if measurement.workload.is_some() {
            key.workload = measurement.workload;
        }
        match &measurement.outcome {
            Outcome::Reading(reading) => {
                let key = key.graded(reading.grade, &reading.source);
                entry(entries, context, key, outcome)
                    .by_job
                    .entry(measurement.job_index)
                    .or_default()
                    .push(reading.value);
            }
            Outcome::Skipped { reason } => {
                key.reason.clone_from(reason);
                let row = &mut entry(entries, context, key, outcome).row;
                row.status = Status::Unmeasurable;
                row.n_jobs = 1;
            }
        }
    }
}

fn add_tokens<'a>(
    context: &Context<'a>,
    jobs: &HashMap<u32, &'a JobOutcome>,
    entries: &mut Entries<'a>,
) {
    for token in &context.bundle.tokens {
        let Some(outcome) = jobs.get(&token.job_index) else {
            continue;
        };
        if token.token_index == 0 {
            continue;
        }
        let mut key = Key::of_metric(context, outcome, ITL, "ns");
        key.workload = Some(token.workload);
        key.phase = Some(Phase::Decode);
        let key = key.graded(Grade::Counted, "clock:monotonic");
        entry(entries, context, key, outcome)
            .by_job
            .entry(token.job_index)
            .or_default()
            .push(token.elapsed_ns as f64);
    }
}

/// Adds what the items of each accuracy job took, by each counter: in all, and on average. Items whose
/// energy is not known are left out of both, and counted.
fn add_energy<'a>(
    context: &Context<'a>,
    jobs: &HashMap<u32, &'a JobOutcome>,
    entries: &mut Entries<'a>,
) {
    let mut n_items: BTreeMap<u32, usize> = BTreeMap::new();
    let mut joules: BTreeMap<(u32, &str), Vec<f64>> = BTreeMap::new();
    for row in &context.bundle.items {
        *n_items.entry(row.job_index).or_default() += 1;
        for energy in &row.item.energy {
            let of_source = joules.entry((row.job_index, &energy.source)).or_default();
            of_source.push(energy.joules);
        }
    }
    // Of the jobs of one row together.
    let mut counts: HashMap<Key, (usize, usize)> = HashMap::new();
    for ((job_index, source), joules) in joules {
        let Some(outcome) = jobs.get(&job_index) else {
            continue;
        };
        let total: f64 = joules.iter().sum();
        for (metric, unit, value) in [
            (Metric::EnergyJ.name(), Metric::EnergyJ.unit(), total),
            (ENERGY_PER_ITEM, "J/item", total / joules.len() as f64),
        ] {
            let key = Key::of_metric(context, outcome, metric, unit);
            let key = key.graded(Grade::Counted, source);
            let (n_known, n_all) = counts.entry(key.clone()).or_default();
            *n_known += joules.len();
            *n_all += n_items[&job_index];
            let reason = (n_known < n_all).then(|| format!("of {n_known} of {n_all} items"));
            let entry = entry(entries, context, key, outcome);
            entry.by_job.entry(job_index).or_default().push(value);
            entry.row.reason = reason;
        }
    }
}

fn add_items<'a>(
    context: &Context<'a>,
    jobs: &HashMap<u32, &'a JobOutcome>,
    entries: &mut Entries<'a>,
) {
    let mut items: HashMap<u32, Vec<&'a ItemRow>> = HashMap::new();
    for row in &context.bundle.items {
        items.entry(row.job_index).or_default().push(row);
    }
    // The same item scored twice is the same answer, not one more: the first counts.
    let mut seen: HashMap<Key, HashSet<u32>> = HashMap::new();
    for whole in shards::unite(context, jobs) {
        let seen = seen.entry(whole.key.clone()).or_default();
        for outcome in &whole.jobs {
            let of_job = items.get(&outcome.job.id.index);
            for row in of_job.into_iter().flatten() {
                if seen.insert(row.item.index) {
                    add_item(context, &whole, outcome, row, entries);
                }
            }
        }
    }
}

/// Adds an item to its task, and to its group where it has one.
fn add_item<'a>(
    context: &Context<'a>,
    whole: &Whole<'a>,
    outcome: &'a JobOutcome,
    row: &'a ItemRow,
    entries: &mut Entries<'a>,
) {
    for (rank, figure) in Figure::all_of(&row.item).into_iter().enumerate() {
        let parts = [None, row.item.group.as_deref()];
        let n_parts = 1 + usize::from(row.item.group.is_some());
        for group in parts.into_iter().take(n_parts) {
            let key = whole.key.clone().of_figure(&figure, rank, group);
            let entry = entry(entries, context, key, outcome);
            entry.add_item(&figure, rank, whole, outcome, &row.item);
        }
    }
}
