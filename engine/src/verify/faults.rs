//! Faults that engines have had, planted one at a time: the comparison with the reference must
//! catch each, and pass without one.
//!
//! The list is that of `golden/README.md`, with what each does to the figures.

use std::path::PathBuf;

use super::{
    Check, Group, Outcome, Verdict, compare::Comparison, golden::Golden, numbers,
    statistics::Limits, verdict,
};
use crate::{
    config::{Activation, RopePairs},
    engine::{Engine, EngineOptions},
    kernels::{Activations, AttentionHead, Columns, Kernel, QuantizedRow},
    kv_cache::KvType,
    load::{LoadOptions, LoadedModel, load},
    quant::i2_s,
    testing::pack_ternary,
    weights::{DenseMatrix, DenseType, Layer, Linear, Matrix, TernaryMatrix, TernaryScale},
};

/// Prompts up to this length, as those of the published figures.
const LONGEST_PROMPT: usize = 600;

/// A fault of the weights or the graph.
type Planted = fn(&mut LoadedModel);

/// A fault of the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    /// One int8 scale for all tokens of a pass.
    ScalePerTensor,
    /// Activations of −63 to 63.
    SevenBits,
    /// Towards zero rather than to the nearest.
    Truncated,
    /// `max(0, x)` rather than its square.
    PlainRelu,
}

/// A kernel with a fault.
#[derive(Debug)]
struct Faulty {
    inner: Box<dyn Kernel>,
    fault: Arithmetic,
}

impl Faulty {
    /// Quantizes anew, every token by the least of all tokens' scales.
    fn requantized(input: &Activations) -> Activations {
        let common = (0..input.tokens()).map(|token| input.scale(token));
        let common = common.fold(f32::INFINITY, f32::min);
        let mut out = Activations::default();
        out.reshape(input.tokens(), input.cols());
        for (token, row) in out.rows_mut().enumerate() {
            let values: Vec<f32> = input.codes(token)[..input.cols()]
                .iter()
                .map(|&code| f32::from(code) / input.scale(token))
                .collect();
            write_row(&values, common, f32::round_ties_even, row);
        }
        out
    }
}

/// Writes one token as int8.
fn write_row(values: &[f32], scale: f32, round: fn(f32) -> f32, row: QuantizedRow<'_>) {
    let QuantizedRow {
        codes,
        scale: scale_out,
        sum,
        block_sums,
    } = row;
    codes.fill(0);
    for (code, x) in codes.iter_mut().zip(values) {
        *code = round(x * scale) as i8;
    }
    *scale_out = scale;
    *sum = codes.iter().map(|&code| i32::from(code)).sum();
    for (sum, codes) in block_sums.iter_mut().zip(codes.chunks(256)) {
        *sum = codes.iter().map(|&code| i32::from(code)).sum();
    }
}

impl Kernel for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn ternary(&self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        if self.fault == Arithmetic::ScalePerTensor {
            self.inner.ternary(weights, &Self::requantized(input), out);
        } else {
            self.inner.ternary(weights, input, out);
        }
    }

    fn dense(&self, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
        self.inner.dense(weights, input, out);
    }

    fn dense_rows(&self, weights: &DenseMatrix, rows: &[u32], input: &[f32], out: &mut [f32]) {
        self.inner.dense_rows(weights, rows, input, out);
    }

    fn attend(&self, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
        self.inner.attend(head, scores, out);
    }

    fn quantize(&self, input: &[f32], out: QuantizedRow<'_>) {
        let absmax = input.iter().fold(1e-5_f32, |max, x| max.max(x.abs()));
        match self.fault {
            Arithmetic::SevenBits => write_row(input, 63.0 / absmax, f32::round_ties_even, out),
            Arithmetic::Truncated => write_row(input, 127.0 / absmax, f32::trunc, out),
            Arithmetic::ScalePerTensor | Arithmetic::PlainRelu => self.inner.quantize(input, out),
        }
    }

    fn rms_norm(&self, input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        self.inner.rms_norm(input, gain, eps, out);
    }

    fn relu_squared_mul(&self, gate: &mut [f32], up: &[f32]) {
        if self.fault == Arithmetic::PlainRelu {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = gate.max(0.0) * up;
            }
        } else {
            self.inner.relu_squared_mul(gate, up);
        }
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        self.inner.silu_mul(gate, up);
    }
}

