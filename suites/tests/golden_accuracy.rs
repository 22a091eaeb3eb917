//! Prompts, tokens and log-likelihoods against lm-evaluation-harness 0.4.9.2.
//!
//! The scores were printed by the reference harness (`--model hf`, transformers 4.57.6, f32, CPU)
//! for the first items of the public sets; `golden/README.md` of the evaluation data tells how, and
//! which tolerance is honest.
//!
//! Its files say that the harness's `add_bos_token` was off, but every context in them begins with
//! the vocabulary's first token: their token hashes and scores are those of the `-bos` file, digit
//! by digit. So all of it is compared with the first token on.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs::File,
    io::{self, BufReader},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use tritmark_engine::{
    engine::hex,
    load::{LoadOptions, load},
    tokenizer::Tokenizer,
};
use tritmark_proto::{
    job::{AccuracySpec, Job, JobId, Model, ModelSource, Numerics, RunId, Selector, SuiteSpec},
    record::{Item, RecordBody},
};
use tritmark_suites::{
    Context, Sink,
    accuracy::{Data, Prompt, Task},
    clock::SystemClock,
    run,
};

#[derive(Deserialize)]
struct Golden {
    model: String,
    tasks: std::collections::BTreeMap<String, GoldenTask>,
}

#[derive(Deserialize)]
struct GoldenTask {
    n_shot: u32,
    items: Vec<GoldenItem>,
}

#[derive(Deserialize)]
struct GoldenItem {
    #[serde(default)]
    acc: Option<f64>,
    #[serde(default)]
    acc_norm: Option<f64>,
    requests: Vec<GoldenRequest>,
}

#[derive(Deserialize)]
struct GoldenRequest {
    context: Option<String>,
    context_sha256: Option<String>,
    continuation: Option<String>,
    #[serde(default)]
    continuation_ids: Vec<u32>,
    context_ids_n: Option<usize>,
    context_ids_sha1: Option<String>,
    loglikelihood: Option<f64>,
    is_greedy: Option<bool>,
}

/// Returns the folder of the evaluation data.
fn data() -> Option<PathBuf> {
    let found = std::env::var_os("TRITMARK_DATA").map(PathBuf::from);
    if found.is_none() {
        eprintln!("NOT RUN: the comparison with lm-evaluation-harness needs TRITMARK_DATA");
    }
    found
}

