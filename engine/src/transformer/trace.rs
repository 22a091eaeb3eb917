//! Each module of a layer alone, given the input that the reference gave its own
//! (`golden/outputs/bitnet-tiny-packed.f32.safetensors`, `trace.p03.*`): what a whole model's
//! statistical limits would let pass shows here.

use std::{num::NonZeroUsize, path::PathBuf};

use safetensors::SafeTensors;

use super::{Sequence, activate};
use crate::{
    engine::Numerics,
    kernels::{self, Activations, RoundedInput},
    kv_cache::{KvCache, KvType},
    load::{LoadOptions, LoadedModel, load},
    ops::{
        Compute,
        attention::{Attended, Attention, Place, store},
        linear::{self, Forms, Input, linears},
        norm::{Norm, Normed},
        rope::Ropes,
    },
    threads::ThreadPool,
    weights::{Linear, Matrix},
};

/// Tokens of the traced prompt.
const N: usize = 15;

/// The reference's tensors.
struct Trace(Vec<u8>);

impl Trace {
    fn get(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(&format!("trace.p03.{name}")).unwrap();
        let (words, _) = tensor.data().as_chunks();
        words.iter().map(|&word| f32::from_le_bytes(word)).collect()
    }
}

/// Modules under test.
struct Modules {
    model: LoadedModel,
    compute: Compute,
}

impl Modules {
    fn norm(&mut self, input: &[f32], gain: &[f32]) -> Vec<f32> {
        let norm = Norm {
            gain: Some(gain),
            eps: self.model.config.rms_norm_eps,
            divisor: None,
            forms: Forms::default(),
        };
        let mut normed = Normed::default();
        let width = gain.len();
        normed.take(
            &mut self.compute,
            &mut input.to_vec(),
            width,
            norm,
            |_, _, _| {},
        );
        normed.input().float.to_vec()
    }

    fn linear(&mut self, input: &[f32], layer: &Linear) -> Vec<f32> {
        let Matrix::Ternary(matrix) = &layer.matrix else {
            panic!("a dense linear in a ternary model");
        };
        let as_it_is = Norm {
            gain: None,
            eps: 0.0,
            divisor: None,
            forms: Forms::of(Numerics::Exact, [layer]),
        };
        let mut normed = Normed::default();
        let rows = &mut input.to_vec();
        normed.take(&mut self.compute, rows, matrix.cols, as_it_is, |_, _, _| {});
        let mut out = vec![0.0; N * matrix.rows];
        linears(&mut self.compute, [layer], normed.input(), [&mut out]);
        out
    }

    fn attention(&mut self, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let Self { model, compute } = self;
        let config = &model.config;
        let mut ropes = Ropes::new(config);
        ropes.extend(N);
        let attention = Attention::new(config, &ropes, 0, &model.weights.layers[0]);
        let mut cache = KvCache::new(config, KvType::F32, N);
        let mut batch = [Sequence {
            cache: &mut cache,
            tokens: &[0; N],
        }];
        let places: Vec<_> = (0..N)
            .map(|position| Place {
                sequence: 0,
                position,
            })
            .collect();
        store(compute, &attention, &mut batch, keys, values);
        let mut attended = Attended::default();
        attended.attend(compute, &attention, &batch, &places, queries);
        let width = config.n_heads * config.head_dim;
        let mut out = vec![0.0; N * width];
        for (token, out) in out.chunks_exact_mut(width).enumerate() {
            attended.gather(token, config, out);
        }
        out
    }
}

/// Holds a module's output to the reference's: 1e-5 of the largest value.
fn check(what: &str, ours: &[f32], reference: &[f32]) {
    assert_eq!(ours.len(), reference.len(), "{what}");
    let largest = reference.iter().fold(0.0_f32, |max, y| max.max(y.abs()));
    for (at, (ours, reference)) in ours.iter().zip(reference).enumerate() {
        let difference = (ours - reference).abs();
        assert!(
            difference <= 1e-5 * largest,
            "{what} at {at}: {ours}, not {reference}, of at most {largest}"
        );
    }
}

