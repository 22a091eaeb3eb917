//! Holds every kernel of this machine to the reference: integers and floats, bit for bit.
#![expect(clippy::float_cmp, reason = "equal bits are what is promised")]

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::{
    kv_cache::KvSlice,
    testing::{TestRng, pack_ternary, random_dense, random_ternary},
    weights::{DenseType, TernaryScale},
};

/// Quantizes `(tokens, cols)` values; all kernels must agree on the result.
fn activations(input: &[f32], cols: usize) -> Activations {
    let quantize = |kernel: &dyn Kernel| {
        let mut activations = Activations::default();
        activations.reshape(input.len() / cols, cols);
        for (row, x) in activations.rows_mut().zip(input.chunks_exact(cols)) {
            kernel.quantize(x, row);
        }
        activations
    };
    let expected = quantize(&reference::Reference);
    for kernel in tested_or_emulated() {
        let actual = quantize(&*kernel);
        for t in 0..expected.tokens() {
            assert_eq!(actual.codes(t), expected.codes(t), "{}", kernel.name());
            assert_eq!(actual.scale(t), expected.scale(t), "{}", kernel.name());
            assert_eq!(actual.sum(t), expected.sum(t), "{}", kernel.name());
            assert_eq!(actual.block_sums(t), expected.block_sums(t));
        }
    }
    expected
}

