//! Holds look-up products to multiplication, bit for bit where tables are exact, and every kernel's
//! tables and products to the plain loops.

use proptest::prelude::*;

use super::*;
use crate::{
    kernels::{Activations, Kernel, reference::Reference, tested},
    lookup::{Entries, Lookup, Packing, TILE},
    testing::{TestRng, pack_ternary, random_ternary},
    weights::{TernaryMatrix, TernaryScale},
};

/// Makes tokens of int8 codes, with scales that no power of two divides.
fn activations(codes: &[i8], cols: usize) -> Activations {
    let mut activations = Activations::default();
    activations.reshape(codes.len() / cols, cols);
    for (row, codes) in activations.rows_mut().zip(codes.chunks_exact(cols)) {
        row.codes.fill(0);
        row.codes[..cols].copy_from_slice(codes);
        *row.sum = codes.iter().map(|&code| i32::from(code)).sum();
        *row.scale = 127.0 / (1.0 + *row.sum as f32).abs().max(0.3);
    }
    activations
}

fn random_codes(rng: &mut TestRng, n: usize) -> Vec<i8> {
    (0..n).map(|_| rng.next_u64() as i8).collect()
}

fn tables_by(kernel: &dyn Kernel, lookup: Lookup, first: usize, input: &Activations) -> Tables {
    let mut tables = Tables::default();
    tables.reshape(lookup, first, input.tokens() - first, input.cols());
    for row in tables.rows_mut() {
        kernel.make_tables(input, row);
    }
    tables
}

/// Computes all tokens from `first` on; the rows of those before it stay 0.
fn product_by(
    kernel: &dyn Kernel,
    weights: &LookupMatrix,
    tables: &Tables,
    ends: &[usize],
) -> Vec<f32> {
    let tokens = tables.first() + tables.tokens();
    let mut out = vec![0.0; tokens * weights.rows];
    for mut part in Columns::split(&mut out, weights.rows, ends.iter().copied()) {
        kernel.look_up(weights, tables, &mut part);
    }
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check(matrix: &TernaryMatrix, codes: &[i8]) {
    let (rows, cols) = (matrix.rows, matrix.cols);
    let input = activations(codes, cols);
    let tokens = input.tokens();
    let mut multiplied = vec![0.0; tokens * rows];
    Reference.ternary(matrix, &input, &mut Columns::whole(&mut multiplied, rows));
    for packing in Packing::ALL {
        let weights = LookupMatrix::pack(matrix, packing).unwrap();
        for entries in [Entries::I16, Entries::I8] {
            let lookup = Lookup { packing, entries };
            let what = format!("{lookup:?}, {tokens} tokens, {rows} rows, {cols} columns");
            let tables = tables_by(&Reference, lookup, 0, &input);
            let expected = product_by(&Reference, &weights, &tables, &[rows]);
            match entries {
                Entries::I16 => assert!(bits(&expected) == bits(&multiplied), "{what}"),
                Entries::I8 => check_rounded(packing, matrix, &input, &expected, &multiplied),
            }
            for kernel in tested() {
                for first in [0, tokens / 2] {
                    let ours = tables_by(&*kernel, lookup, first, &input);
                    for token in 0..ours.tokens() {
                        let same = ours.token(token) == tables.token(first + token);
                        assert!(same, "{}: {what}", kernel.name());
                    }
                    for ends in [vec![rows], vec![rows / 3, rows / 3, rows]] {
                        let found = product_by(&*kernel, &weights, &ours, &ends);
                        let [found, expected] =
                            [&found, &expected].map(|y| bits(&y[first * rows..]));
                        assert!(found == expected, "{}: {what}, {ends:?}", kernel.name());
                    }
                }
            }
        }
    }
}

/// An entry is off by half a step at most, and so is the product by that for each group.
fn check_rounded(
    packing: Packing,
    matrix: &TernaryMatrix,
    input: &Activations,
    found: &[f32],
    exact: &[f32],
) {
    let TernaryScale::Tensor(weight_scale) = matrix.scale else {
        panic!("the matrix has one scale");
    };
    for token in 0..input.tokens() {
        let groups = input.codes(token)[..matrix.cols].chunks(packing.group());
        let sums = groups.map(|group| group.iter().map(|&x| f64::from(x).abs()).sum::<f64>());
        let greatest = sums.clone().fold(0.0, f64::max);
        let unit = f64::from(weight_scale) / f64::from(input.scale(token));
        let bound = 0.5 * greatest / 127.0 * sums.count() as f64 * unit;
        for row in 0..matrix.rows {
            let at = token * matrix.rows + row;
            let error = (f64::from(found[at]) - f64::from(exact[at])).abs();
            // What the f32 steps add is of another order.
            let fuzz = 1e-6 * (f64::from(exact[at]).abs() + bound);
            assert!(error <= bound + fuzz, "{packing:?}: {error} of {bound}");
        }
    }
}

/// Sizes below, at and above tiles, units and blocks.
#[test]
fn products_are_those_of_multiplication_for_all_sizes_round_the_tiles() {
    let mut rng = TestRng::new(11);
    let cols = [
        1, 2, 3, 15, 16, 17, 24, 25, 111, 112, 113, 128, 240, 241, 481,
    ];
    for (cols, rows) in cols
        .into_iter()
        .zip([1, 31, 32, 33, 64, 65].into_iter().cycle())
    {
        for tokens in [1, 2, 17] {
            let matrix = random_ternary(&mut rng, rows, cols, false);
            check(&matrix, &random_codes(&mut rng, tokens * cols));
        }
    }
}

#[test]
fn many_rows_are_taken_in_stretches() {
    let mut rng = TestRng::new(12);
    // More tiles, and more tokens, than have sums at a time.
    for (rows, tokens) in [(128 * TILE + 40, 1), (300, 35)] {
        let matrix = random_ternary(&mut rng, rows, 50, false);
        check(&matrix, &random_codes(&mut rng, tokens * 50));
    }
}

#[test]
fn extreme_trits_and_activations_do_not_overflow() {
    for cols in [240, 1000] {
        for trit in [-1_i8, 1] {
            let matrix = pack_ternary(&vec![trit; 5 * cols], 5, cols, TernaryScale::Tensor(0.5));
            for code in [-128, 127] {
                check(&matrix, &vec![code; 2 * cols]);
            }
            let alternating: Vec<i8> = (0..cols)
                .map(|i| if i % 2 == 0 { -128 } else { 127 })
                .collect();
            check(&matrix, &alternating);
            check(&matrix, &vec![0; cols]);
        }
    }
}

#[test]
fn rounded_tables_are_not_exact() {
    let mut rng = TestRng::new(13);
    let matrix = random_ternary(&mut rng, 64, 500, false);
    let input = activations(&random_codes(&mut rng, 500), 500);
    for packing in Packing::ALL {
        let weights = LookupMatrix::pack(&matrix, packing).unwrap();
        let [exact, rounded] = [Entries::I16, Entries::I8].map(|entries| {
            let tables = tables_by(&Reference, Lookup { packing, entries }, 0, &input);
            product_by(&Reference, &weights, &tables, &[64])
        });
        assert_ne!(bits(&exact), bits(&rounded), "{packing:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn products_of_any_shape_are_those_of_multiplication(
        seed: u64,
        rows in 1_usize..100,
        cols in 1_usize..900,
        tokens in 1_usize..20,
    ) {
        let mut rng = TestRng::new(seed);
        let matrix = random_ternary(&mut rng, rows, cols, false);
        check(&matrix, &random_codes(&mut rng, tokens * cols));
    }
}
