//! Whole models: bit-identity over kernels, threads, batches and cuts, and an independent check.

use std::collections::BTreeSet;

use super::*;
use crate::{
    kernels,
    kv_cache::CacheError,
    lookup::Lookup,
    testing::{TestRng, adapt, tiny_model, tiny_models},
    transformer::MICRO_BATCH,
    weights::Layer,
};

fn options(kernel: &'static str, threads: usize) -> EngineOptions {
    EngineOptions {
        threads: NonZeroUsize::new(threads).unwrap(),
        kernel: KernelChoice::Named(kernel),
        ..EngineOptions::default()
    }
}

/// Returns the bits of all logits of `tokens`, evaluated in pieces of the given length.
fn logit_bits(engine: &mut Engine, tokens: &[u32], piece: usize) -> Vec<u32> {
    let mut cache = engine.new_cache(tokens.len());
    let mut all = Vec::new();
    let mut logits = Vec::new();
    for piece in tokens.chunks(piece) {
        engine
            .forward(&mut cache, piece, Logits::All, &mut logits)
            .unwrap();
        all.extend(logits.iter().map(|x| x.to_bits()));
    }
    all
}

#[test]
fn logits_are_bit_equal_over_kernels_threads_batches_and_cuts() {
    for (name, config, weights) in tiny_models(7) {
        let tokens = TestRng::new(8).tokens(37, config.vocab_size);
        let mut reference =
            Engine::new(config.clone(), weights.clone(), &options("reference", 1)).unwrap();
        let expected = logit_bits(&mut reference, &tokens, 1);
        assert!(
            expected
                .iter()
                .all(|bits| f32::from_bits(*bits).is_finite())
        );
        for kernel in kernels::tested() {
            for threads in [1, 2, 3] {
                let options = options(kernel.name(), threads);
                let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
                // More threads than CPUs wait for each other at every step: fewer steps then. And
                // the reference is slow.
                let pieces: &[usize] = match (kernel.name(), threads) {
                    ("reference", 2) => &[32],
                    ("reference", _) => &[],
                    (_, 1) => &[1, 2, 5, 32, 37],
                    _ => &[5, 32],
                };
                for &piece in pieces {
                    assert!(
                        logit_bits(&mut engine, &tokens, piece) == expected,
                        "{name}: {}, {threads} threads, pieces of {piece}",
                        kernel.name()
                    );
                }
            }
        }
    }
}

#[test]
fn kernels_that_look_up_exact_sums_give_the_bits_of_multiplication() {
    for (name, config, weights) in tiny_models(7).into_iter().take(3) {
        let tokens = TestRng::new(8).tokens(70, config.vocab_size);
        let engine = |kernel, threads| {
            Engine::new(config.clone(), weights.clone(), &options(kernel, threads)).unwrap()
        };
        let expected = logit_bits(&mut engine("reference", 1), &tokens, 70);
        for kernel in kernels::names() {
            let choice = KernelChoice::Named(kernel);
            let Some(lookup) = choice.lookup().unwrap() else {
                continue;
            };
            for (threads, piece) in [(1, 1), (1, 33), (2, 70)] {
                // Plain loops over every index are slow.
                if kernel.starts_with("reference") && (threads, piece) != (2, 70) {
                    continue;
                }
                let mut engine = engine(kernel, threads);
                assert_eq!(engine.kernel_name(), kernel);
                let packed = engine.weights().layers[0].down.matrix.format();
                let one_scale = name != "bitnet-blocks";
                assert_eq!(packed == lookup.packing.name(), one_scale, "{name}");
                let found = logit_bits(&mut engine, &tokens, piece);
                let equal = lookup.is_lossless() || !one_scale;
                assert_eq!(
                    found == expected,
                    equal,
                    "{name}: {kernel}, {threads}, {piece}"
                );
            }
        }
    }
}