/// Compares what the kernels write for the rows `ends[0]..ends[1]` of a `(tokens, rows)` output.
fn check_product(
    what: &str,
    (tokens, rows): (usize, usize),
    run: impl Fn(&dyn Kernel, &mut Columns<'_>),
) {
    let product = |kernel: &dyn Kernel, ends: &[usize]| {
        let mut out = vec![f32::NAN; tokens * rows];
        for mut columns in Columns::split(&mut out, rows, ends.iter().copied()) {
            run(kernel, &mut columns);
        }
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let expected = product(&reference::Reference, &[rows]);
    for kernel in tested_or_emulated() {
        for ends in [vec![rows], vec![rows / 3, rows / 3, rows]] {
            let actual = product(&*kernel, &ends);
            assert!(
                actual == expected,
                "{}: {what}, {tokens} tokens, {rows} rows, ends {ends:?}",
                kernel.name()
            );
        }
    }
}

fn check_ternary(weights: &TernaryMatrix, input: &[f32]) {
    let activations = activations(input, weights.cols);
    let what = format!("{} columns", weights.cols);
    check_product(
        &what,
        (activations.tokens(), weights.rows),
        |kernel, out| {
            kernel.ternary(weights, &activations, out);
        },
    );
}

/// Sizes below, at and above each tile, for rows and tokens.
const AROUND_TILES: [usize; 9] = [1, 2, 3, 4, 5, 7, 8, 9, 17];

#[test]
fn ternary_products_are_exact_for_all_sizes_round_the_tiles() {
    let mut rng = TestRng::new(1);
    for cols in [1, 31, 127, 128, 129, 256, 257, 384, 1000] {
        for (rows, tokens) in AROUND_TILES.iter().zip(AROUND_TILES.iter().rev()) {
            for blocks in [false, true] {
                let weights = random_ternary(&mut rng, *rows, cols, blocks);
                check_ternary(&weights, &rng.floats(tokens * cols));
            }
        }
    }
}

#[test]
fn extreme_codes_and_activations_do_not_overflow() {
    // Several stretches of the narrow sums, a whole number of them and not.
    for cols in [2048, 2049, 4096, 6912] {
        for trit in [-1_i8, 1] {
            let trits = vec![trit; 3 * cols];
            let weights = pack_ternary(&trits, 3, cols, TernaryScale::Tensor(0.5));
            // Codes of −127 and 127 throughout, and of −128, which only a code from elsewhere has.
            for value in [-1.0_f32, 1.0] {
                let input = vec![value; 4 * cols];
                check_ternary(&weights, &input);
            }
            let mut activations = activations(&vec![1.0; 4 * cols], cols);
            for row in activations.rows_mut() {
                row.codes[..cols].fill(-128);
                *row.sum = -128 * i32::try_from(cols).unwrap();
            }
            check_product("codes of -128", (4, 3), |kernel, out| {
                kernel.ternary(&weights, &activations, out);
            });
            let mut out = [0.0; 12];
            available()[0].ternary(&weights, &activations, &mut Columns::whole(&mut out, 3));
            let sum = -128 * i32::try_from(cols).unwrap() * i32::from(trit);
            let expected = sum as f32 / 127.0 * 0.5;
            assert_eq!(out, [expected; 12]);
        }
    }
}

#[test]
fn the_ternary_product_is_what_its_definition_says() {
    // Rows of +1, −1 and 0 against 1, 2, …: absmax 8, so that 8 becomes 127.
    let trits = [[1_i8; 8], [-1; 8], [0; 8]].concat();
    let weights = pack_ternary(&trits, 3, 8, TernaryScale::Tensor(2.0));
    let input: Vec<f32> = (1..=8).map(|i| i as f32).collect();
    let activations = activations(&input, 8);
    // Multiples of 127 / 8 = 15.875.
    let codes: [i8; 8] = [16, 32, 48, 64, 79, 95, 111, 127];
    assert_eq!(activations.codes(0)[..8], codes);
    assert_eq!(activations.codes(0)[8..], [0; 120]);
    assert_eq!(activations.sum(0), 572);
    for kernel in tested_or_emulated() {
        let mut out = [0.0; 3];
        kernel.ternary(&weights, &activations, &mut Columns::whole(&mut out, 3));
        let y = 572.0 / 15.875 * 2.0;
        assert_eq!(out, [y, -y, 0.0], "{}", kernel.name());
    }
}

#[test]
fn activations_round_half_to_even_and_clamp() {
    // absmax 127 makes the scale 1.
    let input = [127.0, -127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.499_999_97];
    let quantized = activations(&input, 9);
    assert_eq!(quantized.codes(0)[..9], [127, -127, 0, 2, 2, 0, -2, -2, 0]);
    assert_eq!(quantized.scale(0), 1.0);
    // A token of zeros, and one below the floor of 1e-5.
    assert_eq!(activations(&[0.0; 5], 5).sum(0), 0);
    assert_eq!(activations(&[1e-6; 5], 5).codes(0)[..5], [13; 5]);
    activations(&[f32::NAN, 1.0, f32::INFINITY], 3);
}

#[test]
fn dense_products_are_bit_equal_for_all_sizes_round_the_tiles() {
    let mut rng = TestRng::new(2);
    for dtype in DenseType::ALL {
        let cols = match dtype.block() {
            (1, _) => vec![1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 300],
            (32, _) => vec![32, 64, 96, 320],
            _ => vec![256, 512, 768],
        };
        for cols in cols {
            for (&rows, &tokens) in AROUND_TILES.iter().zip(AROUND_TILES.iter().rev()) {
                let weights = random_dense(&mut rng, rows, cols, dtype);
                let input = rng.floats(tokens * cols);
                let what = format!("{dtype:?}, {cols} columns");
                check_product(&what, (tokens, rows), |kernel, out| {
                    kernel.dense(&weights, &input, out);
                });
            }
        }
    }
}

#[test]
fn dense_products_are_bit_equal_over_several_panels_and_passes() {
    let mut rng = TestRng::new(5);
    for (dtype, cols) in [
        (DenseType::F32, 512),
        (DenseType::F16, 1_041),
        (DenseType::Bf16, 527),
        (DenseType::Q8_0, 1_088),
        (DenseType::Q4_0, 544),
        (DenseType::Q5_0, 544),
        (DenseType::Q4K, 768),
        (DenseType::Q5K, 1_280),
        (DenseType::Q6K, 768),
    ] {
        for (rows, tokens) in [(29, 53), (12, 48), (13, 2)] {
            let weights = random_dense(&mut rng, rows, cols, dtype);
            let input = rng.floats(tokens * cols);
            let what = format!("{dtype:?}, {cols} columns");
            check_product(&what, (tokens, rows), |kernel, out| {
                kernel.dense(&weights, &input, out);
            });
        }
    }
}

#[test]
fn every_half_widens_exactly() {
    // All finite f16 and bf16 values, as rows of 32 with an input that picks one of them.
    for dtype in [DenseType::F16, DenseType::Bf16] {
        let values: Vec<u16> = (0..=u16::MAX)
            .filter(|&bits| match dtype {
                DenseType::F16 => f16::from_bits(bits).is_finite(),
                _ => half::bf16::from_bits(bits).is_finite(),
            })
            .collect();
        let values = &values[..values.len() / 32 * 32];
        let weights = DenseMatrix {
            rows: values.len() / 32,
            cols: 32,
            dtype,
            data: bytemuck::cast_slice::<_, u8>(values).to_vec().into(),
        };
        for picked in 0..32 {
            let mut input = [0.0; 32];
            input[picked] = 1.0;
            for kernel in tested_or_emulated() {
                let mut out = vec![0.0; weights.rows];
                kernel.dense(
                    &weights,
                    &input,
                    &mut Columns::whole(&mut out, weights.rows),
                );
                for (row, actual) in out.into_iter().enumerate() {
                    let bits = values[row * 32 + picked];
                    let expected = match dtype {
                        DenseType::F16 => f16::from_bits(bits).to_f32(),
                        _ => half::bf16::from_bits(bits).to_f32(),
                    };
                    assert_eq!(actual, expected, "{} {dtype:?} {bits:#x}", kernel.name());
                }
            }
        }
    }
}

/// Widens each block by inputs that pick one weight.
#[test]
fn the_blocks_of_ggml_widen_to_the_values_another_program_gives() {
    let known: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/data/ggml_blocks.json")).unwrap();
    for dtype in [
        DenseType::Q5_0,
        DenseType::Q4K,
        DenseType::Q5K,
        DenseType::Q6K,
    ] {
        let known = &known[dtype.name()];
        let expected: Vec<f32> = serde_json::from_value(known["values"].clone()).unwrap();
        let hex = known["bytes"].as_str().unwrap().as_bytes();
        let bytes: Vec<u8> = hex
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let (cols, block_bytes) = dtype.block();
        let rows = bytes.len() / block_bytes;
        assert_eq!(expected.len(), rows * cols);
        let weights = DenseMatrix {
            rows,
            cols,
            dtype,
            data: bytes.into(),
        };
        let mut inputs = vec![0.0; cols * cols];
        inputs.iter_mut().step_by(cols + 1).for_each(|x| *x = 1.0);
        for kernel in tested_or_emulated() {
            for (picked, input) in inputs.chunks_exact(cols).enumerate() {
                let mut out = vec![0.0; rows];
                kernel.dense(&weights, input, &mut Columns::whole(&mut out, rows));
                for (row, value) in out.into_iter().enumerate() {
                    let expected = expected[row * cols + picked];
                    assert_eq!(value, expected, "{} {dtype:?} {picked}", kernel.name());
                }
            }
            let mut out = vec![0.0; cols * rows];
            kernel.dense(&weights, &inputs, &mut Columns::whole(&mut out, rows));
            for (picked, out) in out.chunks_exact(rows).enumerate() {
                for (row, &value) in out.iter().enumerate() {
                    assert_eq!(value, expected[row * cols + picked], "{}", kernel.name());
                }
            }
        }
        let mut row = vec![0.0; cols];
        for (nth, expected) in expected.chunks_exact(cols).enumerate() {
            widen(&weights, nth, &mut row);
            assert_eq!(row, expected);
        }
    }
}

fn check_attention(rng: &mut TestRng, group: usize, head_dim: usize, n_keys: usize) {
    let queries = rng.floats(group * head_dim);
    let keys = rng.floats(n_keys * head_dim);
    let values = rng.floats(n_keys * head_dim);
    let head = AttentionHead {
        head_dim,
        queries: &queries,
        keys: KvSlice::F32(&keys),
        values: KvSlice::F32(&values),
        scale: 3.0,
    };
    let attend = |kernel: &dyn Kernel, head: &AttentionHead<'_>| {
        let heads = head.queries.len() / head_dim;
        let mut out = vec![f32::NAN; heads * head_dim];
        kernel.attend(head, &mut vec![f32::NAN; heads * n_keys], &mut out);
        out
    };
    let expected = attend(&reference::Reference, &head);
    for kernel in tested_or_emulated() {
        let actual = attend(&*kernel, &head);
        assert!(
            actual == expected,
            "{}: {group} heads of {head_dim}, {n_keys} keys",
            kernel.name()
        );
        // How query heads are grouped must not matter either.
        let alone = AttentionHead {
            queries: &queries[..head_dim],
            ..head
        };
        assert_eq!(attend(&*kernel, &alone), expected[..head_dim]);
    }
    // In f16, and the same values widened.
    let narrow =
        |values: &[f32]| -> Vec<f16> { values.iter().copied().map(f16::from_f32).collect() };
    let widen =
        |values: &[f16]| -> Vec<f32> { values.iter().map(|value| value.to_f32()).collect() };
    let (narrow_keys, narrow_values) = (narrow(&keys), narrow(&values));
    let (wide_keys, wide_values) = (widen(&narrow_keys), widen(&narrow_values));
    let narrow_head = AttentionHead {
        keys: KvSlice::F16(&narrow_keys),
        values: KvSlice::F16(&narrow_values),
        ..head
    };
    let wide_head = AttentionHead {
        keys: KvSlice::F32(&wide_keys),
        values: KvSlice::F32(&wide_values),
        ..head
    };
    let of_f16 = attend(&reference::Reference, &wide_head);
    for kernel in tested_or_emulated() {
        assert!(
            attend(&*kernel, &narrow_head) == of_f16,
            "{}: {group} heads of {head_dim}, {n_keys} keys in f16",
            kernel.name()
        );
    }
    // The definition, in f64.
    for (query, out) in queries.chunks(head_dim).zip(expected.chunks(head_dim)) {
        let weights: Vec<f64> = keys
            .chunks(head_dim)
            .map(|key| {
                let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(q * k)).sum();
                libm::exp(dot * 3.0)
            })
            .collect();
        let total: f64 = weights.iter().sum();
        for (d, &actual) in out.iter().enumerate() {
            let sum: f64 = weights
                .iter()
                .zip(values.chunks(head_dim))
                .map(|(weight, value)| weight * f64::from(value[d]))
                .sum();
            assert!((sum / total - f64::from(actual)).abs() < 1e-5);
        }
    }
}

