//! A row in the making: its raw values, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use tritmark_proto::{
    bundle::{JobOutcome, JobState},
    record::Item,
};

use super::{ITL, Status, SummaryRow, context::Context, key::Key, shards::Whole};
use crate::{
    compare::{self, Clusters, SEED},
    score::{self, Figure},
    stats::{self, Likelihood},
};

/// A row in the making.
pub(super) struct Entry<'a> {
    pub(super) row: SummaryRow,
    pub(super) by_job: BTreeMap<u32, Vec<f64>>,
    pub(super) items: Vec<&'a Item>,
    pub(super) figure: Option<Figure>,
    /// Whether its items come from several machines.
    pub(super) spans_machines: bool,
    jobs: BTreeSet<u32>,
    missing: Option<String>,
    pub(super) requested_kernels: BTreeSet<&'a str>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(context: &Context<'a>, key: Key, outcome: &'a JobOutcome) -> Self {
        let bundle = context.bundle;
        let model = &outcome.job.model;
        let Key {
            threads,
            kernel,
            suite,
            task,
            num_fewshot,
            add_bos,
            variant,
            data_hash,
            n_items,
            group,
            workload,
            metric,
            filter,
            unit,
            phase,
            grade,
            source,
            reason,
            machine_rank,
            model_rank: _,
            suite_rank: _,
            metric_rank: _,
            grade_rank: _,
            weights: _,
            job_index: _,
        } = key;
        // Of shards on several machines, the first.
        let machine = context.machine(machine_rank);
        let some = |text: String| (!text.is_empty()).then_some(text);
        let row = SummaryRow {
            run: bundle.manifest.run.id.to_string(),
            machine_id: machine.map(|machine| machine.id.clone()),
            machine: machine.map(|machine| machine.hostname.clone()),
            model: model.id.clone(),
            role: context.role(&model.id),
            baseline: model.baseline.clone(),
            weight_format: outcome
                .facts
                .as_ref()
                .map(|facts| facts.weight_format.clone()),
            kernel,
            threads,
            suite,
            task,
            num_fewshot,
            add_bos,
            variant,
            group,
            filter,
            metric: some(metric),
            unit: some(unit),
            phase: phase.map(|phase| phase.name().to_owned()),
            n_prompt: workload.map(|workload| workload.n_prompt),
            n_gen: workload.map(|workload| workload.n_gen),
            n_depth: workload.map(|workload| workload.n_depth),
            n_batch: workload.map(|workload| workload.n_batch),
            grade: grade.map(str::to_owned),
            source: some(source),
            reason: some(reason),
            data_hash,
            n_items,
            ..SummaryRow::blank()
        };
        Self {
            row,
            by_job: BTreeMap::new(),
            items: Vec::new(),
            figure: None,
            spans_machines: false,
            jobs: BTreeSet::new(),
            missing: None,
            requested_kernels: BTreeSet::new(),
        }
    }

    pub(super) fn of_failure(context: &Context<'a>, key: Key, outcome: &'a JobOutcome) -> Self {
        let mut entry = Self::new(context, key, outcome);
        let row = &mut entry.row;
        row.n_jobs = 1;
        row.status = match outcome.state {
            JobState::Succeeded => Status::Ok,
            JobState::Failed => Status::Failed,
            JobState::Cancelled => Status::Cancelled,
            JobState::Queued | JobState::Running => Status::Unfinished,
        };
        row.reason = Some(outcome.failure.as_ref().map_or_else(
            || format!("the job is {}", outcome.state.name()),
            |failure| failure.message.clone(),
        ));
        let items = context.bundle.items.iter();
        let n_pending = items
            .filter(|item| item.job_index == outcome.job.id.index && item.item.is_pending())
            .count();
        if n_pending > 0 {
            row.n_pending = Some(n_pending);
            row.reason = row
                .reason
                .take()
                .map(|reason| format!("{reason}; {n_pending} answers wait for their scores"));
        }
        entry
    }

    pub(super) fn clusters(&self) -> Clusters {
        self.by_job.values().cloned().collect()
    }

    /// Fills in what follows from the values.
    pub(super) fn summarise(&mut self) {
        match self.figure.clone() {
            Some(Figure::Rolling(rolling)) => return self.summarise_texts(rolling),
            Some(figure) => return self.summarise_scores(&figure),
            None => {}
        }
        let values: Vec<f64> = self.by_job.values().flatten().copied().collect();
        if self.row.status != Status::Ok || values.is_empty() {
            return;
        }
        let row = &mut self.row;
        row.n = values.len();
        row.n_jobs = self.by_job.len();
        row.median = stats::median(&values);
        row.value = row.median;
        row.mean = stats::mean(&values);
        row.sd = stats::sample_sd(&values);
        if values.len() < 2 {
            return;
        }
        row.median_abs_dev = stats::median_abs_dev(&values);
        row.p5 = stats::quantile(&values, 0.05);
        row.p95 = stats::quantile(&values, 0.95);
        row.p99 = stats::p99(&values).ok();
        // Tokens of one answer depend on each other; their spread is told by quantiles.
        if row.metric.as_deref() != Some(ITL) {
            let clusters: Clusters = self.by_job.values().cloned().collect();
            if let Some(interval) = stats::median_interval(&clusters, SEED) {
                row.ci95_low = Some(interval.low);
                row.ci95_high = Some(interval.high);
                row.ci_scope = Some(compare::interval_scope(self.by_job.len()));
            }
        }
    }

    /// Adds an item to a figure of its task.
    pub(super) fn add_item(
        &mut self,
        figure: &Figure,
        rank: usize,
        whole: &Whole<'_>,
        outcome: &JobOutcome,
        item: &'a Item,
    ) {
        if self.figure.is_none() {
            self.figure = Some(figure.clone());
            self.row.is_main = rank == 0;
            self.missing = whole.what_is_missing();
            self.spans_machines = !whole.machines.is_empty();
            if self.spans_machines {
                self.row.source = Some(format!("items on {}", whole.machines.join(" and ")));
            }
        }
        self.jobs.insert(outcome.job.id.index);
        self.items.push(item);
    }

    fn summarise_scores(&mut self, figure: &Figure) {
        // So that shards add up to the same bits as the whole.
        self.items.sort_by_key(|item| item.index);
        let decided = |items: &[&Item]| -> Vec<f64> {
            items.iter().filter_map(|item| figure.value(item)).collect()
        };
        let values = decided(&self.items);
        let undecided = self
            .items
            .iter()
            .filter_map(|item| figure.score(item))
            .filter(|score| score.value.is_none() && !score.pending);
        let scores = self.items.iter().filter_map(|item| figure.score(item));
        let n_pending = scores.filter(|score| score.pending).count();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for score in undecided {
            *reasons
                .entry(score.reason.as_deref().unwrap_or("no reason given"))
                .or_default() += 1;
        }
        let row = &mut self.row;
        row.n = values.len();
        row.n_jobs = self.jobs.len();
        row.n_undecided = Some(reasons.values().sum());
        row.n_pending = Some(n_pending);
        // As lm-eval does: the sum of rights and wrongs is exact.
        row.value = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        row.mean = row.value;
        row.stderr = stats::standard_error(&values);
        let groups = by_group(&self.items);
        if row.group.is_none() && groups.len() > 1 {
            let parts: Vec<(Option<f64>, usize)> = groups
                .values()
                .map(|items| decided(items))
                .filter(|values| !values.is_empty())
                .map(|values| (stats::standard_error(&values), values.len()))
                .collect();
            // One item has no spread: then all are taken together.
            row.stderr = stats::pooled_stderr(&parts).or(row.stderr);
        }
        let mut notes = Vec::new();
        let n_undecided: usize = reasons.values().sum();
        if let Some((reason, _)) = reasons
            .iter()
            .max_by_key(|(reason, n)| (**n, std::cmp::Reverse(**reason)))
        {
            let others = if reasons.len() > 1 {
                ", and others"
            } else {
                ""
            };
            notes.push(format!("{n_undecided} undecided ({reason}{others})"));
        }
        if n_pending > 0 {
            notes.push(format!("{n_pending} wait for their scores"));
            self.row.status = Status::Incomplete;
        }
        self.finish(notes);
    }

    fn summarise_texts(&mut self, rolling: score::Rolling) {
        self.items.sort_by_key(|item| item.index);
        let sum = self
            .items
            .iter()
            .filter_map(|item| score::likelihood(item))
            .fold(Likelihood::default(), std::ops::Add::add);
        let row = &mut self.row;
        row.n = self.items.len();
        row.n_jobs = self.jobs.len();
        row.value = rolling.of(sum).filter(|value| value.is_finite());
        // The mean of the texts is another figure, and lm-eval gives no standard error either.
        self.finish(Vec::new());
    }

    /// Says what became of a figure of a task.
    fn finish(&mut self, mut notes: Vec<String>) {
        let n_seen = self.items.len() as u64;
        let from_cache = self.items.iter().filter(|item| item.from_cache.is_some());
        let n_cached = from_cache.count();
        let row = &mut self.row;
        row.n_cached = Some(n_cached);
        if row.value.is_none() {
            row.status = Status::Unmeasurable;
            if notes.is_empty() {
                notes.push("no item was scored".to_owned());
            }
        }
        // Of a group it is not known how many items it has.
        let expected = row.n_items.filter(|_| row.group.is_none());
        let has_all = expected.is_none_or(|expected| expected == n_seen);
        if self.missing.is_some() || !has_all {
            if row.status == Status::Ok {
                row.status = Status::Incomplete;
            }
            let counts = expected.map(|expected| format!("{n_seen} of {expected} items"));
            let parts: Vec<String> = counts.into_iter().chain(self.missing.clone()).collect();
            notes.insert(0, parts.join(", "));
        }
        row.reason = (!notes.is_empty()).then(|| notes.join("; "));
    }
}

fn by_group<'a>(items: &[&'a Item]) -> BTreeMap<&'a str, Vec<&'a Item>> {
    let mut groups: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in items {
        if let Some(group) = &item.group {
            groups.entry(group).or_default().push(item);
        }
    }
    groups
}
