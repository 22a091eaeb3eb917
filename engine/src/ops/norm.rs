//! RMSNorm and int8 quantization, token by token.

use super::Compute;
use crate::kernels::{Activations, Kernel, QuantizedRow, RoundedGroup, RoundedInput};

use super::linear::{Forms, Input};

/// Tokens as the next linear layers read them: normed in f32, and in other forms where asked.
#[derive(Debug, Default)]
pub(crate) struct Normed {
    // (n, width)
    float: Vec<f32>,
    // (n, width)
    int8: Activations,
    // (n, width)
    rounded: RoundedInput,
}

/// What turns a row of the residual stream into the input of a linear layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm<'a> {
    /// RMSNorm's gain, `(width)`; without one the row is taken as it is.
    pub(crate) gain: Option<&'a [f32]>,
    /// RMSNorm's epsilon.
    pub(crate) eps: f32,
    /// What the result is divided by.
    pub(crate) divisor: Option<f32>,
    /// What layers read the result as.
    pub(crate) forms: Forms,
}

impl Normed {
    /// Returns the tokens in all forms.
    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            float: &self.float,
            int8: &self.int8,
            rounded: &self.rounded,
        }
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
            rounded: &'a mut [Option<&'a mut [RoundedGroup]>],
        }
        let n = rows.len() / width;
        self.float.resize(n * width, 0.0);
        let mut int8: Vec<Option<QuantizedRow<'_>>> = if norm.forms.int8 {
            self.int8.reshape(n, width);
            self.int8.rows_mut().map(Some).collect()
        } else {
            (0..n).map(|_| None).collect()
        };
        let mut rounded: Vec<Option<&mut [RoundedGroup]>> = if norm.forms.rounded {
            self.rounded.reshape(n, width);
            self.rounded.rows_mut().map(Some).collect()
        } else {
            (0..n).map(|_| None).collect()
        };
        let per_part = n.div_ceil(compute.pool.threads());
        let kernel = &*compute.kernel;
        let mut parts: Vec<Part<'_>> = rows
            .chunks_mut(per_part * width)
            .zip(self.float.chunks_mut(per_part * width))
            .zip(int8.chunks_mut(per_part))
            .zip(rounded.chunks_mut(per_part))
            .map(|(((rows, float), int8), rounded)| Part {
                rows,
                float,
                int8,
                rounded,
            })
            .collect();
        compute.pool.run(
            &mut parts,
            |part,
             Part {
                 rows,
                 float,
                 int8,
                 rounded,
             }| {
                for (i, (((row, out), int8), rounded)) in rows
                    .chunks_exact_mut(width)
                    .zip(float.chunks_exact_mut(width))
                    .zip(int8.iter_mut())
                    .zip(rounded.iter_mut())
                    .enumerate()
                {
                    prepare(part * per_part + i, kernel, row);
                    match norm.gain {
                        Some(gain) => kernel.rms_norm(row, gain, norm.eps, out),
                        None => out.copy_from_slice(row),
                    }
                    if let Some(divisor) = norm.divisor {
                        for x in &mut *out {
                            *x /= divisor;
                        }
                    }
                    if let Some(int8) = int8.take() {
                        kernel.quantize(out, int8);
                    }
                    if let Some(rounded) = rounded.take() {
                        kernel.round(out, rounded);
                    }
                }
            },
        );
    }
}