#[test]
fn attention_is_bit_equal_for_all_sizes_round_the_tiles() {
    let mut rng = TestRng::new(3);
    for head_dim in [2, 16, 20, 32, 64] {
        for n_keys in [1, 2, 15, 16, 17, 31, 32, 33, 70] {
            for group in [1, 2, 3, 4, 5, 8, 9] {
                check_attention(&mut rng, group, head_dim, n_keys);
            }
        }
    }
}

#[test]
fn elementwise_steps_are_bit_equal() {
    let mut rng = TestRng::new(4);
    for n in [1, 15, 16, 17, 100, 1000] {
        let x: Vec<f32> = rng.floats(n).iter().map(|x| x * 20.0).collect();
        let y = rng.floats(n);
        let steps = |kernel: &dyn Kernel| {
            let mut normed = vec![0.0; n];
            kernel.rms_norm(&x, &y, 1e-5, &mut normed);
            let mut relu = x.clone();
            kernel.relu_squared_mul(&mut relu, &y);
            let mut silu = x.clone();
            kernel.silu_mul(&mut silu, &y);
            let mut gelu = x.clone();
            kernel.gelu_mul(&mut gelu, &y);
            let mut added = y.clone();
            kernel.add_rms_norm(&x, &y, 1e-5, &mut added);
            [normed, relu, silu, gelu, added]
        };
        let expected = steps(&reference::Reference);
        for kernel in tested_or_emulated() {
            assert!(steps(&*kernel) == expected, "{}, {n} values", kernel.name());
        }
        let [normed, relu, silu, gelu, added] = expected;
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
        for i in 0..n {
            let (x, y) = (f64::from(x[i]), f64::from(y[i]));
            let close = |actual: f32, expected: f64| {
                let error = (f64::from(actual) - expected).abs();
                assert!(error <= 1e-6 * expected.abs(), "{actual} for {expected}");
            };
            close(normed[i], x / (mean + 1e-5).sqrt() * y);
            close(relu[i], x.max(0.0).powi(2) * y);
            close(silu[i], x / (1.0 + libm::exp(-x)) * y);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            let error = f64::from(gelu[i]) - 0.5 * x * (1.0 + libm::tanh(inner)) * y;
            assert!(error.abs() <= 3e-7 * (x * y).abs(), "{error} at {x}, {y}");
            let error = f64::from(added[i]) - (x / (mean + 1e-5).sqrt() * y + y);
            assert!(error.abs() <= 1e-6 * y.abs(), "{error} at {x}, {y}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn ternary_products_of_any_shape_are_exact(
        seed: u64,
        rows in 1_usize..40,
        cols in 1_usize..700,
        tokens in 1_usize..20,
        blocks: bool,
    ) {
        let mut rng = TestRng::new(seed);
        let weights = random_ternary(&mut rng, rows, cols, blocks);
        check_ternary(&weights, &rng.floats(tokens * cols));
    }

    #[test]
    fn attention_of_any_shape_is_bit_equal(
        seed: u64,
        group in 1_usize..9,
        half_dim in 1_usize..40,
        n_keys in 1_usize..100,
    ) {
        check_attention(&mut TestRng::new(seed), group, 2 * half_dim, n_keys);
    }
}