fn each_linear(model: &mut LoadedModel, change: impl FnMut(&mut Linear)) {
    let layers = model.weights.layers.iter_mut();
    layers.flat_map(Layer::linears_mut).for_each(change);
}

fn ternary_of(linear: &Linear) -> &TernaryMatrix {
    match &linear.matrix {
        Matrix::Ternary(matrix) => matrix,
        Matrix::Dense(_) | Matrix::Lookup(_) => panic!("a ternary model, as loaded"),
    }
}

fn trits(matrix: &TernaryMatrix) -> Vec<i8> {
    let mut trits = vec![0; matrix.rows * matrix.cols];
    let codes = matrix.i2_s_rows();
    let rows = codes.chunks(TernaryMatrix::row_bytes(matrix.cols));
    for (codes, trits) in rows.zip(trits.chunks_mut(matrix.cols)) {
        i2_s::unpack_row(codes, trits);
    }
    trits
}

fn change_trits(linear: &mut Linear, change: impl FnOnce(&mut [i8], usize)) {
    let matrix = ternary_of(linear);
    let mut trits = trits(matrix);
    change(&mut trits, matrix.cols);
    let changed = pack_ternary(&trits, matrix.rows, matrix.cols, matrix.scale.clone());
    linear.matrix = Matrix::Ternary(changed);
}

fn scale_of(matrix: &TernaryMatrix) -> f32 {
    match matrix.scale {
        TernaryScale::Tensor(scale) => scale,
        TernaryScale::Blocks(_) => panic!("one scale a matrix"),
    }
}

const PLANTED: [(&str, Planted); 9] = [
    ("weight scales 1 % off", |model| {
        each_linear(model, |linear| {
            if let Matrix::Ternary(matrix) = &mut linear.matrix {
                matrix.scale = TernaryScale::Tensor(scale_of(matrix) * 1.01);
            }
        });
    }),
    ("eps 1e-6", |model| model.config.rms_norm_eps = 1e-6),
    ("one row of a matrix negated", |model| {
        change_trits(&mut model.weights.layers[1].o, |trits, cols| {
            trits[7 * cols..8 * cols].iter_mut().for_each(|t| *t = -*t);
        });
    }),
    ("no attention sub-norm", |model| {
        for layer in &mut model.weights.layers {
            layer.attn_sub_norm = None;
        }
    }),
    ("theta 10000", |model| model.config.rope_theta = 10_000.0),
    ("SiLU for squared ReLU", |model| {
        model.config.activation = Activation::Silu;
    }),
    ("interleaved rotary pairs", |model| {
        model.config.rope_pairs = RopePairs::Neighbours;
    }),
    ("wrong kv head", |model| {
        let width = model.config.head_dim;
        for layer in &mut model.weights.layers {
            for linear in [&mut layer.k, &mut layer.v] {
                // Two heads: each query reads the other one's.
                change_trits(linear, |trits, cols| trits.rotate_left(width * cols));
            }
        }
    }),
    ("activations not quantised", |model| {
        each_linear(model, |linear| {
            let matrix = ternary_of(linear);
            let scale = scale_of(matrix);
            let floats = trits(matrix).into_iter();
            let bytes: Vec<u8> = floats
                .flat_map(|trit| (f32::from(trit) * scale).to_le_bytes())
                .collect();
            linear.matrix = Matrix::Dense(DenseMatrix {
                rows: matrix.rows,
                cols: matrix.cols,
                dtype: DenseType::F32,
                data: bytes.into(),
            });
        });
    }),
];

