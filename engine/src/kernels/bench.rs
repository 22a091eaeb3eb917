//! One token against ternary matrices, by multiplication and by each kind of table.
//!
//! `cargo test --release -p tritmark-engine bench_families -- --ignored --nocapture`

use std::{hint::black_box, time::Instant};

use super::{Activations, Columns, Kernel, KernelChoice, Tables, names};
use crate::{
    lookup::{Lookup, LookupMatrix, Packing},
    testing::TestRng,
    weights::{AlignedBytes, Bytes, Matrix, TernaryMatrix, TernaryScale},
};

/// Outputs and inputs of the linears of BitNet b1.58 2B4T (arXiv 2504.12285), and a matrix that
/// stays in L2.
const SHAPES: [(usize, usize); 4] = [(2560, 2560), (6912, 2560), (2560, 6912), (320, 2560)];

/// Weights of all copies of a matrix: 64 MB, which no cache of a small machine holds.
const STREAM: usize = 256 << 20;

/// Each kernel's turns of some 5 ms; they alternate.
const ROUNDS: usize = 101;

fn random_matrix(rng: &mut TestRng, rows: usize, cols: usize) -> TernaryMatrix {
    let mut codes = AlignedBytes::zeroed(TernaryMatrix::bytes(rows, cols));
    let (words, _) = codes.as_mut_slice().as_chunks_mut();
    for word in words {
        // A code is a bit and a bit: 0, 1 or 2.
        let [a, b] = [rng.next_u64(), rng.next_u64()].map(|bits| bits & 0x5555_5555_5555_5555);
        *word = (a + b).to_le_bytes();
    }
    TernaryMatrix {
        rows,
        cols,
        codes: Bytes::Owned(codes.into()),
        scale: TernaryScale::Tensor(0.01),
    }
}

/// Multiplies a token by a matrix as a layer does, tables included.
fn product(
    kernel: &dyn Kernel,
    lookup: Option<Lookup>,
    matrix: &Matrix,
    input: &Activations,
    tables: &mut Tables,
    out: &mut [f32],
) {
    let mut out = Columns::whole(out, matrix.rows());
    match (matrix, lookup) {
        (Matrix::Ternary(matrix), _) => kernel.ternary(matrix, input, &mut out),
        (Matrix::Lookup(matrix), Some(lookup)) => {
            tables.reshape(lookup, 0, 1, matrix.cols);
            tables
                .rows_mut()
                .for_each(|row| kernel.make_tables(input, row));
            kernel.look_up(matrix, tables, &mut out);
        }
        _ => unreachable!("the matrices are packed for the kernel"),
    }
}

/// Prints ns a weight and GB/s of the weights' bytes: the median round, and the best.
#[test]
#[ignore = "bench"]
fn bench_families() {
    let mut rng = TestRng::new(1);
    let kernels: Vec<_> = names()
        .filter(|name| !name.starts_with("reference"))
        .map(|name| {
            let choice = KernelChoice::Named(name);
            (name, choice.kernel().unwrap(), choice.lookup().unwrap())
        })
        .collect();
    for (rows, cols) in SHAPES {
        let copies = match STREAM / (rows * cols) {
            // The small one is read from the cache.
            n if n > 200 => 1,
            n => n,
        };
        let matrices: Vec<_> = (0..copies)
            .map(|_| random_matrix(&mut rng, rows, cols))
            .collect();
        let packed = Packing::ALL.map(|packing| {
            let start = Instant::now();
            let packed: Vec<_> = matrices
                .iter()
                .filter_map(|matrix| LookupMatrix::pack(matrix, packing))
                .map(Matrix::Lookup)
                .collect();
            let ns = start.elapsed().as_nanos() as f64 / (copies * rows * cols) as f64;
            println!(
                "{rows} x {cols}, {}: packed in {ns:.2} ns a weight",
                packing.name()
            );
            packed
        });
        let matrices: Vec<_> = matrices.into_iter().map(Matrix::Ternary).collect();
        let mut input = Activations::default();
        input.reshape(1, cols);
        for row in input.rows_mut() {
            kernels[0].1.quantize(&rng.floats(cols), row);
        }
        let mut tables = Tables::default();
        let mut out = vec![0.0; rows];
        let repetitions = (64 << 20) / (copies * rows * cols) + 1;
        let mut times = vec![Vec::new(); kernels.len()];
        for _ in 0..ROUNDS {
            for ((_, kernel, lookup), times) in kernels.iter().zip(&mut times) {
                let matrices = lookup.map_or(&matrices, |lookup| {
                    let nth = Packing::ALL.iter().position(|p| *p == lookup.packing);
                    &packed[nth.unwrap()]
                });
                let start = Instant::now();
                for _ in 0..repetitions {
                    for matrix in matrices {
                        product(&**kernel, *lookup, matrix, &input, &mut tables, &mut out);
                        black_box(&out);
                    }
                }
                let weights = repetitions * copies * rows * cols;
                times.push(start.elapsed().as_nanos() as f64 / weights as f64);
            }
        }
        for ((name, _, lookup), mut times) in kernels.iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let bytes = match lookup {
                None => matrices[0].bytes(),
                Some(lookup) => LookupMatrix::code_bytes(rows, cols, lookup.packing) as u64,
            };
            let bits = 8.0 * bytes as f64 / (rows * cols) as f64;
            let [median, best] = [times[ROUNDS / 2], times[0]];
            println!(
                "{rows} x {cols}, {name}: {bits:.2} bits, median {median:.4} ns a weight, \
                 {:.1} GB/s; best {best:.4} ns, {:.1} GB/s",
                bits / 8.0 / median,
                bits / 8.0 / best
            );
        }
    }
}
