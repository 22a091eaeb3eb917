//! Multiplies one ternary matrix with some tokens, again and again: something to count the
//! instructions of, as `.ci/arm --instructions` does.
//!
//! ```text
//! ternary_product KERNEL ROWS COLS TOKENS TIMES
//! ```

use std::{env, process::ExitCode};

use tritmark_engine::{
    kernels::{self, Activations, Columns},
    testing::{TestRng, random_ternary},
};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [kernel, numbers @ ..] = &args[..] else {
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

    let weights = random_ternary(&mut TestRng::new(1), rows, cols, false);
    let mut input = Activations::default();
    input.reshape(tokens, cols);
    // What the values are makes no difference to what is executed.
    for row in input.rows_mut() {
        *row.scale = 1.0;
    }
    let mut out = vec![0.0; tokens * rows];
    for _ in 0..times {
        kernel.ternary(&weights, &input, &mut Columns::whole(&mut out, rows));
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: ternary_product KERNEL ROWS COLS TOKENS TIMES");
    ExitCode::from(2)
}
