//! What batches bring: items a second and tokens a second, beside one item after the other.
//!
//! `TRITMARK_BENCH_MODEL=700m cargo test --release -p tritmark-engine --test batches -- --ignored
//! --nocapture --test-threads=1`, where the variable names a model file or a synthetic shape; the
//! bundled ternary model without it. `TRITMARK_BENCH_THREADS` are the threads (2), `_ROUNDS` how often
//! all ways take turns (5), `_ITEMS` how many items or prompts there are (64).
#![expect(clippy::unwrap_used, reason = "what cannot be measured ends the bench")]
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use tritmark_engine::{
    engine::{Engine, EngineOptions},
    generate::{Params, Prompt, Step, generate, generate_many},
    load::{LoadOptions, LoadedModel, load},
    score::{Request, Score, Scorer, loglikelihoods},
    synth,
    testing::TestRng,
    tokenizer::Tokenizer,
};

const BATCHES: [usize; 3] = [8, 16, 64];

/// Returns a number that the environment gives, or what it is without.
fn number(name: &str, otherwise: usize) -> usize {
    let name = format!("TRITMARK_BENCH_{name}");
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap())
}

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bitnet-tiny.i2_s.gguf")
}

fn model() -> LoadedModel {
    let name = std::env::var("TRITMARK_BENCH_MODEL").unwrap_or_default();
    let path = match synth::shape(&name) {
        Some(shape) => {
            let path = std::env::temp_dir().join(format!("tritmark-bench-{name}.gguf"));
            if !path.exists() {
                synth::write(shape, synth::Format::I2S, 1, &path, |_, _| {}).unwrap();
            }
            path
        }
        None if name.is_empty() => bundled(),
        None => name.into(),
    };
    load(&path, &LoadOptions::default()).unwrap_or_else(|error| panic!("{error:?}"))
}

fn engine(model: &LoadedModel) -> Engine {
    let options = EngineOptions {
        threads: NonZeroUsize::new(number("THREADS", 2)).unwrap(),
        ..EngineOptions::default()
    };
    Engine::new(model.config.clone(), model.weights.clone(), &options).unwrap()
}

/// Items of a multiple-choice task, in tokens.
struct Task {
    name: &'static str,
    shots: usize,
    context: usize,
    choices: usize,
    choice: usize,
}

const TASKS: [Task; 3] = [
    Task {
        name: "0 shots, 4 choices of 12",
        shots: 0,
        context: 60,
        choices: 4,
        choice: 12,
    },
    Task {
        name: "0 shots, 4 choices of 1",
        shots: 0,
        context: 100,
        choices: 4,
        choice: 1,
    },
    Task {
        name: "5 shots of 80 shared, 4 choices of 1",
        shots: 400,
        context: 80,
        choices: 4,
        choice: 1,
    },
];

type Pair = (Vec<u32>, Vec<u32>);

fn items(task: &Task, n: usize, vocab_size: usize) -> Vec<Vec<Pair>> {
    let mut rng = TestRng::new(1);
    let shots = rng.tokens(task.shots, vocab_size);
    (0..n)
        .map(|_| {
            let context = [&shots[..], &rng.tokens(task.context, vocab_size)].concat();
            (0..task.choices)
                .map(|_| (context.clone(), rng.tokens(task.choice, vocab_size)))
                .collect()
        })
        .collect()
}

/// Prints the median of the seconds that each way took for `n` of something; the first way is
/// what the others are compared with.
fn report(what: &str, n: usize, ways: &[String], mut seconds: Vec<Vec<f64>>) {
    let medians: Vec<_> = seconds
        .iter_mut()
        .map(|seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        })
        .collect();
    for (way, median) in ways.iter().zip(&medians) {
        println!(
            "{what}: {way}: {:.2}/s, {:.2} times",
            n as f64 / median,
            medians[0] / median
        );
    }
}

