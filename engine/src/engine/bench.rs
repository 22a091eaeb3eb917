//! Decode and prefill at the shape of BitNet b1.58 2B4T, beside the machine's read bandwidth.
//!
//! `cargo test --release -p tritmark-engine bench -- --ignored --nocapture --test-threads=1`

use std::time::Instant;

use super::*;
use crate::{
    config::{Activation, Architecture, RopePairs, RopeScaling},
    testing::{TestRng, random_dense},
    weights::{
        AlignedBytes, DenseMatrix, DenseType, Layer, Linear, Matrix, TernaryMatrix, TernaryScale,
    },
};

/// BitNet b1.58 2B4T (arXiv 2504.12285): 521 MB of ternary weights, 657 MB of F16 embedding.
fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Bitnet,
        vocab_size: 128_256,
        hidden_size: 2560,
        ffn_size: 6912,
        n_layers: 30,
        n_heads: 20,
        n_kv_heads: 5,
        head_dim: 128,
        context_length: 4096,
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_scale: None,
        local: None,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_pairs: RopePairs::Halves,
        rope_scaling: RopeScaling::None,
        rope_freq_factors: None,
        activation: Activation::ReluSquared,
    }
}

/// Returns random bytes, each made valid by `table`.
fn random_bytes(rng: &mut TestRng, len: usize, table: &[u8; 256]) -> crate::weights::Bytes {
    let mut bytes = AlignedBytes::for_weights(len);
    for chunk in bytes.as_mut_slice().chunks_mut(8) {
        for (byte, random) in chunk.iter_mut().zip(rng.next_u64().to_le_bytes()) {
            *byte = table[usize::from(random)];
        }
    }
    crate::weights::Bytes::Owned(bytes.into())
}

fn linear(rng: &mut TestRng, rows: usize, cols: usize, dense: Option<DenseType>) -> Linear {
    // Code 3 is none: it becomes 1.
    let codes = std::array::from_fn(|byte| {
        let pairs = [0, 2, 4, 6].map(|shift| match byte >> shift & 3 {
            3 => 1 << shift,
            code => code << shift,
        });
        pairs.into_iter().sum::<usize>() as u8
    });
    // Small exponents: no infinities, and no denormals that matter.
    let small = std::array::from_fn(|byte| byte as u8 & 0xb3);
    let matrix = match dense {
        None => Matrix::Ternary(TernaryMatrix {
            rows,
            cols,
            codes: random_bytes(rng, TernaryMatrix::bytes(rows, cols), &codes),
            scale: TernaryScale::Tensor(0.01),
        }),
        Some(dtype) => Matrix::Dense(DenseMatrix {
            rows,
            cols,
            dtype,
            data: random_bytes(rng, rows * dtype.row_bytes(cols), &small),
        }),
    };
    Linear {
        matrix,
        bias: None,
        adapter: None,
    }
}

fn weights(config: &ModelConfig, dense: Option<DenseType>) -> Weights {
    let mut rng = TestRng::new(1);
    let (hidden, ffn) = (config.hidden_size, config.ffn_size);
    let kv_width = config.n_kv_heads * config.head_dim;
    let layers = (0..config.n_layers)
        .map(|_| Layer {
            attn_norm: vec![1.0; hidden],
            q: linear(&mut rng, hidden, hidden, dense),
            k: linear(&mut rng, kv_width, hidden, dense),
            v: linear(&mut rng, kv_width, hidden, dense),
            q_norm: None,
            k_norm: None,
            attn_sub_norm: Some(vec![1.0; hidden]),
            o: linear(&mut rng, hidden, hidden, dense),
            attn_post_norm: None,
            ffn_norm: vec![1.0; hidden],
            gate: linear(&mut rng, ffn, hidden, dense),
            up: linear(&mut rng, ffn, hidden, dense),
            ffn_sub_norm: Some(vec![1.0; ffn]),
            down: linear(&mut rng, hidden, ffn, dense),
            ffn_post_norm: None,
        })
        .collect();
    // Values like a real head's: how many rows a screen leaves depends on them.
    let embedding = random_dense(&mut rng, config.vocab_size, hidden, DenseType::F16);
    Weights {
        embedding,
        layers,
        output_norm: vec![1.0; hidden],
        head: None,
    }
}