/// Holds a ternary linear's output to the reference's, token by token. A token one of whose
/// values rounds to int8 from within 1e-4 of a half may have it rounded the other way; returns the
/// tokens for which that is so.
fn check_linear(what: &str, input: &[f32], ours: &[f32], reference: &[f32]) -> usize {
    let largest = reference.iter().fold(0.0_f32, |max, y| max.max(y.abs()));
    let mut near_halves = 0;
    for ((token, input), (ours, reference)) in input.chunks_exact(input.len() / N).enumerate().zip(
        ours.chunks_exact(ours.len() / N)
            .zip(reference.chunks_exact(reference.len() / N)),
    ) {
        let absmax = input.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let near_half = input.iter().any(|&x| {
            let scaled = f64::from(x) * 127.0 / f64::from(absmax);
            ((scaled - scaled.floor()) - 0.5).abs() <= 1e-4
        });
        near_halves += usize::from(near_half);
        // A value that rounds the other way moves each output by at most one step of the input.
        let allowed = if near_half { 2e-2 } else { 1e-5 };
        for (at, (ours, reference)) in ours.iter().zip(reference).enumerate() {
            let difference = (ours - reference).abs();
            assert!(
                difference <= allowed * largest,
                "{what}, token {token}, at {at}: {ours}, not {reference}, of at most {largest}"
            );
        }
    }
    near_halves
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[test]
fn every_module_given_the_references_input_gives_the_references_output() {
    let Some(data) = std::env::var_os("TRITMARK_DATA").map(PathBuf::from) else {
        eprintln!("NOT RUN: the golden trace needs TRITMARK_DATA");
        return;
    };
    let outputs = data.join("golden/outputs/bitnet-tiny-packed.f32.safetensors");
    let trace = Trace(std::fs::read(outputs).unwrap());
    let folder = data.join("golden/models/bitnet-tiny-packed");
    let model = load(&folder, &LoadOptions::default()).unwrap();
    for kernel in kernels::available() {
        let name = kernel.name();
        let mut modules = Modules {
            model: model.clone(),
            compute: Compute::new(
                kernel,
                None,
                Numerics::Exact,
                ThreadPool::new(NonZeroUsize::new(2).unwrap(), false).unwrap(),
            ),
        };
        let (mut linears, mut near_halves) = (0, 0);
        for index in [0, 3] {
            let layer = &model.weights.layers[index];
            let get = |module: &str| trace.get(&format!("model.layers.{index}.{module}"));
            let what = |module: &str| format!("{name}, layer {index}, {module}");
            let before = match index {
                0 => trace.get("model.embed_tokens"),
                _ => trace.get(&format!("model.layers.{}", index - 1)),
            };

            let normed = get("input_layernorm");
            check(
                &what("norm"),
                &modules.norm(&before, &layer.attn_norm),
                &normed,
            );
            let mut linear = |module: &str, input: &[f32], layer: &Linear| {
                let ours = modules.linear(input, layer);
                let reference = get(module);
                near_halves += check_linear(&what(module), input, &ours, &reference);
                linears += 1;
                reference
            };
            let q = linear("self_attn.q_proj", &normed, &layer.q);
            let k = linear("self_attn.k_proj", &normed, &layer.k);
            let v = linear("self_attn.v_proj", &normed, &layer.v);
            let subnormed = get("self_attn.attn_sub_norm");
            let o = linear("self_attn.o_proj", &subnormed, &layer.o);
            let second = get("post_attention_layernorm");
            let gate = linear("mlp.gate_proj", &second, &layer.gate);
            let up = linear("mlp.up_proj", &second, &layer.up);
            let ffn = get("mlp.ffn_sub_norm");
            let down = linear("mlp.down_proj", &ffn, &layer.down);

            let attended = get("self_attn.attn_sub_norm.input");
            check(
                &what("attention"),
                &modules.attention(&q, &k, &v),
                &attended,
            );
            let gain = layer.attn_sub_norm.as_ref().unwrap();
            check(
                &what("attention sub-norm"),
                &modules.norm(&attended, gain),
                &subnormed,
            );
            let middle = sum(&before, &o);
            check(
                &what("second norm"),
                &modules.norm(&middle, &layer.ffn_norm),
                &second,
            );
            let mut product = gate;
            let kernel = &*modules.compute.kernel;
            activate(model.config.activation, kernel, &mut product, &up);
            check(
                &what("squared ReLU"),
                &product,
                &get("mlp.ffn_sub_norm.input"),
            );
            let gain = layer.ffn_sub_norm.as_ref().unwrap();
            let product = get("mlp.ffn_sub_norm.input");
            check(&what("FFN sub-norm"), &modules.norm(&product, gain), &ffn);
            let after = trace.get(&format!("model.layers.{index}"));
            check(&what("residual"), &sum(&middle, &down), &after);
        }
        assert_eq!(linears, 14);
        assert!(
            near_halves * 2 < linears * N,
            "{near_halves} tokens near a half"
        );
        check_end(&mut modules, &trace);
    }
}

/// Checks what follows the last layer.
fn check_end(modules: &mut Modules, trace: &Trace) {
    let weights = modules.model.weights.clone();
    let normed = trace.get("model.norm");
    let last = trace.get("model.layers.3");
    check(
        "last norm",
        &modules.norm(&last, &weights.output_norm),
        &normed,
    );
    let mut logits = vec![0.0; N * modules.model.config.vocab_size];
    let head = weights.head.as_ref().unwrap_or(&weights.embedding);
    let input = Input {
        float: &normed,
        int8: &Activations::default(),
        rounded: &RoundedInput::default(),
    };
    linear::head(&mut modules.compute, head, input, &mut logits);
    check("head", &logits, &trace.get("lm_head"));
}
