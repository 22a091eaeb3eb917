//! The screened head against the full one: equal ids and equal bits, whatever the input.

use std::num::NonZeroUsize;

use super::*;
use crate::{
    engine::Numerics,
    kernels::{self, Activations, RoundedInput, widen},
    ops::{
        Compute,
        linear::{self, Input},
    },
    testing::{TestRng, random_dense},
    weights::DenseType,
};

fn compute(kernel: Box<dyn Kernel>, threads: usize) -> Compute {
    let threads = NonZeroUsize::new(threads).unwrap();
    let pool = ThreadPool::new(threads, false).unwrap();
    Compute::new(kernel, None, Numerics::Exact, pool)
}

/// Calls [`linear::top`] with an input that is not quantized.
fn top(
    compute: &mut Compute,
    head: &DenseMatrix,
    screen: Option<(&Screen, &mut Screening)>,
    float: &[f32],
    k: usize,
    out: &mut Vec<(u32, f32)>,
) -> Vec<f32> {
    let input = Input {
        float,
        int8: &Activations::default(),
        rounded: &RoundedInput::default(),
    };
    let mut logits = Vec::new();
    linear::top(compute, head, screen, input, k, &mut logits, out);
    logits
}

/// Compares both heads' `k` greatest logits; returns whether the screen could be used.
fn check(
    compute: &mut Compute,
    head: &DenseMatrix,
    screen: &Screen,
    screening: &mut Screening,
    x: &[f32],
    k: usize,
) -> bool {
    let bits = |found: &[(u32, f32)]| -> Vec<(u32, u32)> {
        found
            .iter()
            .map(|&(id, logit)| (id, logit.to_bits()))
            .collect()
    };
    let (mut full, mut screened) = (Vec::new(), Vec::new());
    let logits = top(compute, head, None, x, k, &mut full);
    // Every logit lies within its bounds.
    let Compute { kernel, pool, .. } = &mut *compute;
    let said = screening.run(screen, &**kernel, pool, x, k).is_some();
    if said {
        for (row, &logit) in logits.iter().enumerate() {
            assert!(
                screening.lower[row] <= logit && logit <= screening.upper[row],
                "{}: row {row}: {logit} outside {}..={}",
                kernel.name(),
                screening.lower[row],
                screening.upper[row]
            );
        }
    }
    let used = said && screening.rows.len() <= head.rows / 4;
    let with_screen = Some((screen, &mut *screening));
    top(compute, head, with_screen, x, k, &mut screened);
    assert_eq!(bits(&screened), bits(&full), "{}", compute.kernel.name());
    used
}

/// Inputs that lean on the bound: nothing, one value, values at the rounding points of the codes,
/// very large and very small ones, and a row of the head itself.
fn adversarial(rng: &mut TestRng, head: &DenseMatrix, kind: usize, x: &mut [f32]) {
    let n = x.len();
    match kind {
        0 => x.fill(0.0),
        1 => {
            x.fill(0.0);
            x[rng.below(n)] = rng.signed_unit() * 1e4;
        }
        2 => {
            // Halves between two integers of the code, as near as f32 comes.
            let unit = 1.0 / largest_code(n.next_multiple_of(PADDING)) as f32;
            for x in &mut *x {
                *x = (rng.below(2000) as f32 - 999.5) * unit;
            }
            x[0] = 1.0;
        }
        3 => x.iter_mut().for_each(|x| *x *= 1e14),
        4 => x.iter_mut().for_each(|x| *x *= 1e-30),
        5 => x.iter_mut().for_each(|x| *x *= 1e-42),
        6 => widen(head, rng.below(head.rows), x),
        7 => {
            // One dimension that outweighs all others, as trained models have.
            x[7 % n] = 300.0;
        }
        _ => {
            let sign = rng.signed_unit();
            x.fill(sign);
        }
    }
}

/// Makes rows that are hard to tell apart: copies, copies that differ in one last bit, negations.
fn entangle(rng: &mut TestRng, head: &mut DenseMatrix) {
    let row_bytes = head.dtype.row_bytes(head.cols);
    let mut bytes = head.data.to_vec();
    for _ in 0..head.rows / 3 {
        let from = rng.below(head.rows);
        let to = rng.below(head.rows);
        bytes.copy_within(from * row_bytes..(from + 1) * row_bytes, to * row_bytes);
        if rng.below(2) == 0 {
            let at = to * row_bytes + rng.below(head.cols) * (row_bytes / head.cols);
            bytes[at] ^= 1;
        }
    }
    head.data = bytes.into();
}

