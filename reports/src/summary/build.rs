//! From a bundle to the rows of its summary.

use std::collections::{BTreeMap, HashMap};

use tritmark_proto::{
    bundle::{JobOutcome, JobState},
    record::{Grade, Outcome, Phase},
};

use super::{
    ITL, Status, SummaryRow,
    context::Context,
    counterpart::{ByComparison, Comparison},
    entry::Entry,
    key::Key,
};
use crate::{bundle::Bundle, compare::Score};

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
    add_tokens(&context, &jobs, &mut entries);
    add_items(&context, &jobs, &mut entries);

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

type Entries<'a> = BTreeMap<Key, Entry<'a>>;

fn entry<'e, 'a>(
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

fn add_items<'a>(
    context: &Context<'a>,
    jobs: &HashMap<u32, &'a JobOutcome>,
    entries: &mut Entries<'a>,
) {
    // The same items scored twice by the same kernel are the same answers, not more of them.
    let mut first_job: BTreeMap<Key, u32> = BTreeMap::new();
    for item in &context.bundle.items {
        let Some(outcome) = jobs.get(&item.job_index) else {
            continue;
        };
        for score in [Score::Acc, Score::AccNorm] {
            if score.is_right(&item.item).is_none() {
                continue;
            }
            let key = Key::of_metric(context, outcome, score.name(), "1")
                .graded(Grade::Computed, "items");
            if *first_job.entry(key.clone()).or_insert(item.job_index) != item.job_index {
                continue;
            }
            let entry = entry(entries, context, key, outcome);
            entry.score = Some(score);
            entry.items.push(&item.item);
        }
    }
}
