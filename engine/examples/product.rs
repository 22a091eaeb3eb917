//! Multiplies one matrix with some tokens, again and again: something to count the instructions of,
//! as `.ci/arm --instructions` does.
//!
//! ```text
//! product KERNEL TYPE ROWS COLS TOKENS TIMES
//! ```
//!
//! `TYPE` is `ternary`, or a block format such as `q4_0`, whose inputs are rounded.

use std::{env, process::ExitCode};

use tritmark_engine::{
    kernels::{self, Activations, Columns, Kernel, RoundedInput},
    testing::{TestRng, random_dense, random_ternary},
    weights::DenseType,
};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [kernel, of, numbers @ ..] = &args[..] else {
        return usage();
    };
    let numbers: Result<Vec<usize>, _> = numbers.iter().map(|number| number.parse()).collect();
    let Ok(&[rows, cols, tokens, times]) = numbers.as_deref() else {
        return usage();
    };
    let mut kernels = kernels::available().into_iter();
    let Some(kernel) = kernels.find(|known| known.name() == kernel) else {
        eprintln!("this CPU cannot run a kernel `{kernel}`");
        return ExitCode::FAILURE;
    };
    let shape = Shape { rows, cols, tokens };
    if of == "ternary" {
        ternary(&*kernel, &shape, times);
        return ExitCode::SUCCESS;
    }
    let mut types = DenseType::ALL.into_iter();
    match types.find(|dtype| dtype.name() == of && !dtype.is_float()) {
        Some(dtype) => rounded(&*kernel, dtype, &shape, times),
        None => return usage(),
    }
    ExitCode::SUCCESS
}

struct Shape {
    rows: usize,
    cols: usize,
    tokens: usize,
}

// What the values are makes no difference to what is executed: inputs stay zero.

fn ternary(kernel: &dyn Kernel, &Shape { rows, cols, tokens }: &Shape, times: usize) {
    let weights = random_ternary(&mut TestRng::new(1), rows, cols, false);
    let mut input = Activations::default();
    input.reshape(tokens, cols);
    for row in input.rows_mut() {
        *row.scale = 1.0;
    }
    let mut out = vec![0.0; tokens * rows];
    for _ in 0..times {
        kernel.ternary(&weights, &input, &mut Columns::whole(&mut out, rows));
    }
}

fn rounded(kernel: &dyn Kernel, dtype: DenseType, shape: &Shape, times: usize) {
    let &Shape { rows, cols, tokens } = shape;
    let weights = random_dense(&mut TestRng::new(1), rows, cols, dtype);
    let mut input = RoundedInput::default();
    input.reshape(tokens, cols);
    let mut out = vec![0.0; tokens * rows];
    for _ in 0..times {
        kernel.dense_rounded(&weights, &input, &mut Columns::whole(&mut out, rows));
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: product KERNEL TYPE ROWS COLS TOKENS TIMES");
    ExitCode::from(2)
}