/// Returns the models of some names with an adapter beside every linear.
fn adapted(names: &[&str]) -> Vec<(&'static str, ModelConfig, Weights)> {
    let mut models = tiny_models(7);
    models.retain(|(name, _, _)| names.contains(name));
    assert_eq!(models.len(), names.len());
    for (_, _, weights) in &mut models {
        adapt(weights, &mut TestRng::new(11));
    }
    models
}

#[test]
fn adapters_give_the_same_bits_over_kernels_threads_and_batches() {
    for (name, config, weights) in adapted(&["bitnet", "qwen2-bf16", "llama-q4_0"]) {
        // More than an adapter takes at once.
        let tokens = TestRng::new(8).tokens(70, config.vocab_size);
        let engine = |kernel, threads| {
            Engine::new(config.clone(), weights.clone(), &options(kernel, threads)).unwrap()
        };
        let expected = logit_bits(&mut engine("reference", 1), &tokens, 1);
        for kernel in kernels::tested() {
            for threads in [1, 2, 3] {
                let mut engine = engine(kernel.name(), threads);
                let pieces: &[usize] = match (kernel.name(), threads) {
                    ("reference", 2) => &[32],
                    ("reference", _) => &[],
                    _ => &[1, 7, 32, 70],
                };
                for &piece in pieces {
                    assert!(
                        logit_bits(&mut engine, &tokens, piece) == expected,
                        "{name}: {}, {threads} threads, pieces of {piece}",
                        kernel.name()
                    );
                }
            }
        }
        for kernel in kernels::names() {
            let choice = KernelChoice::Named(kernel);
            let lookup = choice.lookup().unwrap();
            if lookup.is_some_and(Lookup::is_lossless) && !kernel.starts_with("reference") {
                let found = logit_bits(&mut engine(kernel, 2), &tokens, 33);
                assert!(found == expected, "{name}: {kernel}");
            }
        }
    }
}

#[test]
fn an_adapter_whose_b_is_zero_changes_no_bit_and_another_does() {
    for (name, config, mut weights) in adapted(&["bitnet", "llama-f16", "gemma3-bf16"]) {
        let fingerprint = |weights: &Weights| {
            let options = EngineOptions::default();
            let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
            engine.fingerprint()
        };
        let adapted = fingerprint(&weights);
        let linears = weights.layers.iter_mut().flat_map(Layer::linears_mut);
        for adapter in linears.filter_map(|linear| linear.adapter.as_mut()) {
            adapter.b.data = vec![0; adapter.b.data.len()].into();
        }
        let zeroed = fingerprint(&weights);
        let linears = weights.layers.iter_mut().flat_map(Layer::linears_mut);
        linears.for_each(|linear| linear.adapter = None);
        let base = fingerprint(&weights);
        assert_eq!(zeroed, base, "{name}");
        assert_ne!(adapted, base, "{name}");
    }
}

#[test]
fn weights_packed_for_one_kernel_can_be_packed_for_another() {
    let (config, weights) = tiny_model(3);
    let tokens = TestRng::new(8).tokens(9, config.vocab_size);
    let run = |weights: &Weights, kernel| {
        let mut engine = Engine::new(config.clone(), weights.clone(), &options(kernel, 1)).unwrap();
        let bits = logit_bits(&mut engine, &tokens, 9);
        (bits, engine.weights().clone())
    };
    let (expected, _) = run(&weights, "reference");
    let mut weights = weights;
    for kernel in [
        "reference-tl2",
        "reference-tl1",
        "reference-tmac",
        "reference",
    ] {
        let (found, packed) = run(&weights, kernel);
        assert!(found == expected, "{kernel}");
        weights = packed;
    }
}

