//! What can be wrong with weights and their graph that shows without a reference.

use super::{Check, Group, Outcome};
use crate::{
    config::{Activation, Architecture},
    engine::{Engine, Logits},
    format::hf,
    kernels,
    load::{LoadedModel, VocabSource},
    weights::{Adapter, DenseMatrix, Layer, Linear, Matrix, TernaryMatrix, TernaryScale, Weights},
};

/// Names of [`Layer::linears`].
const LINEARS: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];
/// Tensors named in one check at most.
const NAMED: usize = 3;
/// Tokens of the prompt whose logits are looked at.
const N_TOKENS: u32 = 16;

pub(super) fn checks(model: &LoadedModel, engine: &mut Engine) -> Vec<Check> {
    let mut checks = vec![zeros(&model.weights), scales(&model.weights)];
    checks.push(gains(&model.weights));
    checks.push(dense_values(&model.weights));
    checks.push(logits(engine));
    checks.push(activation(model));
    checks.extend(weight_scale_class(model));
    for warning in &model.source.warnings {
        // Those are told by `zeros`.
        if !warning.ends_with("is all zeros") {
            checks.push(Check::new(
                Group::Graph,
                "loader",
                Outcome::Warn,
                warning.clone(),
            ));
        }
    }
    checks
}

/// Returns the block linears of a model, named.
fn linears(weights: &Weights) -> impl Iterator<Item = (String, &Linear)> {
    let layers = weights.layers.iter().map(Layer::linears);
    layers.enumerate().flat_map(|(nth, linears)| {
        let names = LINEARS.map(|name| format!("layers.{nth}.{name}"));
        names.into_iter().zip(linears)
    })
}

/// Returns the ternary linears of a model, named.
pub(super) fn ternary(weights: &Weights) -> impl Iterator<Item = (String, &TernaryMatrix)> {
    linears(weights).filter_map(|(name, linear)| match &linear.matrix {
        Matrix::Ternary(matrix) => Some((name, matrix)),
        // Made of a ternary one by an engine; a file holds none.
        Matrix::Lookup(_) | Matrix::Dense(_) => None,
    })
}

/// Returns the dense matrices of a model, named.
fn dense(weights: &Weights) -> impl Iterator<Item = (String, &DenseMatrix)> {
    let outer = [
        ("embedding", Some(&weights.embedding)),
        ("head", weights.head.as_ref()),
    ];
    outer
        .into_iter()
        .filter_map(|(name, matrix)| Some((name.to_owned(), matrix?)))
        .chain(linears(weights).flat_map(|(name, linear)| {
            let own = match &linear.matrix {
                Matrix::Ternary(_) | Matrix::Lookup(_) => None,
                Matrix::Dense(matrix) => Some((name.clone(), matrix)),
            };
            let adapter = linear.adapter.iter().flat_map(move |adapter| {
                let Adapter { a, b, scale: _ } = adapter;
                [(format!("{name}.a"), a), (format!("{name}.b"), b)]
            });
            own.into_iter().chain(adapter)
        }))
}

/// Returns the names of the formats that round their weights in blocks.
pub(super) fn block_formats(weights: &Weights) -> Vec<&'static str> {
    let mut names: Vec<_> = dense(weights)
        .filter(|(_, matrix)| !matrix.dtype.is_float())
        .map(|(_, matrix)| matrix.dtype.name())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns names as a list that ends after some.
fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Uploads with zeroed weights exist (microsoft/BitNet #608 claims one).
fn zeros(weights: &Weights) -> Check {
    let name = "ternary tensors that are all zero";
    let all: Vec<_> = ternary(weights).collect();
    let zero: Vec<String> = all
        .iter()
        .filter(|(_, matrix)| matrix.is_all_zero() || matrix.scale == TernaryScale::Tensor(0.0))
        .map(|(name, _)| name.clone())
        .collect();
    let (outcome, found) = match (all.len(), zero.len()) {
        (0, _) => (Outcome::Info, "no ternary tensor".to_owned()),
        (all, 0) => (Outcome::Pass, format!("none of {all}")),
        (all, n) => (Outcome::Warn, format!("{n} of {all}: {}", list(&zero))),
    };
    Check::new(Group::Numbers, name, outcome, found)
}

fn scales(weights: &Weights) -> Check {
    let name = "ternary scales";
    let (mut lowest, mut highest) = (f32::INFINITY, 0.0_f32);
    let (mut wild, mut negative) = (Vec::new(), Vec::new());
    for (name, matrix) in ternary(weights) {
        let scales = match &matrix.scale {
            TernaryScale::Tensor(scale) => std::slice::from_ref(scale),
            TernaryScale::Blocks(scales) => scales,
        };
        if scales.iter().any(|scale| !scale.is_finite()) {
            wild.push(name);
        } else if scales.iter().any(|&scale| scale < 0.0) {
            negative.push(name);
        } else {
            lowest = scales.iter().copied().fold(lowest, f32::min);
            highest = scales.iter().copied().fold(highest, f32::max);
        }
    }
    let (outcome, found) = if !wild.is_empty() {
        (Outcome::Fail, format!("not finite: {}", list(&wild)))
    } else if !negative.is_empty() {
        (Outcome::Warn, format!("negative: {}", list(&negative)))
    } else if lowest > highest {
        (Outcome::Info, "no ternary tensor".to_owned())
    } else {
        (Outcome::Pass, format!("{lowest:.3e} to {highest:.3e}"))
    };
    Check::new(Group::Numbers, name, outcome, found)
}

fn gains(weights: &Weights) -> Check {
    let mut wild = Vec::new();
    let mut look = |name: String, gain: Option<&Vec<f32>>| {
        if gain.is_some_and(|gain| gain.iter().any(|x| !x.is_finite())) {
            wild.push(name);
        }
    };
    look("output_norm".to_owned(), Some(&weights.output_norm));
    for (nth, layer) in weights.layers.iter().enumerate() {
        for (name, gain) in [
            ("attn_norm", Some(&layer.attn_norm)),
            ("q_norm", layer.q_norm.as_ref()),
            ("k_norm", layer.k_norm.as_ref()),
            ("attn_sub_norm", layer.attn_sub_norm.as_ref()),
            ("attn_post_norm", layer.attn_post_norm.as_ref()),
            ("ffn_norm", Some(&layer.ffn_norm)),
            ("ffn_sub_norm", layer.ffn_sub_norm.as_ref()),
            ("ffn_post_norm", layer.ffn_post_norm.as_ref()),
        ] {
            look(format!("layers.{nth}.{name}"), gain);
        }
    }
    finite("gains of norms", &wild)
}

/// Reads every value of the embedding, the head and the dense linears.
fn dense_values(weights: &Weights) -> Check {
    let mut wild = Vec::new();
    let mut row = Vec::new();
    for (name, matrix) in dense(weights) {
        row.resize(matrix.cols, 0.0);
        let bad = (0..matrix.rows).find(|&r| {
            kernels::widen(matrix, r, &mut row);
            row.iter().any(|x| !x.is_finite())
        });
        if let Some(r) = bad {
            wild.push(format!("{name} in row {r}"));
        }
    }
    finite("values of dense matrices", &wild)
}

fn finite(name: &str, wild: &[String]) -> Check {
    let found = match wild {
        [] => "all finite".to_owned(),
        _ => format!("not finite: {}", list(wild)),
    };
    Check::that(wild.is_empty(), Group::Numbers, name, found)
}

fn logits(engine: &mut Engine) -> Check {
    let name = "logits of a fixed prompt";
    let vocab_size = engine.config().vocab_size;
    let n = (N_TOKENS as usize).min(engine.config().context_length);
    let prompt: Vec<u32> = (0..N_TOKENS)
        .take(n)
        .map(|nth| (nth * 7919 + 1) % vocab_size as u32)
        .collect();
    let mut cache = engine.new_cache(n);
    let mut logits = Vec::new();
    if let Err(error) = engine.forward(&mut cache, &prompt, Logits::Last, &mut logits) {
        return Check::new(Group::Numbers, name, Outcome::Fail, error.to_string());
    }
    let wild = logits.iter().filter(|logit| !logit.is_finite()).count();
    let mean = logits.iter().map(|&l| f64::from(l)).sum::<f64>() / vocab_size as f64;
    let squares = logits.iter().map(|&l| (f64::from(l) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / vocab_size as f64).sqrt();
    let (outcome, found) = if wild > 0 {
        let found = format!("{wild} of {vocab_size} are not finite");
        (Outcome::Fail, found)
    } else if deviation < 1e-3 && vocab_size > 1 {
        let found = format!("all alike: standard deviation {deviation:.1e}");
        (Outcome::Warn, found)
    } else {
        let found = format!("finite, standard deviation {deviation:.2}");
        (Outcome::Pass, found)
    };
    Check::new(Group::Numbers, name, outcome, found)
}

/// BitNet b1.58 has `ReLU²`; bitnet.cpp and llama.cpp run it with `SiLU` (microsoft/BitNet #588),
/// at full speed and a perplexity of 100 instead of 17.
fn activation(model: &LoadedModel) -> Check {
    let name = "activation";
    let config = &model.config;
    let word = &model.source.architecture;
    let has = config.activation;
    let expected = match (word.as_str(), config.architecture) {
        // The first two are 1bitLLM's reproductions, before ReLU².
        ("bitnet" | "BitnetForCausalLM", _)
        | (_, Architecture::Llama | Architecture::Qwen2 | Architecture::Minicpm) => {
            Activation::Silu
        }
        (_, Architecture::Bitnet) => Activation::ReluSquared,
        (_, Architecture::Gemma3) => Activation::Gelu,
    };
    if has != expected {
        // config.json names it; a GGUF file's architecture decides.
        let outcome = if word.ends_with("ForCausalLM") {
            Outcome::Warn
        } else {
            Outcome::Fail
        };
        let found = format!("{has:?}, but `{word}` has {expected:?}");
        return Check::new(Group::Graph, name, outcome, found);
    }
    let llama3_vocabulary =
        matches!(&model.vocab, VocabSource::Gguf(vocab) if vocab.model == "gpt2");
    if word == "bitnet" && llama3_vocabulary {
        let found = "`bitnet` has SiLU, and this vocabulary is that of BitNet b1.58 models with \
                     ReLU²: such a file should say `bitnet-b1.58`";
        return Check::new(Group::Graph, name, Outcome::Warn, found);
    }
    Check::new(
        Group::Graph,
        name,
        Outcome::Pass,
        format!("{has:?}, as `{word}` has"),
    )
}

/// A folder's `weight_scale` is a trit's worth or its inverse, and only `linear_class` tells which
/// (microsoft/BitNet #616).
fn weight_scale_class(model: &LoadedModel) -> Option<Check> {
    if !model.source.stored_linear_format.contains("packed") {
        return None;
    }
    let path = model
        .source
        .files
        .iter()
        .find(|path| path.ends_with("config.json"))?;
    let config = hf::parse_config(&std::fs::read(path).ok()?).ok()?;
    let inverse = config.ternary?.scale_is_inverse;
    let found = if inverse {
        "bitlinear: outputs are divided by weight_scale"
    } else {
        "autobitlinear: outputs are multiplied by weight_scale"
    };
    // As the published models are; a trit's worth is a mean magnitude, whose inverse is far larger.
    let usual = inverse == (config.model.architecture != Architecture::Bitnet);
    let outcome = if usual { Outcome::Pass } else { Outcome::Warn };
    let found = if usual {
        found.to_owned()
    } else {
        format!("{found}, which no published {} does", config.class)
    };
    Some(Check::new(
        Group::Graph,
        "class of weight_scale",
        outcome,
        found,
    ))
}