fn golden(data: &Path, name: &str) -> Golden {
    let path = data.join("golden/lm-eval").join(format!("{name}.json.gz"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_reader(BufReader::new(GzDecoder::new(file))).unwrap()
}

/// Returns the golden runs of the tasks there are here.
fn runs(golden: &Golden) -> Vec<(Task, &GoldenTask)> {
    golden
        .tasks
        .iter()
        .filter_map(|(name, run)| Some((Task::named(name.split(':').next()?).ok()?, run)))
        .collect()
}

fn spec(data: &Path, task: &Task, run: &GoldenTask, n_items: usize) -> AccuracySpec {
    AccuracySpec {
        task: task.name.to_owned(),
        data_dir: data.to_owned(),
        limit: NonZeroU32::new(n_items as u32),
        num_fewshot: run.n_shot,
        add_bos: true,
    }
}

fn check_prompt(tokenizer: &Tokenizer, prompt: &Prompt, item: &GoldenItem) {
    let requests = &prompt.question.requests;
    assert_eq!(requests.len(), item.requests.len());
    let pairs = prompt.tokens(tokenizer, true).unwrap();
    for ((request, pair), golden) in requests.iter().zip(pairs).zip(&item.requests) {
        if let Some(context) = &golden.context {
            assert_eq!(&request.context, context);
        }
        assert_eq!(
            Some(hex(&Sha256::digest(request.context.as_bytes()))),
            golden.context_sha256,
            "{}",
            request.context
        );
        assert_eq!(Some(&request.continuation), golden.continuation.as_ref());
        assert_eq!(Some(pair.context.len()), golden.context_ids_n);
        let ids: Vec<String> = pair.context.iter().map(u32::to_string).collect();
        assert_eq!(
            Some(hex(&Sha1::digest(ids.join(" ").as_bytes()))),
            golden.context_ids_sha1
        );
        assert_eq!(pair.continuation, golden.continuation_ids);
    }
}

#[test]
fn every_prompt_and_its_tokens_are_those_of_the_reference_harness() {
    let Some(data) = data() else { return };
    let names = [
        "bitnet-tiny-packed.f32",
        "bitnet-tiny-packed.f32-bos",
        "bitnet-tiny-bf16.f32",
        "llama-tiny.f32",
    ];
    let mut n_items = 0;
    for name in names {
        let golden = golden(&data, name);
        let folder = data.join("golden/models").join(&golden.model);
        let model = load(&folder, &LoadOptions::default()).unwrap();
        let tokenizer = Tokenizer::new(&model.vocab).unwrap();
        for (task, run) in runs(&golden) {
            let spec = spec(&data, &task, run, run.items.len());
            let prompts = Data::open(task, &spec).unwrap();
            assert_eq!(prompts.n_items, run.items.len() as u64);
            for (prompt, item) in prompts.zip(&run.items) {
                check_prompt(&tokenizer, &prompt.unwrap(), item);
                n_items += 1;
            }
        }
    }
    // 570, 80, 400 and 570.
    assert_eq!(n_items, 1620);
}

#[derive(Default)]
struct Items(Vec<Item>);

impl Sink for Items {
    fn record(&mut self, body: RecordBody) -> io::Result<()> {
        if let RecordBody::Item(item) = body {
            self.0.push(item);
        }
        Ok(())
    }

    fn progress(&mut self, _: &str, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Scores items of a golden file as an agent's worker would.
fn score(data: &Path, golden: &Golden, n_items: fn(&GoldenTask) -> usize) -> Vec<Vec<Item>> {
    runs(golden)
        .into_iter()
        .map(|(task, run)| {
            let n_items = n_items(run).min(run.items.len());
            let job = Job {
                id: JobId {
                    run: RunId::generate(),
                    index: 0,
                },
                model: Model {
                    id: golden.model.clone(),
                    source: ModelSource::Path(data.join("golden/models").join(&golden.model)),
                    baseline: None,
                },
                kernel: "auto".to_owned(),
                numerics: Numerics::Exact,
                threads: NonZeroU32::MIN,
                suite: SuiteSpec::Accuracy(spec(data, &task, run, n_items)),
                selector: Selector::default(),
            };
            let context = Context {
                cache_dir: PathBuf::new(),
                sysfs_root: PathBuf::from("/"),
                items_done: 0,
                clock: &SystemClock::default(),
            };
            let mut items = Items::default();
            self::run(&job, &context, &mut items).unwrap();
            assert_eq!(items.0.len(), n_items);
            items.0
        })
        .collect()
}

/// Largest differences allowed.
struct Tolerance {
    p50: f64,
    p99: f64,
    max: f64,
    /// Answers may differ where the two best log-likelihoods are nearer than this.
    gap: f64,
    /// Whether `is_greedy` has to be equal as well.
    greedy: bool,
}

/// Ternary models: the flip of one rounded activation moves log-likelihoods by some hundredths
/// (golden/README.md, "Harness scores").
const TERNARY: Tolerance = Tolerance {
    p50: 0.03,
    p99: 0.15,
    max: 0.4,
    gap: 0.3,
    greedy: false,
};

/// Full precision: logits move by 6e-6 at most between correct engines; a log-likelihood sums some
/// tens of them, and the golden ones are f32 sums of up to -500 (one ulp is 3e-5).
const DENSE: Tolerance = Tolerance {
    p50: 1e-5,
    p99: 1e-4,
    max: 2e-4,
    gap: 1e-3,
    greedy: true,
};

fn check(name: &str, tolerance: &Tolerance, n_items: fn(&GoldenTask) -> usize) {
    let Some(data) = data() else { return };
    let golden = golden(&data, name);
    let mut differences = Vec::new();
    let scored = score(&data, &golden, n_items);
    for (items, (task, run)) in scored.into_iter().zip(runs(&golden)) {
        let label = format!("{name} {} {}-shot", task.name, run.n_shot);
        for (item, expected) in items.iter().zip(&run.items) {
            let expected_lls: Vec<f64> = expected
                .requests
                .iter()
                .map(|request| request.loglikelihood.unwrap())
                .collect();
            for (choice, request) in item.choices.iter().zip(&expected.requests) {
                differences.push((choice.loglikelihood - request.loglikelihood.unwrap()).abs());
                assert_eq!(choice.n_tokens as usize, request.continuation_ids.len());
                if tolerance.greedy {
                    assert_eq!(Some(choice.is_greedy), request.is_greedy, "{label}");
                }
            }
            let by_char: Vec<f64> = expected_lls
                .iter()
                .zip(&item.choices)
                .map(|(ll, choice)| ll / f64::from(choice.n_chars))
                .collect();
            check_answer(
                &label,
                item,
                item.predicted,
                &expected_lls,
                expected.acc,
                tolerance.gap,
            );
            if let Some(predicted) = item.predicted_norm {
                check_answer(
                    &label,
                    item,
                    predicted,
                    &by_char,
                    expected.acc_norm,
                    tolerance.gap,
                );
            } else {
                assert_eq!(expected.acc_norm, None, "{label}");
            }
        }
    }
    differences.sort_unstable_by(f64::total_cmp);
    let n = differences.len();
    let [p50, p99, max] = [n / 2, n * 99 / 100, n - 1].map(|i| differences[i]);
    eprintln!("{name}: {n} requests, difference p50 {p50:.2e}, p99 {p99:.2e}, max {max:.2e}");
    assert!(p50 <= tolerance.p50, "p50 {p50}");
    assert!(p99 <= tolerance.p99, "p99 {p99}");
    assert!(max <= tolerance.max, "max {max}");
}

/// Checks an arg max, and whether it is right, unless the best two are too near to tell.
fn check_answer(
    label: &str,
    item: &Item,
    predicted: u32,
    expected: &[f64],
    right: Option<f64>,
    gap: f64,
) {
    let best = (0..expected.len())
        .rev()
        .max_by(|&a, &b| expected[a].total_cmp(&expected[b]))
        .unwrap();
    let second = (0..expected.len())
        .filter(|&i| i != best)
        .map(|i| expected[i])
        .fold(f64::NEG_INFINITY, f64::max);
    if expected[best] - second <= gap {
        return;
    }
    assert_eq!(predicted as usize, best, "{label} item {}", item.index);
    let is_right = f64::from(u8::from(predicted == item.gold));
    assert_eq!(Some(is_right), right, "{label} item {}", item.index);
}

/// Items that are scored in every test run: prompts with examples take long.
fn some(run: &GoldenTask) -> usize {
    match run.n_shot {
        0 => run.items.len(),
        _ => 6,
    }
}

fn all(run: &GoldenTask) -> usize {
    run.items.len()
}

#[test]
fn packed_ternary_weights_score_as_the_reference_harness_does() {
    check("bitnet-tiny-packed.f32", &TERNARY, some);
}

#[test]
fn master_weights_score_as_the_reference_harness_does() {
    check("bitnet-tiny-bf16.f32", &TERNARY, some);
}

#[test]
fn a_full_precision_model_scores_as_the_reference_harness_does() {
    check("llama-tiny.f32", &DENSE, some);
}

#[test]
#[ignore = "takes minutes"]
fn every_item_with_examples_scores_as_the_reference_harness_does() {
    check("bitnet-tiny-packed.f32", &TERNARY, all);
    check("llama-tiny.f32", &DENSE, all);
}