#[test]
fn keys_and_values_in_f16_give_the_same_bits_everywhere_and_others_than_f32() {
    let (config, weights) = tiny_model(3);
    let tokens = TestRng::new(4).tokens(37, config.vocab_size);
    let logits = |kernel, threads, kv, piece| {
        let options = EngineOptions {
            kv,
            ..options(kernel, threads)
        };
        let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
        let bits = logit_bits(&mut engine, &tokens, piece);
        let cache = engine.new_cache(10);
        assert_eq!(cache.dtype(), kv);
        (bits, cache.bytes())
    };
    let (expected, f16_bytes) = logits("reference", 1, KvType::F16, 1);
    let (f32_bits, f32_bytes) = logits("reference", 1, KvType::F32, 1);
    assert_ne!(expected, f32_bits);
    assert_eq!(2 * f16_bytes, f32_bytes);
    for kernel in kernels::tested() {
        for (threads, piece) in [(1, 1), (1, 32), (2, 5)] {
            let (bits, _) = logits(kernel.name(), threads, KvType::F16, piece);
            assert!(bits == expected, "{}, {threads} threads", kernel.name());
        }
    }
}

#[test]
fn the_greatest_logits_are_those_of_all_with_either_head() {
    for (name, config, weights) in tiny_models(9) {
        let tokens = TestRng::new(5).tokens(12, config.vocab_size);
        let mut engine =
            Engine::new(config.clone(), weights.clone(), &options("reference", 1)).unwrap();
        let mut all = Vec::new();
        let mut cache = engine.new_cache(tokens.len());
        engine
            .forward(&mut cache, &tokens, Logits::Last, &mut all)
            .unwrap();
        for kernel in kernels::tested() {
            for head in [HeadChoice::Full, HeadChoice::Screened] {
                let options = EngineOptions {
                    head,
                    ..options(kernel.name(), 2)
                };
                let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
                for k in [1, 3, config.vocab_size] {
                    let (mut expected, mut found) = (Vec::new(), vec![(7, 7.0)]);
                    crate::sampler::greatest(&all, k, &mut expected);
                    let mut cache = engine.new_cache(tokens.len());
                    let k = NonZeroUsize::new(k).unwrap();
                    engine.top(&mut cache, &tokens, k, &mut found).unwrap();
                    assert!(found == expected, "{name}: {}, {head:?}", kernel.name());
                    assert_eq!(cache.len(), tokens.len());
                    engine.top(&mut cache, &[], k, &mut found).unwrap();
                    assert!(found.is_empty());
                }
            }
        }
    }
}

#[test]
fn a_prompt_longer_than_a_micro_batch_gives_the_same_bits() {
    let (config, weights) = tiny_model(3);
    let tokens = TestRng::new(4).tokens(MICRO_BATCH + 70, config.vocab_size);
    let mut engine = Engine::new(config, weights, &EngineOptions::default()).unwrap();
    let expected = logit_bits(&mut engine, &tokens, 1);
    assert!(logit_bits(&mut engine, &tokens, tokens.len()) == expected);

    let mut cache = engine.new_cache(tokens.len());
    let mut last = Vec::new();
    engine
        .forward(&mut cache, &tokens, Logits::Last, &mut last)
        .unwrap();
    let last: Vec<u32> = last.iter().map(|x| x.to_bits()).collect();
    assert_eq!(
        last,
        expected[expected.len() - engine.config().vocab_size..]
    );
}

/// Returns sequences of some lengths, the first of them one token that follows many.
fn sequences(n: usize, vocab_size: usize) -> Vec<(usize, Vec<u32>)> {
    let mut rng = TestRng::new(12);
    (0..n)
        .map(|i| {
            let before = [40, 0, 3, 17, 9][i % 5];
            let new = [1, 5, 1, 33, 2, 1, 12][i % 7];
            (before, rng.tokens(before + new, vocab_size))
        })
        .collect()
}

