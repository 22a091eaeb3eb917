//! What simulated workers find out: any amount of it, each byte of which can be told again.
//!
//! A worker's records are a function of its job, of how many items were done before, and of a nonce
//! of its own. The nonce stands in each record, so that the check finds records of two workers under
//! one attempt, and those of one worker under two.

use std::num::NonZeroU32;

use tritmark_proto::{
    job::{
        AccuracySpec, Job, JobId, KvType, LatencySpec, Model, ModelSource, Numerics, RunId,
        Selector, SuiteSpec, Workload,
    },
    record::{
        Answer, Choice, ChoiceAnswer, Grade, Item, Measurement, Metric, ModelFacts, Outcome,
        Reading, Record, RecordBody,
    },
};

use crate::random::hash;

/// Items of an accuracy job that has no limit.
const N_ITEMS: u64 = 6;

const WORKLOAD: Workload = Workload {
    n_prompt: 4,
    n_gen: 4,
    n_depth: 0,
    n_batch: 4,
};

/// Returns the job `index` of a run: each third one measures accuracy, the others latency, each of
/// a model of its own.
///
/// # Panics
/// Never.
pub fn job(run: RunId, index: u32) -> Job {
    let suite = if index % 3 == 2 {
        let mut spec = AccuracySpec::new("arc_easy", "/data");
        spec.limit = NonZeroU32::new(1 + index % 8);
        SuiteSpec::Accuracy(spec)
    } else {
        SuiteSpec::Latency(LatencySpec {
            workload: WORKLOAD,
            warm_ups: 0,
            repetitions: NonZeroU32::new(1 + index % 5).expect("it is at least 1"),
            probe: false,
        })
    };
    let id = format!("model-{index}");
    Job {
        id: JobId { run, index },
        model: Model {
            source: ModelSource::Path(format!("/models/{id}").into()),
            id,
            adapter: None,
            baseline: None,
        },
        kernel: "auto".to_owned(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: NonZeroU32::MIN,
        suite,
        selector: Selector::default(),
    }
}

/// Returns how many items a job has; `None` of one that has no items.
pub fn n_items(job: &Job) -> Option<u64> {
    match &job.suite {
        SuiteSpec::Accuracy(spec) => Some(spec.limit.map_or(N_ITEMS, |limit| limit.get().into())),
        _ => None,
    }
}

/// Returns everything the worker with that nonce finds out, in order.
pub fn records(job: &Job, nonce: u64, items_done: u64) -> Vec<Record> {
    let facts = facts(job, nonce, items_done);
    let rest: Vec<RecordBody> = match (&job.suite, n_items(job)) {
        (_, Some(n_items)) => (items_done..n_items)
            .map(|index| item(job, index as u32, nonce))
            .collect(),
        (SuiteSpec::Latency(spec), None) => (0..spec.repetitions.get())
            .map(|repetition| reading(nonce, repetition))
            .collect(),
        (_, None) => vec![reading(nonce, 0)],
    };
    (0..)
        .zip(std::iter::once(facts).chain(rest))
        .map(|(sequence, body)| Record {
            sequence,
            at_unix_ns: (hash(&[nonce, sequence, 1]) >> 2).cast_signed(),
            body,
        })
        .collect()
}

/// Returns the nonce and the number of earlier items of the worker whose first record this is.
pub fn origin(first: &Record) -> Option<(u64, u64)> {
    let RecordBody::Facts(facts) = &first.body else {
        return None;
    };
    let (nonce, items_done) = facts.logits_fingerprint.split_once(':')?;
    Some((
        u64::from_str_radix(nonce, 16).ok()?,
        items_done.parse().ok()?,
    ))
}

fn facts(job: &Job, nonce: u64, items_done: u64) -> RecordBody {
    let n_items = n_items(job);
    RecordBody::Facts(ModelFacts {
        weights_hash: job.model.id.clone(),
        architecture: "simulated".to_owned(),
        weight_format: "i2_s".to_owned(),
        head_format: "f16".to_owned(),
        kernel: "reference".to_owned(),
        lossy_kernel: false,
        numerics: Numerics::Exact,
        kv: KvType::F32,
        numerics_version: 1,
        n_params: 1,
        n_linear_params: 1,
        file_bytes: 1,
        weight_bytes: 1,
        linear_weight_bytes: 1,
        demand: None,
        bits_per_weight: 2.0,
        logits_fingerprint: format!("{nonce:016x}:{items_done}"),
        data_hash: n_items.map(|_| "data".to_owned()),
        n_items,
        warnings: Vec::new(),
    })
}

fn reading(nonce: u64, repetition: u32) -> RecordBody {
    RecordBody::Measurement(Measurement {
        suite: "latency".to_owned(),
        metric: Metric::DecodeTokPerS,
        workload: Some(WORKLOAD),
        phase: None,
        repetition: Some(repetition),
        outcome: Outcome::Reading(Reading {
            value: hash(&[nonce, repetition.into()]) as f64,
            grade: Grade::Counted,
            source: format!("nonce:{nonce:016x}"),
        }),
    })
}

fn item(job: &Job, index: u32, nonce: u64) -> RecordBody {
    let of_item = hash(&[job.id.index.into(), index.into()]);
    let choice = |n: u64| Choice {
        loglikelihood: -((hash(&[of_item, n]) % 10_000) as f64) / 100.0,
        is_greedy: n == 0,
        n_tokens: 1,
        n_chars: 2,
    };
    let answer = ChoiceAnswer {
        gold: 1,
        choices: vec![choice(0), choice(1)],
        predicted: (of_item % 2) as u32,
        predicted_norm: None,
    };
    let scores = answer.scores();
    RecordBody::Item(Item {
        task: "arc_easy".to_owned(),
        group: None,
        index,
        doc_hash: format!("doc-{index}"),
        prompt_hash: format!("prompt-{index}"),
        answer: Answer::Choice(answer),
        scores,
        elapsed_ns: Some(hash(&[nonce, index.into(), 2]) >> 2),
        energy: Vec::new(),
        from_cache: None,
        scored_on: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_can_be_told_by_its_first_record() {
        let run = RunId::generate();
        for index in 0..9 {
            let job = job(run, index);
            let all = records(&job, 0xabc, 0);
            assert_eq!(origin(&all[0]), Some((0xabc, 0)));
            assert_eq!(all, records(&job, 0xabc, 0));
            assert_ne!(all[1], records(&job, 0xabd, 0)[1]);
            if let Some(n) = n_items(&job) {
                let rest = records(&job, 0xabc, n - 1);
                assert_eq!(rest.len(), 2);
                assert_eq!(origin(&rest[0]), Some((0xabc, n - 1)));
            }
        }
    }
}
