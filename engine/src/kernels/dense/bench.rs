//! Dense products of every type: one token, which streams the weights, and many, which widen them
//! once.
//!
//! `cargo test --release -p tritmark-engine bench_dense -- --ignored --nocapture`

use std::{hint::black_box, time::Instant};

use super::super::{Columns, available};
use crate::{
    testing::{TestRng, random_dense},
    weights::DenseType,
};

/// Rows and columns, as the attention's linears of BitNet b1.58 2B4T have them.
const SIZE: usize = 2560;
/// Copies of a matrix: over 40 MB of the smallest type.
const COPIES: usize = 12;
/// Tokens of a prompt.
const TOKENS: usize = 96;
/// Turns of each type; they alternate.
const ROUNDS: usize = 15;

/// Prints products a second, and for one token GB/s of weights: the median round, and the best.
#[test]
#[ignore = "bench"]
fn bench_dense() {
    let mut rng = TestRng::new(1);
    let kernel = &available()[0];
    let input = rng.floats(TOKENS * SIZE);
    for tokens in [1, TOKENS] {
        let copies = if tokens == 1 { COPIES } else { 1 };
        let matrices = DenseType::ALL.map(|dtype| {
            let one = random_dense(&mut rng, SIZE, SIZE, dtype);
            (0..copies)
                .map(|_| {
                    let mut copy = one.clone();
                    copy.data = one.data.to_vec().into();
                    copy
                })
                .collect::<Vec<_>>()
        });
        let mut out = vec![0.0; tokens * SIZE];
        let mut times = DenseType::ALL.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (matrices, times) in matrices.iter().zip(&mut times) {
                let start = Instant::now();
                for matrix in matrices {
                    let mut out = Columns::whole(&mut out, SIZE);
                    kernel.dense(matrix, &input[..tokens * SIZE], &mut out);
                }
                black_box(&out);
                times.push(start.elapsed().as_nanos() as f64 / (copies * SIZE * SIZE) as f64);
            }
        }
        for (dtype, mut times) in DenseType::ALL.iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let bytes = dtype.row_bytes(SIZE) as f64 / SIZE as f64;
            let figures = |ns: f64| {
                let products = tokens as f64 / ns;
                format!("{products:.1} G products/s, {:.1} GB/s", bytes / ns)
            };
            println!(
                "{}, {tokens} tokens, {}: median {}; best {}",
                kernel.name(),
                dtype.name(),
                figures(times[ROUNDS / 2]),
                figures(times[0])
            );
        }
    }
}