fn ways() -> Vec<String> {
    let batches = BATCHES.map(|batch| format!("{batch} at a time"));
    [&["alone".to_owned()][..], &batches].concat()
}

#[test]
#[ignore = "bench"]
fn bench_items() {
    let model = model();
    let mut engine = engine(&model);
    let n = number("ITEMS", 64);
    for task in &TASKS {
        let items = items(task, n, model.config.vocab_size);
        let requests: Vec<Vec<Request<'_>>> = items
            .iter()
            .map(|item| {
                item.iter()
                    .map(|(context, continuation)| Request {
                        context,
                        continuation,
                    })
                    .collect()
            })
            .collect();
        let mut cache = engine.new_cache(task.shots + task.context + task.choice);
        let mut seconds = vec![Vec::new(); 1 + BATCHES.len()];
        for _ in 0..number("ROUNDS", 5) {
            let start = Instant::now();
            let alone: Vec<Vec<Score>> = requests
                .iter()
                .map(|item| loglikelihoods(&mut engine, &mut cache, item).unwrap())
                .collect();
            seconds[0].push(start.elapsed().as_secs_f64());
            for (way, batch) in BATCHES.into_iter().enumerate() {
                let start = Instant::now();
                let mut scorer = Scorer::new(&mut engine, 4096);
                let mut found = Vec::new();
                for items in requests.chunks(batch) {
                    let items: Vec<_> = items.iter().map(Vec::as_slice).collect();
                    found.extend(scorer.score(&items).unwrap());
                }
                seconds[1 + way].push(start.elapsed().as_secs_f64());
                assert!(found == alone, "the same scores");
            }
        }
        report(&format!("{}, items", task.name), n, &ways(), seconds);
    }
}

#[test]
#[ignore = "bench"]
fn bench_generation() {
    const NEW: usize = 32;
    let model = model();
    let mut engine = engine(&model);
    // Texts do not matter to the time of a token: a synthetic model's come of the bundled vocabulary.
    let vocab = load(&bundled(), &LoadOptions::default()).unwrap().vocab;
    let tokenizer = Tokenizer::new(&vocab).unwrap();
    let mut rng = TestRng::new(1);
    let n = number("ITEMS", 64);
    let tokens: Vec<_> = (0..n)
        .map(|_| {
            let len = 16 + rng.below(32);
            rng.tokens(len, model.config.vocab_size)
        })
        .collect();
    // They end one by one, as real ones do.
    let params: Vec<_> = (0..n)
        .map(|i| Params {
            max_new: NEW / 2 + i * 7 % NEW,
            ignore_eos: true,
            ..Params::default()
        })
        .collect();
    let new: usize = params.iter().map(|params| params.max_new).sum();
    let prompts: Vec<_> = tokens
        .iter()
        .zip(&params)
        .map(|(tokens, params)| Prompt { tokens, params })
        .collect();
    let mut seconds = vec![Vec::new(); 1 + BATCHES.len()];
    for _ in 0..number("ROUNDS", 5) {
        let mut cache = engine.new_cache(128);
        let start = Instant::now();
        let alone: Vec<_> = prompts
            .iter()
            .map(|Prompt { tokens, params }| {
                cache.truncate(0);
                let go_on = |_: &Step<'_>| ControlFlow::Continue(());
                generate(&mut engine, &mut cache, &tokenizer, tokens, params, go_on).unwrap()
            })
            .collect();
        seconds[0].push(start.elapsed().as_secs_f64());
        for (way, batch) in BATCHES.into_iter().enumerate() {
            let batch = NonZeroUsize::new(batch).unwrap();
            let mut n_ended = 0;
            let start = Instant::now();
            generate_many(&mut engine, &tokenizer, &prompts, batch, |index, result| {
                assert!(result.unwrap() == alone[index], "the same text");
                n_ended += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
            seconds[1 + way].push(start.elapsed().as_secs_f64());
            assert_eq!(n_ended, n);
        }
    }
    report("generation, tokens", new, &ways(), seconds);
}
