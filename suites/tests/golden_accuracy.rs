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
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use tritmark_engine::{
    engine::hex,
    load::{LoadOptions, load},
    tokenizer::Tokenizer,
};
use tritmark_proto::{
    job::{
        AccuracySpec, Job, JobId, KvType, Model, ModelSource, Numerics, RunId, Selector, SuiteSpec,
    },
    record::{Answer, ChoiceAnswer, GeneratedAnswer, Item, RecordBody},
};
use tritmark_suites::{
    Context, Sink,
    accuracy::{Data, Prompt, Question, Task},
    clock::SystemClock,
    run, sandbox,
};

#[derive(Deserialize)]
struct Golden {
    model: String,
    tasks: std::collections::BTreeMap<String, GoldenTask>,
}

#[derive(Deserialize)]
struct GoldenTask {
    n_shot: u32,
    results: Value,
    items: Vec<GoldenItem>,
}

#[derive(Deserialize)]
struct GoldenItem {
    doc_id: u32,
    filter: String,
    #[serde(default)]
    exact_match: Option<f64>,
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
    /// A generated text, or a rolling log-likelihood.
    #[serde(default)]
    response: Value,
}

impl GoldenTask {
    /// Returns the items in order, each once: a generated one is listed once a filter.
    fn documents(&self) -> Vec<&GoldenItem> {
        let mut documents: Vec<&GoldenItem> = Vec::new();
        for item in &self.items {
            if documents
                .last()
                .is_none_or(|last| last.doc_id != item.doc_id)
            {
                documents.push(item);
            }
        }
        documents
    }
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

/// Returns the golden runs with their tasks.
fn runs(golden: &Golden) -> Vec<(Task, &GoldenTask)> {
    golden
        .tasks
        .iter()
        .map(|(name, run)| {
            let name = name.split(':').next().unwrap();
            let ours = if name == "wikitext" {
                "wikitext2"
            } else {
                name
            };
            (Task::named(ours).unwrap(), run)
        })
        .collect()
}

fn spec(data: &Path, task: &Task, run: &GoldenTask, n_items: usize) -> AccuracySpec {
    AccuracySpec {
        limit: NonZeroU32::new(n_items as u32),
        num_fewshot: run.n_shot,
        ..AccuracySpec::new(task.name(), data)
    }
}

fn check_context(context: &str, golden: &GoldenRequest) {
    if let Some(expected) = &golden.context {
        assert_eq!(context, expected);
    }
    assert_eq!(
        Some(hex(&Sha256::digest(context.as_bytes()))),
        golden.context_sha256,
        "{context}"
    );
}

fn check_prompt(tokenizer: &Tokenizer, prompt: &Prompt, item: &GoldenItem) {
    let requests = match &prompt.question {
        Question::Choice(question) => &question.requests,
        Question::Generate { context: text, .. } | Question::Rolling { text, .. } => {
            assert_eq!(item.requests.len(), 1);
            check_context(text, &item.requests[0]);
            return;
        }
        Question::Program(_) => panic!("no golden run has programs"),
    };
    assert_eq!(requests.len(), item.requests.len());
    let pairs = prompt.pairs(tokenizer, true).unwrap();
    for ((request, pair), golden) in requests.iter().zip(pairs).zip(&item.requests) {
        check_context(&request.context, golden);
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
            let documents = run.documents();
            let spec = spec(&data, &task, run, documents.len());
            let prompts = Data::open(&task, &spec).unwrap();
            assert_eq!(prompts.n_items, documents.len() as u64);
            for (prompt, item) in prompts.zip(documents) {
                check_prompt(&tokenizer, &prompt.unwrap(), item);
                n_items += 1;
            }
        }
    }
    // 724, 82, 404 and 724: a generated item counts once.
    assert_eq!(n_items, 1934);
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
            let n_items = n_items(run).min(run.documents().len());
            let job = Job {
                id: JobId {
                    run: RunId::generate(),
                    index: 0,
                },
                model: Model {
                    id: golden.model.clone(),
                    source: ModelSource::Path(data.join("golden/models").join(&golden.model)),
                    adapter: None,
                    baseline: None,
                },
                kernel: "auto".to_owned(),
                numerics: Numerics::Exact,
                kv: KvType::F32,
                head: None,
                threads: NonZeroU32::MIN,
                suite: SuiteSpec::Accuracy(spec(data, &task, run, n_items)),
                selector: Selector::default(),
            };
            let context = Context {
                origin: None,
                machine_id: None,
                item_cache: None,
                cache_dir: PathBuf::new(),
                sysfs_root: PathBuf::from("/"),
                items_done: 0,
                sandbox: sandbox::Options::default(),
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
    /// Relative difference of a perplexity per word.
    perplexity: f64,
    /// Share of generated texts that must be the reference's to the letter.
    texts: f64,
}

/// Ternary models: the flip of one rounded activation moves log-likelihoods by some hundredths
/// (golden/README.md, "Harness scores").
const TERNARY: Tolerance = Tolerance {
    p50: 0.03,
    p99: 0.15,
    max: 0.4,
    gap: 0.3,
    greedy: false,
    perplexity: 1e-3,
    texts: 0.5,
};

/// Full precision: logits move by 6e-6 at most between correct engines; a log-likelihood sums some
/// tens of them, and the golden ones are f32 sums of up to -500 (one ulp is 3e-5).
const DENSE: Tolerance = Tolerance {
    p50: 1e-5,
    p99: 1e-4,
    max: 2e-4,
    gap: 1e-3,
    greedy: true,
    perplexity: 1e-5,
    texts: 1.0,
};

fn check(name: &str, tolerance: &Tolerance, n_items: fn(&GoldenTask) -> usize) {
    let Some(data) = data() else { return };
    let golden = golden(&data, name);
    let mut differences = Vec::new();
    let (mut n_texts, mut n_equal) = (0, 0);
    let scored = score(&data, &golden, n_items);
    for (items, (task, run)) in scored.into_iter().zip(runs(&golden)) {
        let label = format!("{name} {} {}-shot", task.name(), run.n_shot);
        let mut rolling = (0.0, 0.0, 0);
        for (item, expected) in items.iter().zip(run.documents()) {
            match &item.answer {
                Answer::Choice(answer) => {
                    check_choice(&label, item, answer, expected, tolerance, &mut differences);
                }
                Answer::Generated(answer) => {
                    n_texts += 1;
                    n_equal += usize::from(check_text(&label, item, answer, run, expected));
                }
                Answer::Rolling(answer) => {
                    rolling.0 += answer.loglikelihood;
                    rolling.1 += expected.requests[0].response.as_f64().unwrap();
                    rolling.2 += answer.n_words;
                }
            }
        }
        if rolling.2 > 0 {
            let [ours, theirs] =
                [rolling.0, rolling.1].map(|ll| (-ll / f64::from(rolling.2)).exp());
            eprintln!("{label}: word perplexity {ours:.3}, reference {theirs:.3}");
            assert!(
                (ours / theirs - 1.0).abs() <= tolerance.perplexity,
                "{label}"
            );
            if items.len() == run.items.len() {
                let printed = run.results["word_perplexity,none"].as_f64().unwrap();
                // Words and bytes are counted as the reference counts them.
                assert!((theirs / printed - 1.0).abs() < 1e-6, "{theirs} {printed}");
            }
        }
    }
    eprintln!("{name}: {n_equal} of {n_texts} generated texts are the reference's");
    assert!(n_equal as f64 >= tolerance.texts * f64::from(n_texts));
    if differences.is_empty() {
        return;
    }
    differences.sort_unstable_by(f64::total_cmp);
    let n = differences.len();
    let [p50, p99, max] = [n / 2, n * 99 / 100, n - 1].map(|i| differences[i]);
    eprintln!("{name}: {n} requests, difference p50 {p50:.2e}, p99 {p99:.2e}, max {max:.2e}");
    assert!(p50 <= tolerance.p50, "p50 {p50}");
    assert!(p99 <= tolerance.p99, "p99 {p99}");
    assert!(max <= tolerance.max, "max {max}");
}

fn check_choice(
    label: &str,
    item: &Item,
    answer: &ChoiceAnswer,
    expected: &GoldenItem,
    tolerance: &Tolerance,
    differences: &mut Vec<f64>,
) {
    let expected_lls: Vec<f64> = expected
        .requests
        .iter()
        .map(|request| request.loglikelihood.unwrap())
        .collect();
    for (choice, request) in answer.choices.iter().zip(&expected.requests) {
        differences.push((choice.loglikelihood - request.loglikelihood.unwrap()).abs());
        assert_eq!(choice.n_tokens as usize, request.continuation_ids.len());
        if tolerance.greedy {
            assert_eq!(Some(choice.is_greedy), request.is_greedy, "{label}");
        }
    }
    let by_char: Vec<f64> = expected_lls
        .iter()
        .zip(&answer.choices)
        .map(|(ll, choice)| ll / f64::from(choice.n_chars))
        .collect();
    for (metric, predicted, lls, right) in [
        ("acc", Some(answer.predicted), &expected_lls, expected.acc),
        (
            "acc_norm",
            answer.predicted_norm,
            &by_char,
            expected.acc_norm,
        ),
    ] {
        let Some(predicted) = predicted else {
            assert_eq!(right, None, "{label}");
            continue;
        };
        check_answer(label, item, (metric, predicted), lls, right, tolerance.gap);
    }
}

/// Checks the filters on the reference's own text where ours differs, and on ours where it does
/// not; returns whether the texts are equal.
fn check_text(
    label: &str,
    item: &Item,
    answer: &GeneratedAnswer,
    run: &GoldenTask,
    expected: &GoldenItem,
) -> bool {
    let response = expected.requests[0].response.as_str().unwrap();
    if answer.text != response {
        return false;
    }
    for golden in run
        .items
        .iter()
        .filter(|golden| golden.doc_id == expected.doc_id)
    {
        let score = item.score("exact_match", &golden.filter).unwrap();
        assert_eq!(
            score.value, golden.exact_match,
            "{label} item {}",
            item.index
        );
    }
    true
}

/// Checks an arg max, and whether it is right, unless the best two are too near to tell.
fn check_answer(
    label: &str,
    item: &Item,
    (metric, predicted): (&str, u32),
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
    let score = item.score(metric, "none").unwrap();
    assert_eq!(score.value, right, "{label} item {}", item.index);
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