#[test]
fn sequences_evaluated_together_give_the_bits_of_each_alone() {
    for (name, config, weights) in tiny_models(7) {
        let vocab_size = config.vocab_size;
        let all = sequences(64, vocab_size);
        for kv in [KvType::F32, KvType::F16] {
            let expected: Vec<Vec<u32>> = {
                let options = EngineOptions {
                    kv,
                    ..EngineOptions::default()
                };
                let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
                let mut bits_alone = |(before, tokens): &(usize, Vec<u32>)| {
                    let bits = logit_bits(&mut engine, tokens, tokens.len());
                    bits[before * vocab_size..].to_vec()
                };
                all.iter().map(&mut bits_alone).collect()
            };
            for kernel in kernels::tested() {
                for (threads, batch, n) in [(1, 1, 64), (1, 64, 64), (2, 64, 64), (3, 7, 14)] {
                    // The reference is slow.
                    if kernel.name() == "reference" && threads != 3 {
                        continue;
                    }
                    let options = EngineOptions {
                        kv,
                        ..options(kernel.name(), threads)
                    };
                    let mut engine =
                        Engine::new(config.clone(), weights.clone(), &options).unwrap();
                    for (all, expected) in all[..n].chunks(batch).zip(expected.chunks(batch)) {
                        let found = bits_together(&mut engine, all);
                        assert!(
                            found == expected.concat(),
                            "{name}: {}, {kv:?}, {threads} threads, batches of {batch}",
                            kernel.name()
                        );
                    }
                }
            }
        }
    }
}

/// Evaluates what each sequence begins with alone, and all the rest together.
fn bits_together(engine: &mut Engine, all: &[(usize, Vec<u32>)]) -> Vec<u32> {
    let mut logits = Vec::new();
    let mut caches: Vec<_> = all
        .iter()
        .map(|(before, tokens)| {
            let mut cache = engine.new_cache(tokens.len());
            engine
                .forward(&mut cache, &tokens[..*before], Logits::None, &mut logits)
                .unwrap();
            cache
        })
        .collect();
    let mut segments: Vec<_> = caches
        .iter_mut()
        .zip(all)
        .map(|(cache, (before, tokens))| Segment {
            cache,
            tokens: &tokens[*before..],
            wanted: usize::MAX,
        })
        .collect();
    engine.forward_many(&mut segments, &mut logits).unwrap();
    for (cache, (_, tokens)) in caches.iter().zip(all) {
        assert_eq!(cache.len(), tokens.len());
    }
    logits.iter().map(|x| x.to_bits()).collect()
}

fn segments<'a>(caches: &'a mut [KvCache], all: &'a [(Vec<u32>, usize)]) -> Vec<Segment<'a>> {
    caches
        .iter_mut()
        .zip(all)
        .map(|(cache, (tokens, wanted))| Segment {
            cache,
            tokens,
            wanted: *wanted,
        })
        .collect()
}

#[test]
fn wanted_rows_come_in_order_over_the_cuts_of_micro_batches() {
    let (config, weights) = tiny_model(3);
    let vocab_size = config.vocab_size;
    let mut rng = TestRng::new(4);
    // The second and the fourth are cut; the third ends a micro-batch.
    let lengths = [300, 400, 2 * MICRO_BATCH - 700, MICRO_BATCH + 1, 0, 3];
    let wanted = [2, 250, 0, 5, 1, 9];
    let all: Vec<_> = lengths
        .into_iter()
        .zip(wanted)
        .map(|(n, wanted)| (rng.tokens(n, vocab_size), wanted))
        .collect();
    let mut engine = Engine::new(config, weights, &EngineOptions::default()).unwrap();
    let mut expected = Vec::new();
    for (tokens, wanted) in &all {
        let bits = logit_bits(&mut engine, tokens, 100);
        let rows = tokens.len().saturating_sub(*wanted);
        expected.extend_from_slice(&bits[rows * vocab_size..]);
    }
    let mut caches = lengths.map(|n| engine.new_cache(n));
    let mut logits = Vec::new();
    engine
        .forward_many(&mut segments(&mut caches, &all), &mut logits)
        .unwrap();
    let bits: Vec<_> = logits.iter().map(|x| x.to_bits()).collect();
    assert!(bits == expected);

    for cache in &mut caches {
        cache.truncate(0);
    }
    let rows = engine
        .map_logits(&mut segments(&mut caches, &all), |_, index, row| {
            let bits: Vec<_> = row.iter().map(|x| x.to_bits()).collect();
            (index, bits)
        })
        .unwrap();
    assert!(rows.iter().map(|(index, _)| *index).eq(0..2 + 250 + 5 + 3));
    let bits: Vec<_> = rows.into_iter().flat_map(|(_, bits)| bits).collect();
    assert!(bits == expected);

    let before: Vec<_> = caches.iter().map(KvCache::len).collect();
    let error = engine
        .forward_many(&mut segments(&mut caches, &all), &mut logits)
        .unwrap_err();
    assert!(matches!(
        error,
        ForwardError::Cache(CacheError::Full { .. })
    ));
    assert!(caches.iter().map(KvCache::len).eq(before));
}

