//! What a model of 1.2 GB takes: the time from nothing to its first token, and memory.
//!
//! `TRITMARK_BENCH_MODEL=FILE cargo test --release -p tritmark-engine --test footprint -- --ignored
//! --nocapture --exact NAME`, one of the tests a process, since the most memory a process ever had is
//! measured; without the variable a synthetic BitNet b1.58 2B4T. `TRITMARK_BENCH_THREADS` are the
//! threads, 2 without it; `TRITMARK_BENCH_HEAD=full` leaves the screen out.
#![expect(clippy::unwrap_used, reason = "what cannot be measured ends the bench")]

use std::{num::NonZeroUsize, path::PathBuf, time::Instant};

use tritmark_engine::{
    engine::{Engine, EngineOptions, HeadChoice, Logits},
    kv_cache::KvType,
    load::{LoadOptions, load},
    synth,
    tokenizer::Tokenizer,
};

fn path() -> PathBuf {
    if let Some(path) = std::env::var_os("TRITMARK_BENCH_MODEL") {
        return path.into();
    }
    let path = std::env::temp_dir().join("tritmark-bench-2b4t.gguf");
    if !path.exists() {
        let shape = synth::shape("2b4t").unwrap();
        synth::write(shape, synth::Format::I2S, 1, &path, |_, _| {}).unwrap();
    }
    path
}

fn options() -> EngineOptions {
    let threads = std::env::var("TRITMARK_BENCH_THREADS").map_or(2, |n| n.parse().unwrap());
    let full = std::env::var("TRITMARK_BENCH_HEAD").is_ok_and(|head| head == "full");
    EngineOptions {
        threads: NonZeroUsize::new(threads).unwrap(),
        head: if full {
            HeadChoice::Full
        } else {
            HeadChoice::Screened
        },
        kv: KvType::F16,
        ..EngineOptions::default()
    }
}

/// Returns a field of `/proc/self/status`, in bytes.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    1024 * line
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
}

#[test]
#[ignore = "bench"]
fn bench_load_to_first_token() {
    let path = path();
    // The page cache is warm.
    std::io::copy(
        &mut std::fs::File::open(&path).unwrap(),
        &mut std::io::sink(),
    )
    .unwrap();
    for _ in 0..5 {
        let start = Instant::now();
        let mut last = start;
        let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
        let model = load(&path, &LoadOptions::default()).unwrap();
        let loaded = lap();
        let has_tokenizer = Tokenizer::new(&model.vocab).is_ok();
        let tokenized = lap();
        let mut engine = Engine::new(model.config, model.weights, &options()).unwrap();
        let made = lap();
        let mut cache = engine.new_cache(16);
        let mut greatest = Vec::new();
        let one = NonZeroUsize::MIN;
        engine
            .top(&mut cache, &[1, 2, 3, 4, 5], one, &mut greatest)
            .unwrap();
        let (first, all) = (lap(), start.elapsed());
        engine.top(&mut cache, &[7], one, &mut greatest).unwrap();
        let second = lap();
        println!(
            "first token after {all:.2?}: load {loaded:.2?}, tokenizer {tokenized:.2?} \
             ({has_tokenizer}), engine {made:.2?}, prompt of 5 {first:.2?}, then one {second:.2?}"
        );
    }
}

/// Weights once, keys and values, and little else: a tenth more at most.
#[test]
#[ignore = "bench"]
fn bench_memory_of_decode_at_4096() {
    let path = path();
    let before = status("VmRSS");
    let model = load(&path, &LoadOptions::default()).unwrap();
    let weights = model.source.weight_bytes;
    let mut engine = Engine::new(model.config, model.weights, &options()).unwrap();
    let screen = engine.screen().map_or(0, |screen| screen.bytes() as u64);
    let mut cache = engine.new_cache(4096);
    let (mut logits, mut greatest) = (Vec::new(), Vec::new());
    let prompt: Vec<u32> = (0..4096 - 32).collect();
    engine
        .forward(&mut cache, &prompt, Logits::None, &mut logits)
        .unwrap();
    let start = Instant::now();
    for _ in 0..32 {
        engine
            .top(&mut cache, &[7], NonZeroUsize::MIN, &mut greatest)
            .unwrap();
    }
    let speed = 32.0 / start.elapsed().as_secs_f64();
    let kv = cache.bytes_used() as u64;
    let peak = status("VmHWM") - before;
    println!(
        "peak {:.3} GB, {:.3} times weights {:.3} GB (screen {:.3} GB beside) and keys and values \
         {:.3} GB; decode at depth 4064 to 4096 {speed:.2} tok/s",
        peak as f64 / 1e9,
        peak as f64 / (weights + kv) as f64,
        weights as f64 / 1e9,
        screen as f64 / 1e9,
        kv as f64 / 1e9,
    );
    assert!(peak as f64 <= 1.1 * (weights + kv) as f64);
}
