//! One result, whatever computes it: every golden model on every lossless kernel, with 1 to 8 threads,
//! in batches of 1 to 512 tokens, and beside other sequences.

use std::{num::NonZeroUsize, path::Path};

use tritmark_engine::{
    engine::{Engine, EngineOptions, Logits, Segment, hash_logits, hex},
    kernels::{self, KernelChoice},
    kv_cache::KvCache,
    load::{LoadOptions, load},
    testing::TestRng,
    weights::{Layer, Matrix},
};

use crate::{common, models::MODELS};

/// How many tokens are evaluated.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    /// In batches of 512, which is what a pass takes.
    long: usize,
    /// In smaller ones.
    short: usize,
    /// Where threads wait for each other.
    few: usize,
    /// By plain loops.
    reference: usize,
    /// Threads with which sums are looked up.
    looking_up: &'static [usize],
}

const GOLDEN: Lengths = Lengths {
    long: 523,
    short: 96,
    few: 24,
    reference: 523,
    looking_up: &[1, 3],
};

/// One way to compute.
#[derive(Clone, Copy, Debug)]
struct Way {
    threads: usize,
    /// Tokens in each evaluation.
    batch: usize,
    /// Sequences evaluated together.
    sequences: usize,
}

const fn way(threads: usize, batch: usize, sequences: usize) -> Way {
    Way {
        threads,
        batch,
        sequences,
    }
}

/// Every thread count with every batch, of one sequence and of several.
fn ways() -> Vec<Way> {
    let threads = [1, 2, 3, 4, 8];
    let ways = threads.map(|threads| {
        let alone = [1, 7, 32, 512].map(|batch| way(threads, batch, 1));
        let together = [way(threads, 1, 7), way(threads, 32, 4)];
        [&alone[..], &together].concat()
    });
    ways.concat()
}

#[test]
fn golden_models_give_the_same_bits_whatever_computes_them() {
    let Some(data) = common::data("the bits of the golden models") else {
        return;
    };
    let models = MODELS
        .iter()
        .map(|model| data.join("golden/models").join(model.file));
    let others = [
        "bitllama-tinystories-1m-f32.gguf",
        "bitllama-tinystories-3m-tq2_0.gguf",
    ];
    let others = others.map(|file| data.join("models/bitllama").join(file));
    for path in models.chain(others) {
        check(&path, GOLDEN);
    }
}

/// The same of a model of any size: `TRITMARK_BENCH_MODEL=FILE cargo test --release -p tritmark-engine
/// --test golden -- --ignored --nocapture a_large_model`.
#[test]
#[ignore = "some minutes and gigabytes"]
fn a_large_model_gives_the_same_bits_whatever_computes_it() {
    let path = std::env::var_os("TRITMARK_BENCH_MODEL").expect("TRITMARK_BENCH_MODEL names a file");
    let lengths = Lengths {
        long: 32,
        short: 16,
        few: 3,
        reference: 2,
        looking_up: &[3],
    };
    check(Path::new(&path), lengths);
}

fn check(path: &Path, lengths: Lengths) {
    let model = load(path, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    let vocab_size = model.config.vocab_size;
    let longest = lengths.long.min(model.config.context_length);
    let mut rng = TestRng::new(1);
    // The first is the one that is compared; the others are of other lengths.
    let sequences: Vec<_> = [longest, 40, 3, 90, 1, 70, 64]
        .into_iter()
        .map(|n| rng.tokens(n.min(longest), vocab_size))
        .collect();
    let mut linears = model.weights.layers.iter().flat_map(Layer::linears);
    let ternary = linears.any(|linear| matches!(linear.matrix, Matrix::Ternary(_)));
    let mut expected: Option<Vec<f32>> = None;
    let mut n_ways = 0;
    for kernel in kernels::names() {
        if KernelChoice::Named(kernel).is_lossless() != Ok(true) {
            continue;
        }
        for way in ways() {
            // Plain loops are slow. More threads than CPUs wait for each other at every step.
            let looks_up = KernelChoice::Named(kernel).lookup().unwrap().is_some();
            let n = match (way.threads, way.batch) {
                _ if looks_up && (!ternary || kernel.starts_with("reference")) => continue,
                (threads, _) if looks_up && !lengths.looking_up.contains(&threads) => continue,
                (threads, batch) if kernel == "reference" && (threads, batch) != (2, 512) => {
                    continue;
                }
                _ if kernel == "reference" => longest.min(lengths.reference),
                (_, 512) => longest,
                (3.., 1 | 7) => lengths.few,
                _ => lengths.short,
            };
            let options = EngineOptions {
                threads: NonZeroUsize::new(way.threads).unwrap(),
                kernel: KernelChoice::Named(kernel),
                ..EngineOptions::default()
            };
            let mut engine =
                Engine::new(model.config.clone(), model.weights.clone(), &options).unwrap();
            let logits = run(&mut engine, &sequences, n, way);
            let all = expected.get_or_insert_with(|| logits.clone());
            let same = logits
                .iter()
                .zip(&*all)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{}: {kernel}, {way:?}", path.display());
            n_ways += 1;
            // The longest holds the others.
            if all.len() < logits.len() {
                *all = logits;
            }
        }
    }
    let all = expected.unwrap();
    assert_eq!(all.len(), longest * vocab_size);
    assert!(
        n_ways >= 30 || kernels::available().len() == 1,
        "{n_ways} ways"
    );
    eprintln!(
        "{}: {n_ways} ways, one fingerprint {}",
        path.display(),
        hex(&hash_logits(&all))
    );
}

/// Returns the logits of the first `n` tokens of the first sequence.
fn run(engine: &mut Engine, sequences: &[Vec<u32>], n: usize, way: Way) -> Vec<f32> {
    let mut caches: Vec<KvCache> = sequences
        .iter()
        .take(way.sequences)
        .map(|tokens| engine.new_cache(tokens.len()))
        .collect();
    let mut all = Vec::with_capacity(n * engine.config().vocab_size);
    let mut logits = Vec::new();
    for (start, tokens) in (0..)
        .step_by(way.batch)
        .zip(sequences[0][..n].chunks(way.batch))
    {
        let mut segments: Vec<_> = caches
            .iter_mut()
            .zip(sequences)
            .map(|(cache, others)| Segment {
                cache,
                tokens: others.get(start..).unwrap_or_default(),
                wanted: 0,
            })
            .collect();
        for segment in &mut segments {
            segment.tokens = &segment.tokens[..segment.tokens.len().min(way.batch)];
        }
        segments[0].tokens = tokens;
        segments[0].wanted = tokens.len();
        // The one compared stands last among those it is evaluated with.
        segments.reverse();
        engine.forward_many(&mut segments, &mut logits).unwrap();
        all.extend_from_slice(&logits);
    }
    if way.sequences == 1 {
        assert_eq!(caches[0].len(), n);
        caches[0].truncate(n - 1);
        let last = &sequences[0][n - 1..n];
        engine
            .forward(&mut caches[0], last, Logits::Last, &mut logits)
            .unwrap();
        assert!(all.ends_with(&logits));
    }
    all
}
