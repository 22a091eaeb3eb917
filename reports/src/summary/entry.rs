//! A row in the making: its raw values, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use tritmark_proto::{
    bundle::{JobOutcome, JobState},
    record::Item,
};

use super::{ITL, Status, SummaryRow, context::Context, key::Key};
use crate::{
    compare::{self, Clusters, SEED, Score},
    stats,
};

/// A row in the making.
pub(super) struct Entry<'a> {
    pub(super) row: SummaryRow,
    pub(super) by_job: BTreeMap<u32, Vec<f64>>,
    pub(super) items: Vec<&'a Item>,
    pub(super) score: Option<Score>,
    pub(super) requested_kernels: BTreeSet<&'a str>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(context: &Context<'a>, key: Key, outcome: &'a JobOutcome) -> Self {
        let bundle = context.bundle;
        let model = &outcome.job.model;
        let machine = bundle.machine_of(outcome);
        let Key {
            threads,
            kernel,
            suite,
            task,
            num_fewshot,
            add_bos,
            data_hash,
            n_items,
            workload,
            metric,
            unit,
            phase,
            grade,
            source,
            reason,
            machine_rank: _,
            model_rank: _,
            suite_rank: _,
            metric_rank: _,
            grade_rank: _,
            job_index: _,
        } = key;
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
            score: None,
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
        entry
    }

    pub(super) fn clusters(&self) -> Clusters {
        self.by_job.values().cloned().collect()
    }

    /// Fills in what follows from the values.
    pub(super) fn summarise(&mut self) {
        if let Some(score) = self.score {
            self.summarise_answers(score);
            return;
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

    fn summarise_answers(&mut self, score: Score) {
        let answers: Vec<bool> = self
            .items
            .iter()
            .filter_map(|item| score.is_right(item))
            .collect();
        let row = &mut self.row;
        row.n = answers.len();
        row.n_jobs = 1;
        if answers.is_empty() {
            row.status = Status::Unmeasurable;
            row.reason = Some("no item was scored".to_owned());
            return;
        }
        let share = answers.iter().filter(|right| **right).count() as f64 / answers.len() as f64;
        row.value = Some(share);
        row.mean = Some(share);
        row.stderr = stats::binomial_stderr(share, answers.len());
        if let Some(expected) = row.n_items
            && expected != answers.len() as u64
        {
            row.reason = Some(format!("{} of {expected} items", answers.len()));
        }
    }
}
