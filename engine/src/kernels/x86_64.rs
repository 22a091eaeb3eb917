//! Kernels for x86-64: AVX2 with FMA and F16C, and AVX-512 with VNNI.

/// Implements the steps of [`Kernel`](super::Kernel) that are one piece of code, compiled with a
/// kernel's CPU features.
macro_rules! float_steps {
    ($features:literal) => {
        float_steps! {
            $features:
            log_sum::exp_sum(logits: &[f32], out: &mut $crate::kernels::ExpSum),
            float::quantize(input: &[f32], out: $crate::kernels::QuantizedRow<'_>),
            float::rms_norm(input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]),
            float::add_rms_norm(input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]),
            float::relu_squared_mul(gate: &mut [f32], up: &[f32]),
            float::silu_mul(gate: &mut [f32], up: &[f32]),
            float::gelu_mul(gate: &mut [f32], up: &[f32]),
            rounded::round(input: &[f32], out: &mut [$crate::kernels::RoundedGroup]),
        }
    };
    ($features:literal: $($module:ident::$step:ident($($arg:ident: $type:ty),+),)+) => {
        $(
            fn $step(&self, $($arg: $type),+) {
                #[target_feature(enable = $features)]
                fn run($($arg: $type),+) {
                    $crate::kernels::$module::$step($($arg),+);
                }
                // SAFETY: `self` can only come from `detect`.
                unsafe { run($($arg),+) }
            }
        )+
    };
}

mod avx2;
mod avx512vnni;
mod peak;
mod rounded;

pub(super) use avx2::Avx2;
pub(super) use avx512vnni::Avx512Vnni;
