//! Every kernel against the specification, and the specification against f64.

use std::{hint::black_box, time::Instant};

use half::f16;
use proptest::prelude::*;

use super::{
    super::{Kernel, available, reference::Reference, tested_or_emulated, widen},
    *,
};
use crate::testing::{TestRng, random_dense};

/// The types whose inputs are rounded.
fn types() -> impl Iterator<Item = DenseType> {
    DenseType::ALL.into_iter().filter(|&dtype| takes(dtype))
}

/// Rounds `(tokens, cols)` values; all kernels must agree on the result.
fn rounded(input: &[f32], cols: usize) -> RoundedInput {
    let round = |kernel: &dyn Kernel| {
        let mut rounded = RoundedInput::default();
        rounded.reshape(input.len() / cols, cols);
        for (out, x) in rounded.rows_mut().zip(input.chunks_exact(cols)) {
            kernel.round(x, out);
        }
        rounded
    };
    let expected = round(&Reference);
    for kernel in tested_or_emulated() {
        let actual = round(&*kernel);
        for (actual, expected) in actual.groups.iter().zip(&expected.groups) {
            let bits = |group: &RoundedGroup| group.scales.map(f32::to_bits);
            assert_eq!(bits(actual), bits(expected), "{}", kernel.name());
            assert_eq!(actual.codes, expected.codes, "{}", kernel.name());
            assert_eq!(actual.sums, expected.sums, "{}", kernel.name());
        }
    }
    expected
}

/// Returns what a kernel makes of all tokens at once, its rows split at `ends`.
fn product(
    kernel: &dyn Kernel,
    weights: &DenseMatrix,
    input: &RoundedInput,
    ends: &[usize],
) -> Vec<f32> {
    let mut out = vec![f32::NAN; input.tokens() * weights.rows];
    for mut columns in Columns::split(&mut out, weights.rows, ends.iter().copied()) {
        kernel.dense_rounded(weights, input, &mut columns);
    }
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Holds all kernels to the specification, for all tokens at once and one by one; returns the
/// result.
fn check(weights: &DenseMatrix, input: &[f32]) -> Vec<f32> {
    let DenseMatrix {
        rows, cols, dtype, ..
    } = *weights;
    let all = rounded(input, cols);
    let expected = product(&Reference, weights, &all, &[rows]);
    for kernel in tested_or_emulated() {
        let what = || {
            let tokens = all.tokens();
            let name = kernel.name();
            format!("{name}: {dtype:?}, {tokens} tokens, ({rows}, {cols})")
        };
        for ends in [vec![rows], vec![rows / 3, rows / 3, rows]] {
            let actual = product(&*kernel, weights, &all, &ends);
            assert!(bits(&actual) == bits(&expected), "{}, {ends:?}", what());
        }
        for (x, expected) in input.chunks_exact(cols).zip(expected.chunks_exact(rows)) {
            let one = rounded(x, cols);
            let actual = product(&*kernel, weights, &one, &[rows]);
            assert!(bits(&actual) == bits(expected), "{}, one by one", what());
        }
    }
    expected
}

/// The columns of a few blocks of a type.
fn widths(dtype: DenseType) -> &'static [usize] {
    match dtype.block() {
        (BLOCK, _) => &[32, 64, 96, 224, 256, 288, 480, 512, 800],
        _ => &[256, 512, 768],
    }
}

#[test]
fn products_are_bit_equal_for_all_sizes_round_the_tiles() {
    let mut rng = TestRng::new(1);
    for dtype in types() {
        for &cols in widths(dtype) {
            for (rows, tokens) in [(1, 9), (3, 5), (4, 2), (5, 3), (8, 1), (9, 4)] {
                let weights = random_dense(&mut rng, rows, cols, dtype);
                check(&weights, &rng.floats(tokens * cols));
            }
        }
        // More tokens than a pass has.
        let weights = random_dense(&mut rng, 6, 256, dtype);
        check(&weights, &rng.floats(131 * 256));
    }
}