#[test]
fn a_screened_head_finds_the_full_heads_greatest_logits_to_the_bit() {
    // In all, over the kernels. ARM is emulated where this is developed.
    const INPUTS: usize = if cfg!(target_arch = "aarch64") {
        10_000
    } else {
        100_000
    };
    let available = kernels::available().len();
    for nth in 0..available {
        let kernel = kernels::available().swap_remove(nth);
        let mut compute = compute(kernel, 1 + nth % 2);
        let mut rng = TestRng::new(11 + nth as u64);
        let (mut used, mut inputs) = (0, 0);
        while inputs < INPUTS.div_ceil(available) {
            let dtype = [DenseType::F16, DenseType::Bf16, DenseType::F32][inputs % 3];
            let cols = [64, 96, 33, 200][inputs / 3 % 4];
            let mut head = random_dense(&mut rng, 257, cols, dtype);
            if inputs % 2 == 0 {
                entangle(&mut rng, &mut head);
            }
            let Compute { kernel, pool, .. } = &mut compute;
            let screen = Screen::new(&head, &**kernel, pool).unwrap();
            let mut screening = Screening::default();
            let mut x = vec![0.0; cols];
            for turn in 0..997 {
                x.copy_from_slice(&rng.floats(cols));
                if turn % 2 == 0 {
                    adversarial(&mut rng, &head, turn / 2 % 9, &mut x);
                }
                let k = [1, 2, 5, 40][turn % 4];
                let screened = check(&mut compute, &head, &screen, &mut screening, &x, k);
                used += usize::from(screened);
                inputs += 1;
            }
        }
        // Zeros tie all rows, and 40 of 257 are many: but most inputs are decided by the screen.
        assert!(
            used * 10 > inputs * 6,
            "{}: {used} of {inputs} inputs were screened",
            compute.kernel.name()
        );
    }
}

/// Sums of the upper codes of all rows, and of the lower ones of some.
fn sums(kernel: &dyn Kernel, screen: &Screen, input: &ScreenInput) -> [Vec<i32>; 2] {
    let n = screen.scales.len();
    let [mut sums, mut low] = [vec![0; n], vec![0; n.div_ceil(3)]];
    let [mut lower, mut upper] = [vec![0.0; n], vec![0.0; n]];
    let mut bounds = Bounds {
        first: 0,
        sums: &mut sums,
        lower: &mut lower,
        upper: &mut upper,
    };
    kernel.screen(screen, input, &mut bounds);
    let rows: Vec<u32> = (0..n as u32).step_by(3).collect();
    kernel.screen_low(screen, input, &rows, &mut low);
    [sums, low]
}

#[test]
fn every_kernel_sums_the_same_codes() {
    let mut rng = TestRng::new(6);
    for cols in [32, 128, 160, 1_000] {
        let head = random_dense(&mut rng, 37, cols, DenseType::F16);
        let mut compute = compute(kernels::available().swap_remove(0), 1);
        let Compute { kernel, pool, .. } = &mut compute;
        let screen = Screen::new(&head, &**kernel, pool).unwrap();
        // Digits of either sign throughout, and any.
        for x in [vec![1.0; cols], vec![-1.0; cols], rng.floats(cols)] {
            let mut input = ScreenInput::default();
            input.set(&screen, &x).unwrap();
            let reference = kernels::available().pop().expect("the reference is last");
            let expected = sums(&*reference, &screen, &input);
            for kernel in kernels::tested_or_emulated() {
                let found = sums(&*kernel, &screen, &input);
                assert_eq!(found, expected, "{}, {cols} columns", kernel.name());
            }
        }
    }
}

#[test]
fn a_screened_head_of_real_width_needs_few_rows() {
    let mut rng = TestRng::new(3);
    let head = random_dense(&mut rng, 20_000, 2_560, DenseType::F16);
    let mut compute = compute(kernels::available().swap_remove(0), 2);
    let Compute { kernel, pool, .. } = &mut compute;
    let screen = Screen::new(&head, &**kernel, pool).unwrap();
    assert!(screen.bytes() <= 20_000 * (2_560 + 16));
    let mut screening = Screening::default();
    for _ in 0..5 {
        let x = rng.floats(2_560);
        assert!(check(&mut compute, &head, &screen, &mut screening, &x, 1));
        assert!(
            screening.rows.len() < 400,
            "{} rows of 20,000",
            screening.rows.len()
        );
    }
}

#[test]
fn what_cannot_be_bounded_is_left_to_the_full_head() {
    let mut rng = TestRng::new(4);
    let mut compute = compute(kernels::available().swap_remove(0), 1);
    let mut head = random_dense(&mut rng, 64, 32, DenseType::F32);
    let Compute { kernel, pool, .. } = &mut compute;
    let screen = Screen::new(&head, &**kernel, pool).unwrap();
    let mut screening = Screening::default();
    for bad in [f32::NAN, f32::INFINITY, 1e20] {
        let mut x = rng.floats(32);
        x[5] = bad;
        assert!(!check(&mut compute, &head, &screen, &mut screening, &x, 1));
    }
    // A logit that is not a number is found, not passed over.
    let mut bytes = head.data.to_vec();
    bytes[4 * 32 * 7..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    head.data = bytes.into();
    let Compute { kernel, pool, .. } = &mut compute;
    assert!(Screen::new(&head, &**kernel, pool).is_none());
    let mut out = Vec::new();
    top(&mut compute, &head, None, &[1.0; 32], 1, &mut out);
    assert!(matches!(out[..], [(7, logit)] if logit.is_nan()));
    // A head of a byte a weight gains nothing.
    let small = random_dense(&mut rng, 64, 32, DenseType::Q8_0);
    let Compute { kernel, pool, .. } = &mut compute;
    assert!(Screen::new(&small, &**kernel, pool).is_none());
}

#[test]
fn an_input_of_any_size_stays_in_range() {
    for stride in [32, 2_560, 16_384, 131_072] {
        let largest = i64::from(largest_code(stride));
        let sum = i64::try_from(stride).unwrap() * 63 * largest;
        assert!(largest >= 127 && sum <= i64::from(i32::MAX), "{stride}");
        assert!((largest + 64) >> 7 <= 127, "{stride}");
    }
}