/// Seconds of this thread on a CPU, or of the wall where the system does not tell.
///
/// What else runs on the machine then costs caches and bandwidth only.
struct CpuClock {
    start: f64,
    wall: Instant,
}

impl CpuClock {
    fn start() -> Self {
        Self {
            start: Self::on_cpu(),
            wall: Instant::now(),
        }
    }

    fn on_cpu() -> f64 {
        std::fs::read_to_string("/proc/thread-self/schedstat")
            .ok()
            .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
            .map_or(0.0, |nanoseconds| nanoseconds / 1e9)
    }

    fn seconds(&self) -> f64 {
        let on_cpu = Self::on_cpu() - self.start;
        if on_cpu > 0.0 {
            on_cpu
        } else {
            self.wall.elapsed().as_secs_f64()
        }
    }
}

/// Returns the bytes read per second by one thread that adds up 512 MiB, best of some.
fn read_bandwidth() -> f64 {
    let mut bytes = AlignedBytes::zeroed(512 << 20);
    // Pages that were never written are all the same one.
    bytes.as_mut_slice().fill(1);
    let words: &[u64] = bytemuck::cast_slice(&bytes);
    let mut best = f64::MAX;
    for _ in 0..4 {
        let start = CpuClock::start();
        let mut sums = [0_u64; 32];
        for chunk in std::hint::black_box(words).as_chunks::<32>().0 {
            for (sum, word) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*word);
            }
        }
        std::hint::black_box(sums);
        best = best.min(start.seconds());
    }
    bytes.len() as f64 / best
}

/// What one run of a bench does.
#[derive(Clone, Copy, Debug)]
struct Shape {
    threads: usize,
    prompt: usize,
    depth: usize,
    decode: usize,
    head: HeadChoice,
}

impl Shape {
    const fn prefill(threads: usize, prompt: usize) -> Self {
        Self {
            threads,
            prompt,
            depth: 0,
            decode: 0,
            head: HeadChoice::Full,
        }
    }

    const fn decode(threads: usize, head: HeadChoice) -> Self {
        Self {
            threads,
            prompt: 0,
            depth: 0,
            decode: 24,
            head,
        }
    }
}

