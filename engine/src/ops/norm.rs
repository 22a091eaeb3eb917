//! RMSNorm and int8 quantization, token by token.

use super::Compute;
use crate::kernels::{Activations, Kernel, QuantizedRow};

use super::linear::Input;

/// Tokens as the next linear layers read them: normed in f32, and as int8 where asked.
#[derive(Debug, Default)]
pub(crate) struct Normed {
    // (n, width)
    float: Vec<f32>,
    // (n, width)
    int8: Activations,
}

/// What turns a row of the residual stream into the input of a linear layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm<'a> {
    /// RMSNorm's gain, `(width)`; without one the row is taken as it is.
    pub(crate) gain: Option<&'a [f32]>,
    /// RMSNorm's epsilon.
    pub(crate) eps: f32,
    /// Whether a ternary layer reads the result.
    pub(crate) quantize: bool,
}

impl Normed {
    /// Returns the tokens in both forms.
    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            float: &self.float,
            int8: &self.int8,
        }
    }

    /// Divides the tokens in f32; those in int8 stay as they are.
    pub(crate) fn divide(&mut self, by: f32) {
        // By 1 no bit changes.
        self.float.iter_mut().for_each(|x| *x /= by);
    }

    /// Takes in `rows`, `(n, width)`, after `prepare(i, kernel, row)` has brought each up to date.
    pub(crate) fn take(
        &mut self,
        compute: &mut Compute,
        rows: &mut [f32],
        width: usize,
        norm: Norm<'_>,
        prepare: impl Fn(usize, &dyn Kernel, &mut [f32]) + Sync,
    ) {
        struct Part<'a> {
            rows: &'a mut [f32],
            float: &'a mut [f32],
            int8: &'a mut [Option<QuantizedRow<'a>>],
        }
        let n = rows.len() / width;
        self.float.resize(n * width, 0.0);
        let mut int8: Vec<Option<QuantizedRow<'_>>> = if norm.quantize {
            self.int8.reshape(n, width);
            self.int8.rows_mut().map(Some).collect()
        } else {
            (0..n).map(|_| None).collect()
        };
        let per_part = n.div_ceil(compute.pool.threads());
        let kernel = &*compute.kernel;
        let mut parts: Vec<Part<'_>> = rows
            .chunks_mut(per_part * width)
            .zip(self.float.chunks_mut(per_part * width))
            .zip(int8.chunks_mut(per_part))
            .map(|((rows, float), int8)| Part { rows, float, int8 })
            .collect();
        compute
            .pool
            .run(&mut parts, |part, Part { rows, float, int8 }| {
                for (i, ((row, out), int8)) in rows
                    .chunks_exact_mut(width)
                    .zip(float.chunks_exact_mut(width))
                    .zip(int8.iter_mut())
                    .enumerate()
                {
                    prepare(part * per_part + i, kernel, row);
                    match norm.gain {
                        Some(gain) => kernel.rms_norm(row, gain, norm.eps, out),
                        None => out.copy_from_slice(row),
                    }
                    if let Some(int8) = int8.take() {
                        kernel.quantize(out, int8);
                    }
                }
            });
    }
}