#[test]
fn a_truncated_cache_continues_as_a_fresh_one() {
    let (config, weights) = tiny_model(5);
    let tokens = TestRng::new(6).tokens(20, config.vocab_size);
    let mut engine = Engine::new(config, weights, &EngineOptions::default()).unwrap();
    let expected = logit_bits(&mut engine, &tokens, 20);
    let vocab_size = engine.config().vocab_size;

    let mut cache = engine.new_cache(20);
    let mut logits = Vec::new();
    let other = [tokens[..8].to_vec(), vec![0; 10]].concat();
    engine
        .forward(&mut cache, &other, Logits::None, &mut logits)
        .unwrap();
    assert!(logits.is_empty());
    cache.truncate(8);
    assert_eq!(cache.len(), 8);
    engine
        .forward(&mut cache, &tokens[8..], Logits::All, &mut logits)
        .unwrap();
    let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, expected[8 * vocab_size..]);
}

#[test]
fn a_copied_prefix_continues_as_its_own_evaluation() {
    let (config, weights) = tiny_model(5);
    let vocab_size = config.vocab_size;
    let tokens = TestRng::new(6).tokens(20, vocab_size);
    for kv in [KvType::F32, KvType::F16] {
        let options = EngineOptions {
            kv,
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
        let expected = logit_bits(&mut engine, &tokens, 20);
        let mut from = engine.new_cache(31);
        let mut logits = Vec::new();
        let other = [&tokens[..9], &[0; 10]].concat();
        engine
            .forward(&mut from, &other, Logits::None, &mut logits)
            .unwrap();
        // It held another sequence.
        let mut to = engine.new_cache(20);
        engine
            .forward(&mut to, &[1, 2, 3], Logits::None, &mut logits)
            .unwrap();
        to.copy_prefix(&from, 9).unwrap();
        assert_eq!((to.len(), from.len()), (9, 19));
        engine
            .forward(&mut to, &tokens[9..], Logits::All, &mut logits)
            .unwrap();
        let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, expected[9 * vocab_size..]);

        to.copy_prefix(&from, 100).unwrap();
        assert_eq!(to.len(), 19);
        let mut small = engine.new_cache(18);
        let error = small.copy_prefix(&from, 19).unwrap_err();
        let (needed, capacity) = (19, 18);
        assert_eq!(error, CacheError::Full { needed, capacity });
        let another = match kv {
            KvType::F32 => KvType::F16,
            KvType::F16 => KvType::F32,
        };
        let other = KvCache::new(&config, another, 20);
        let error = small.copy_prefix(&other, 1).unwrap_err();
        assert!(matches!(error, CacheError::OtherType { .. }), "{error}");
        let wider = ModelConfig {
            n_layers: 3,
            ..config.clone()
        };
        let error = small
            .copy_prefix(&KvCache::new(&wider, kv, 20), 1)
            .unwrap_err();
        assert_eq!(error, CacheError::OtherShape);
        assert!(small.is_empty());
    }
}

