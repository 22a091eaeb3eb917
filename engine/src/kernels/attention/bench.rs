//! Attention of one token over a long past, as a layer of BitNet b1.58 2B4T has it, and of a prompt.
//!
//! `cargo test --release -p tritmark-engine bench_attention -- --ignored --nocapture`

use std::{hint::black_box, time::Instant};

use half::f16;

use super::{super::available, AttentionHead};
use crate::{kv_cache::KvSlice, testing::TestRng};

/// Values of a head, and query heads that share keys.
const DIM: usize = 128;
const GROUP: usize = 4;
/// Heads of keys and values in all layers.
const HEADS: usize = 30 * 5;
/// Turns of each type; they alternate.
const ROUNDS: usize = 15;

/// Prints ms a token and GB/s of keys and values: the median round, and the best.
#[test]
#[ignore = "bench"]
fn bench_attention() {
    let mut rng = TestRng::new(1);
    let kernel = &available()[0];
    let queries = rng.floats(GROUP * DIM);
    let mut out = vec![0.0; GROUP * DIM];
    // The first fits in no cache, the second in L2, head by head.
    for (n_keys, heads) in [(4000, HEADS), (256, 1)] {
        let turns = HEADS / heads;
        let wide: Vec<_> = (0..2 * heads).map(|_| rng.floats(n_keys * DIM)).collect();
        let narrow: Vec<Vec<_>> = wide
            .iter()
            .map(|values| values.iter().copied().map(f16::from_f32).collect())
            .collect();
        let mut scores = vec![0.0; GROUP * n_keys];
        let mut attend = |keys: KvSlice<'_>, values: KvSlice<'_>| {
            let head = AttentionHead {
                head_dim: DIM,
                queries: &queries,
                keys,
                values,
                scale: 0.01,
            };
            kernel.attend(&head, &mut scores, &mut out);
            black_box(&out);
        };
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..turns {
                for [keys, values] in wide.as_chunks().0 {
                    attend(KvSlice::F32(keys), KvSlice::F32(values));
                }
            }
            times[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            for _ in 0..turns {
                for [keys, values] in narrow.as_chunks().0 {
                    attend(KvSlice::F16(keys), KvSlice::F16(values));
                }
            }
            times[1].push(start.elapsed().as_secs_f64());
        }
        for ((name, size), mut times) in [("f32", 4), ("f16", 2)].into_iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let bytes = (2 * HEADS * n_keys * DIM * size) as f64;
            let figures = |s: f64| format!("{:.2} ms, {:.1} GB/s", 1e3 * s, 1e-9 * bytes / s);
            println!(
                "{}, {n_keys} keys, {name}: median {}; best {}",
                kernel.name(),
                figures(times[ROUNDS / 2]),
                figures(times[0])
            );
        }
    }
}