fn run(weights: &Weights, config: &ModelConfig, shape: Shape) {
    let Shape {
        threads,
        prompt,
        depth,
        decode,
        head,
    } = shape;
    let options = EngineOptions {
        threads: NonZeroUsize::new(threads).unwrap(),
        head,
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
    let kernel = engine.kernel_name();
    let mut cache = engine.new_cache(depth + prompt + decode + 1);
    let mut greatest = Vec::new();
    let one = NonZeroUsize::MIN;
    let tokens = TestRng::new(2).tokens(depth + prompt.max(1), config.vocab_size);
    let (before, tokens) = tokens.split_at(depth);
    engine
        .forward(&mut cache, before, Logits::None, &mut Vec::new())
        .unwrap();
    engine
        .top(&mut cache, &tokens[..1], one, &mut greatest)
        .unwrap();
    cache.truncate(depth);
    if prompt > 0 {
        let start = CpuClock::start();
        engine.top(&mut cache, tokens, one, &mut greatest).unwrap();
        let speed = prompt as f64 / start.seconds();
        println!("{kernel} {threads}T: pp{prompt} @ d{depth} {speed:.1} tok/s");
    }
    if decode > 0 {
        let mut times = Vec::new();
        for _ in 0..decode {
            let start = CpuClock::start();
            engine.top(&mut cache, &[7], one, &mut greatest).unwrap();
            times.push(start.seconds());
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{kernel} {threads}T: tg{decode} @ d{depth}, {head:?} head, median {:.2} tok/s, best {:.2}",
            1.0 / times[decode / 2],
            1.0 / times[0]
        );
    }
}

/// Decode reads 1.178 GB a token with the full head, 0.769 GB with a screened one: at 25 GB/s no
/// more than 21 and 33 tok/s.
#[test]
#[ignore = "bench"]
fn bench_2b4t_decode() {
    println!("read bandwidth 1T: {:.1} GB/s", read_bandwidth() / 1e9);
    let config = config();
    let weights = weights(&config, None);
    for threads in [1, 2] {
        for head in [HeadChoice::Full, HeadChoice::Screened] {
            run(&weights, &config, Shape::decode(threads, head));
        }
    }
}

/// Prefill is 2.084 G products a token: at 64 products a cycle and 3.5 GHz no more than 107 tok/s a
/// core.
#[test]
#[ignore = "bench"]
fn bench_2b4t_prefill() {
    let config = config();
    let weights = weights(&config, None);
    for (threads, prompt) in [(1, 128), (2, 128), (2, 512), (1, 128)] {
        run(&weights, &config, Shape::prefill(threads, prompt));
    }
}

/// Full precision: 16 f32 products a cycle make no more than 23 tok/s of prefill a core; decode
/// reads 4.8 GB a token, as F16 and BF16 alike. A third of the layers stands for all.
#[test]
#[ignore = "bench"]
fn bench_2b4t_dense() {
    for dtype in [
        DenseType::Bf16,
        DenseType::F16,
        DenseType::Q8_0,
        DenseType::Q4_0,
    ] {
        let config = ModelConfig {
            n_layers: 10,
            ..config()
        };
        let weights = weights(&config, Some(dtype));
        println!("{dtype:?}, 10 of 30 layers");
        for threads in [1, 2] {
            let shape = Shape {
                decode: 8,
                ..Shape::prefill(threads, 64)
            };
            run(&weights, &config, shape);
        }
    }
}

/// Decode of several sequences at once: each token reads the layers' weights once for all, so that
/// products bound it from some ten sequences on. Batches take turns, so that what else runs meets all.
#[test]
#[ignore = "bench"]
fn bench_2b4t_batches() {
    const DEPTH: usize = 64;
    const ROUNDS: usize = 5;
    let config = ModelConfig {
        n_layers: 10,
        ..config()
    };
    let weights = weights(&config, None);
    println!("10 of 30 layers, at depth {DEPTH}");
    for threads in [1, 2] {
        let options = EngineOptions {
            threads: NonZeroUsize::new(threads).unwrap(),
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(config.clone(), weights.clone(), &options).unwrap();
        let prompt = TestRng::new(2).tokens(DEPTH, config.vocab_size);
        let mut logits = Vec::new();
        let mut caches: Vec<_> = (0..64).map(|_| engine.new_cache(DEPTH + 1)).collect();
        for cache in &mut caches {
            engine
                .forward(cache, &prompt, Logits::None, &mut logits)
                .unwrap();
        }
        let batches = [1, 8, 16, 64];
        let mut times = batches.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (n, times) in batches.into_iter().zip(&mut times) {
                let mut segments: Vec<_> = caches[..n]
                    .iter_mut()
                    .map(|cache| Segment {
                        cache,
                        tokens: &[7],
                        wanted: 1,
                    })
                    .collect();
                let start = CpuClock::start();
                engine.forward_many(&mut segments, &mut logits).unwrap();
                times.push(start.seconds());
                for cache in &mut caches {
                    cache.truncate(DEPTH);
                }
            }
        }
        for (n, mut times) in batches.into_iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let speed = n as f64 / times[ROUNDS / 2];
            println!("{threads}T: {n} sequences, median {speed:.1} tok/s");
        }
    }
}