#[test]
fn impossible_requests_are_errors_and_leave_the_cache_alone() {
    let (config, weights) = tiny_model(1);
    let mut engine = Engine::new(config, weights, &EngineOptions::default()).unwrap();
    let mut cache = engine.new_cache(3);
    let mut out = Vec::new();
    engine
        .forward(&mut cache, &[1, 2], Logits::Last, &mut out)
        .unwrap();
    let outside = engine.forward(&mut cache, &[1, 101], Logits::Last, &mut out);
    assert_eq!(
        outside.unwrap_err().to_string(),
        "token 101 is not in a vocabulary of 101"
    );
    let full = engine.forward(&mut cache, &[1, 2], Logits::Last, &mut out);
    assert_eq!(
        full.unwrap_err().to_string(),
        "the key/value cache holds 3 positions, and 4 are needed"
    );
    assert_eq!(cache.len(), 2);
    let mut other = engine.config().clone();
    other.head_dim += 2;
    let stranger = engine.forward(
        &mut KvCache::new(&other, KvType::F32, 9),
        &[1],
        Logits::Last,
        &mut out,
    );
    assert_eq!(stranger, Err(ForwardError::Cache(CacheError::OtherShape)));
    engine
        .forward(&mut cache, &[], Logits::Last, &mut out)
        .unwrap();
    assert!(out.is_empty());
}

#[test]
fn the_fingerprint_tells_models_apart_and_kernels_not() {
    let fingerprint = |seed, kernel| {
        let (config, weights) = tiny_model(seed);
        let mut engine = Engine::new(config, weights, &options(kernel, 2)).unwrap();
        engine.fingerprint()
    };
    let expected = fingerprint(1, "reference");
    for kernel in kernels::tested() {
        assert_eq!(fingerprint(1, kernel.name()), expected);
    }
    assert_ne!(fingerprint(2, "reference"), expected);
}

/// Fingerprints of `tiny_models(7)`, recorded on x86-64 when `NUMERICS_VERSION` was 1. They change
/// with that number and with those models, and with nothing else.
const FINGERPRINTS: [(&str, &str); 13] = [
    ("bitnet", "530bbc83a26728439c524212b7f690e6"),
    ("bitnet-blocks", "4f07dab9421a959637222e660f57ba37"),
    ("llama-ternary", "71920045643e34604322bf93710c77ae"),
    ("llama-f32", "dfe01950e220ba300e5ff315366ec0ce"),
    ("llama-f16", "08179eee9ae6bcfece7704fae6ca59d3"),
    ("qwen2-bf16", "80b9f9ec1837fbb1dc005c1202be8071"),
    ("gemma3-bf16", "ce48d182335d2402cffe0c7d03ca5b23"),
    ("llama-q8_0", "6d6ff85459c6c01d112607ce04e0ed29"),
    ("llama-q4_0", "afa7a9b1a34d344df50b2bf2de696711"),
    ("llama-q5_0", "7308d3f5853d2effc9c82e84ccc2cff8"),
    ("llama-q4_k", "dde2ac4b5527e1236d183b7654a709c7"),
    ("llama-q5_k", "9189e954bd80c5e7007b630943562d7b"),
    ("minicpm-bf16", "35f48aa4834785120509f34044b3041c"),
];

#[test]
fn every_kernel_of_every_architecture_gives_the_recorded_fingerprints() {
    let tested = kernels::tested();
    let tested = tested.iter().map(|kernel| kernel.name());
    let kernels: BTreeSet<_> = tested.chain(["reference"]).collect();
    for kernel in kernels {
        let fingerprints: Vec<_> = tiny_models(7)
            .into_iter()
            .map(|(name, config, weights)| {
                let mut engine = Engine::new(config, weights, &options(kernel, 1)).unwrap();
                let fingerprint = u128::from_be_bytes(engine.fingerprint());
                (name, format!("{fingerprint:032x}"))
            })
            .collect();
        let expected = FINGERPRINTS.map(|(name, hex)| (name, hex.to_owned()));
        assert_eq!(fingerprints, expected, "{kernel}");
    }
}

