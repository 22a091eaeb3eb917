//! The bundled, really trained models give the same bits on every kernel of every machine, with one
//! thread and with two, token by token and 32 tokens at once.
//!
//! With `TRITMARK_EXPECT_KERNEL` set, the machine must have that kernel as its best: a check that
//! is to prove a kernel (`.ci/avx512`) cannot pass on a machine that lacks it.

use std::{num::NonZeroUsize, path::Path};

use tritmark_engine::{
    engine::{Engine, EngineOptions, Logits},
    kernels::{self, KernelChoice},
    load::{LoadOptions, load},
    tokenizer::{Special, Tokenizer},
};

/// A batch of 32, and one more.
const TOKENS: usize = 33;

const TEXT: &str = "Four score and seven years ago our fathers brought forth on this continent, \
                    a new nation, conceived in Liberty, and dedicated to the proposition that all \
                    men are created equal.";

#[test]
fn the_best_kernel_is_the_one_expected() {
    let names: Vec<_> = kernels::available().iter().map(|k| k.name()).collect();
    eprintln!("kernels of this machine: {}", names.join(", "));
    let Some(expected) = std::env::var_os("TRITMARK_EXPECT_KERNEL") else {
        eprintln!("NOT RUN: no kernel is expected, TRITMARK_EXPECT_KERNEL names one");
        return;
    };
    assert_eq!(expected.to_str(), Some(names[0]));
}

#[test]
fn the_trained_ternary_model_gives_the_same_bits_on_every_kernel() {
    check("bitnet-tiny.i2_s.gguf", "678dc72c5f35cf0847d2429b16161cf0");
}

#[test]
fn the_trained_dense_model_gives_the_same_bits_on_every_kernel() {
    check("llama-tiny", "279904f0359202d7d0474837afea4ac1");
}

/// Holds every kernel, 1 and 2 threads, batches of 1 and 32 to the logits' fingerprint.
///
/// It was recorded on x86-64 when `NUMERICS_VERSION` was 1, and changes with that number alone.
fn check(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models")
        .join(file);
    let model = load(&path, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    let tokenizer = Tokenizer::new(&model.vocab).expect("the model has a tokenizer");
    let mut tokens = tokenizer
        .encode(TEXT, Special::Default, true)
        .expect("the text can be encoded");
    assert!(tokens.len() >= TOKENS, "{} tokens", tokens.len());
    tokens.truncate(TOKENS);

    // The reference comes first: it is what the others are held to.
    let names: Vec<_> = kernels::available().iter().map(|k| k.name()).collect();
    // Those that look up exact sums too; of them the scalar ones are too slow.
    let looking_up = kernels::names().filter(|name| {
        let lossless = KernelChoice::Named(name).is_lossless() == Ok(true);
        lossless && !names.contains(name) && !name.starts_with("reference")
    });
    for kernel in names.iter().rev().copied().chain(looking_up) {
        for threads in [1, 2] {
            let options = EngineOptions {
                threads: NonZeroUsize::new(threads).expect("not zero"),
                kernel: KernelChoice::Named(kernel),
                ..EngineOptions::default()
            };
            let mut engine = Engine::new(model.config.clone(), model.weights.clone(), &options)
                .expect("the model fits");
            assert_eq!(engine.kernel_name(), kernel);
            for batch in [1, 32] {
                // The reference is slow; the engine's own tests cut and divide its work.
                if kernel == "reference" && (threads, batch) != (1, 32) {
                    continue;
                }
                let actual = fingerprint(&mut engine, &tokens, batch);
                let actual = format!("{actual:032x}");
                eprintln!(
                    "{file}: {kernel}, threads {threads}, batch {batch}: fingerprint {actual}"
                );
                assert_eq!(actual, expected);
            }
        }
    }
}

/// Hashes the bits of the logits of every position.
fn fingerprint(engine: &mut Engine, tokens: &[u32], batch: usize) -> u128 {
    let mut cache = engine.new_cache(tokens.len());
    let mut logits = Vec::new();
    let mut hasher = blake3::Hasher::new();
    for batch in tokens.chunks(batch) {
        engine
            .forward(&mut cache, batch, Logits::All, &mut logits)
            .expect("the tokens fit the cache");
        assert!(logits.iter().all(|logit| logit.is_finite()));
        for logit in &logits {
            hasher.update(&logit.to_le_bytes());
        }
    }
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    u128::from_be_bytes(hash)
}