/// A matrix of blocks that are all alike.
fn blocks_of(dtype: DenseType, rows: usize, cols: usize, block: &[u8]) -> DenseMatrix {
    let (weights, bytes) = dtype.block();
    assert_eq!(block.len(), bytes);
    DenseMatrix {
        rows,
        cols,
        dtype,
        data: block.repeat(rows * cols / weights).into(),
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    for dtype in types() {
        for byte in [0x00_u8, 0x80, 0xff, 0x7f, 0x88] {
            let mut block = vec![byte; dtype.block().1];
            let one = f16::from_f32(1.0).to_le_bytes();
            match dtype {
                DenseType::Q6K => block[208..].copy_from_slice(&one),
                DenseType::Q4K | DenseType::Q5K => {
                    block[..2].copy_from_slice(&one);
                    block[2..4].copy_from_slice(&one);
                }
                _ => block[..2].copy_from_slice(&one),
            }
            let weights = blocks_of(dtype, 5, 512, &block);
            for sign in [-1.0_f32, 1.0] {
                // Codes of ±127, all alike and in turn.
                let alike = vec![sign; 3 * 512];
                let in_turn: Vec<_> = (0..3 * 512).map(|i| [sign, -sign][i % 2]).collect();
                check(&weights, &in_turn);
                let found = check(&weights, &alike);
                let mut row = vec![0.0; 512];
                widen(&weights, 0, &mut row);
                let sum: f64 = row.iter().map(|&w| f64::from(w)).sum();
                let expected = sum * f64::from(sign);
                for y in found {
                    let error = (f64::from(y) - expected).abs();
                    let size: f64 = row.iter().map(|&w| f64::from(w).abs()).sum();
                    assert!(
                        error <= 1e-6 * size,
                        "{dtype:?}, {byte:x}: {y}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_product_is_that_of_the_rounded_input() {
    let mut rng = TestRng::new(2);
    for dtype in types() {
        let (rows, cols) = (7, 768);
        let weights = random_dense(&mut rng, rows, cols, dtype);
        let input = rng.floats(cols);
        let groups = rounded(&input, cols);
        let x: Vec<f64> = (0..cols)
            .map(|i| {
                let (group, block) = (&groups.token(0)[i / GROUP], i % GROUP / BLOCK);
                let code = group.half(block, i % BLOCK / 16)[i % 16];
                f64::from(code) * f64::from(group.scales[block])
            })
            .collect();
        let mut row = vec![0.0; cols];
        for (r, y) in check(&weights, &input).into_iter().enumerate() {
            widen(&weights, r, &mut row);
            let terms = || row.iter().zip(&x).map(|(&w, x)| f64::from(w) * x);
            let expected: f64 = terms().sum();
            let size: f64 = terms().map(f64::abs).sum();
            // Each block rounds twice, on the way through a fifth of 24 blocks.
            let error = (f64::from(y) - expected).abs();
            assert!(error <= 4e-7 * size, "{dtype:?}: {y}, not {expected}");
        }
    }
}

#[test]
fn inputs_round_half_to_even_in_blocks_of_their_own() {
    let mut input = vec![0.0_f32; 96];
    // A scale of 1; then a block of zeros; then a scale of 2.
    input[..8].copy_from_slice(&[127.0, -0.5, 0.5, 1.5, 2.5, -1.5, -2.5, 0.499_999_97]);
    input[64] = -254.0;
    input[80] = 3.0;
    let groups = rounded(&input, 96);
    let group = &groups.token(0)[0];
    assert_eq!(group.half(0, 0)[..8], [127, 0, 0, 2, 2, -2, -2, 0]);
    assert_eq!(
        group.scales[..4].iter().sum::<f32>().to_bits(),
        3_f32.to_bits()
    );
    assert_eq!(group.half(1, 0), &[0; 16]);
    assert_eq!(group.half(2, 0)[0], -127);
    assert_eq!(group.half(2, 1)[0], 2);
    assert_eq!(group.sums[0][..3], [127, 0, -127]);
    assert_eq!(group.sums[1][..4], [0, 0, 2, 0]);
}

#[test]
fn scales_of_any_size_are_bit_equal_and_what_is_not_finite_stays_so() {
    let mut rng = TestRng::new(3);
    for dtype in types() {
        let weights = random_dense(&mut rng, 5, 512, dtype);
        for size in [0.0, 1e-38, 1e-29, 1e-20, 1e10, 1e30] {
            let input: Vec<f32> = rng.floats(3 * 512).iter().map(|x| x * size).collect();
            let found = check(&weights, &input);
            assert!(found.iter().all(|y| y.is_finite()), "{dtype:?}, {size:e}");
        }
        for odd in [f32::NAN, f32::INFINITY] {
            let mut input = rng.floats(2 * 512);
            input[300] = odd;
            for kernel in tested_or_emulated() {
                let input = rounded(&input, 512);
                let found = product(&*kernel, &weights, &input, &[5]);
                assert!(found[..5].iter().all(|y| !y.is_finite()), "{dtype:?}");
                assert!(found[5..].iter().all(|y| y.is_finite()), "{dtype:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn products_of_any_shape_are_bit_equal(
        seed: u64,
        nth in 0_usize..6,
        rows in 1_usize..30,
        blocks in 1_usize..30,
        tokens in 1_usize..20,
    ) {
        let mut rng = TestRng::new(seed);
        let dtype = types().nth(nth).expect("six types");
        let cols = (blocks * BLOCK).next_multiple_of(dtype.block().0);
        let weights = random_dense(&mut rng, rows, cols, dtype);
        // Blocks of very different sizes.
        let mut input = rng.floats(tokens * cols);
        for block in input.chunks_exact_mut(BLOCK) {
            let size = 1e-4 * 10_f32.powi((rng.next_u64() % 9) as i32);
            for x in block {
                *x *= size;
            }
        }
        check(&weights, &input);
    }
}

/// Prints ns a weight of each kernel, exact and with rounded inputs, for one token and for 32.
#[test]
#[ignore = "bench"]
fn bench_rounded() {
    const ROUNDS: usize = 9;
    // 2560 inputs, and outputs that no cache holds.
    let cols = 2560;
    let mut rng = TestRng::new(1);
    for dtype in types() {
        let rows = (96 << 20) / dtype.row_bytes(cols);
        let weights = random_dense(&mut rng, rows, cols, dtype);
        let bytes = weights.data.len() as f64;
        for kernel in available() {
            if kernel.name() == "reference" {
                continue;
            }
            for tokens in [1, 32] {
                // A part is enough where it is not memory that counts.
                let rows = if tokens == 1 { rows } else { rows / 16 };
                let input = rng.floats(tokens * cols);
                let groups = rounded(&input, cols);
                let mut out = vec![0.0; tokens * weights.rows];
                let mut times = [Vec::new(), Vec::new()];
                for _ in 0..ROUNDS {
                    for (fast, times) in times.iter_mut().enumerate() {
                        let columns = Columns::split(&mut out, weights.rows, [rows]).next();
                        let mut columns = columns.expect("one part");
                        let start = Instant::now();
                        if fast == 1 {
                            kernel.dense_rounded(&weights, &groups, &mut columns);
                        } else {
                            kernel.dense(&weights, &input, &mut columns);
                        }
                        times.push(start.elapsed().as_nanos() as f64);
                        black_box(&out);
                    }
                }
                let [exact, fast] = times.map(|mut times| {
                    times.sort_by(f64::total_cmp);
                    times[ROUNDS / 2] / rows as f64
                });
                println!(
                    "{}, {}, {tokens} tokens: exact {:.4}, fast {:.4} ns a weight and token, \
                     {:.2} times; fast {:.1} GB/s",
                    dtype.name(),
                    kernel.name(),
                    exact / (cols * tokens) as f64,
                    fast / (cols * tokens) as f64,
                    exact / fast,
                    bytes / weights.rows as f64 / fast,
                );
            }
        }
    }
}