fn fast(kernel: &'static str, threads: usize) -> EngineOptions {
    EngineOptions {
        numerics: Numerics::Fast,
        ..options(kernel, threads)
    }
}

#[test]
fn fast_logits_are_bit_equal_everywhere_near_the_exact_ones_and_others() {
    for (name, config, weights) in tiny_models(7) {
        let tokens = TestRng::new(8).tokens(37, config.vocab_size);
        let engine = |options: &EngineOptions| {
            Engine::new(config.clone(), weights.clone(), options).unwrap()
        };
        let exact = logit_bits(&mut engine(&options("reference", 1)), &tokens, 37);
        let mut reference = engine(&fast("reference", 1));
        let expected = logit_bits(&mut reference, &tokens, 37);
        if weights.head().dtype.is_float() {
            assert_eq!(reference.numerics(), Numerics::Exact, "{name}");
            assert!(expected == exact, "{name}: nothing to round inputs for");
            continue;
        }
        assert_eq!(reference.numerics(), Numerics::Fast, "{name}");
        let fingerprint = reference.fingerprint();
        assert_ne!(fingerprint, engine(&options("reference", 1)).fingerprint());
        for kernel in kernels::tested() {
            for threads in [1, 2, 3] {
                let mut engine = engine(&fast(kernel.name(), threads));
                let pieces: &[usize] = match (kernel.name(), threads) {
                    ("reference", 2) => &[32],
                    ("reference", _) => &[],
                    _ => &[1, 7, 32],
                };
                for &piece in pieces {
                    assert!(
                        logit_bits(&mut engine, &tokens, piece) == expected,
                        "{name}: {}, {threads} threads, pieces of {piece}",
                        kernel.name()
                    );
                }
                assert_eq!(engine.fingerprint(), fingerprint, "{name}");
            }
        }
        // Of the logits' spread; measured: 0.9 % to 2.1 %.
        let floats =
            |bits: &[u32]| -> Vec<f32> { bits.iter().copied().map(f32::from_bits).collect() };
        let (fast, exact) = (floats(&expected), floats(&exact));
        let square = |x: f64| x * x;
        let n = exact.len() as f64;
        let mean = exact.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let spread = exact
            .iter()
            .map(|&x| square(f64::from(x) - mean))
            .sum::<f64>()
            / n;
        let differences = fast.iter().zip(&exact).map(|(a, b)| f64::from(a - b));
        let error = differences.map(square).sum::<f64>() / n;
        let share = (error / spread).sqrt();
        eprintln!("{name}: off by {share:.5} of the spread");
        assert!(share < 0.03, "{name}: off by {share} of the spread");
    }
}

#[test]
fn the_greatest_fast_logits_are_those_of_all() {
    for (name, config, weights) in tiny_models(9) {
        let tokens = TestRng::new(5).tokens(12, config.vocab_size);
        let options = EngineOptions {
            head: HeadChoice::Screened,
            ..fast(kernels::available()[0].name(), 2)
        };
        let mut engine = Engine::new(config, weights, &options).unwrap();
        let (mut all, mut expected, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let mut cache = engine.new_cache(tokens.len());
        engine
            .forward(&mut cache, &tokens, Logits::Last, &mut all)
            .unwrap();
        crate::sampler::greatest(&all, 3, &mut expected);
        let mut cache = engine.new_cache(tokens.len());
        let k = NonZeroUsize::new(3).unwrap();
        engine.top(&mut cache, &tokens, k, &mut found).unwrap();
        assert!(found == expected, "{name}");
    }
}