const ARITHMETIC: [(&str, Arithmetic); 4] = [
    ("int8 scale per tensor", Arithmetic::ScalePerTensor),
    ("activations of 7 bits", Arithmetic::SevenBits),
    ("truncation instead of rounding", Arithmetic::Truncated),
    ("ReLU without the square", Arithmetic::PlainRelu),
];

/// Compares a model, or one with a fault, with the reference.
fn compared(model: LoadedModel, golden: &Golden, fault: Option<Arithmetic>) -> Vec<Check> {
    let options = EngineOptions::default();
    let mut engine = Engine::new(model.config, model.weights, &options).unwrap();
    if let Some(fault) = fault {
        engine.change_kernel(|inner| Box::new(Faulty { inner, fault }));
    }
    let comparison = Comparison {
        golden,
        limits: Limits::ternary(KvType::F32),
        unlike: None,
        longest_prompt: Some(LONGEST_PROMPT),
    };
    comparison.checks(&mut engine, |_, _| {}).unwrap()
}

#[test]
fn every_planted_fault_is_caught_and_the_model_without_one_passes() {
    let Some(data) = std::env::var_os("TRITMARK_DATA").map(PathBuf::from) else {
        eprintln!("NOT RUN: planted faults need TRITMARK_DATA");
        return;
    };
    let golden = data.join("golden/outputs/bitnet-tiny-packed.f32.json.gz");
    let golden = Golden::read(&golden).unwrap();
    let folder = data.join("golden/models/bitnet-tiny-packed");
    let model = load(&folder, &LoadOptions::default()).unwrap();

    let sound = compared(model.clone(), &golden, None);
    assert_eq!(verdict(&sound), Verdict::Pass, "{sound:#?}");
    let planted = PLANTED.iter().map(|(name, plant)| {
        let mut model = model.clone();
        plant(&mut model);
        (name, compared(model, &golden, None))
    });
    let arithmetic = ARITHMETIC
        .iter()
        .map(|(name, fault)| (name, compared(model.clone(), &golden, Some(*fault))));
    for (name, checks) in planted.chain(arithmetic) {
        let failed: Vec<_> = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Fail)
            .map(|check| format!("{} {}", check.name, check.found))
            .collect();
        eprintln!("{name}: {}", failed.join(", "));
        assert_eq!(verdict(&checks), Verdict::Fail, "{name}: {checks:#?}");
        // The divergence tells each: the figure that the published table gives.
        let kl = checks.iter().find(|check| check.name == "KL, median");
        assert_eq!(kl.unwrap().outcome, Outcome::Fail, "{name}");
        assert!(checks.iter().all(|check| check.group == Group::Golden));
    }
}

#[test]
fn a_family_with_anothers_activation_is_refused_without_a_reference() {
    let Some(data) = std::env::var_os("TRITMARK_DATA").map(PathBuf::from) else {
        eprintln!("NOT RUN: the activation of a family needs TRITMARK_DATA");
        return;
    };
    let path = data.join("golden/models/bitnet-tiny.i2_s.gguf");
    let mut model = load(&path, &LoadOptions::default()).unwrap();
    let options = EngineOptions::default();
    let mut engine = Engine::new(model.config.clone(), model.weights.clone(), &options).unwrap();
    let mut outcome = |model: &LoadedModel| {
        let checks = numbers::checks(model, &mut engine);
        let activation = checks.iter().find(|check| check.name == "activation");
        activation.unwrap().outcome
    };
    assert_eq!(outcome(&model), Outcome::Pass);
    model.config.activation = Activation::Silu;
    assert_eq!(outcome(&model), Outcome::Fail);
    // As a converter names it that does not tell the two families apart.
    model.source.architecture = "bitnet".to_owned();
    assert_eq!(outcome(&model), Outcome::Warn);
}
