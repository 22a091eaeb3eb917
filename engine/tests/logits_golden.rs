//! Known answers from outside: logits and log-probabilities that Hugging Face transformers and an
//! independent reference computed for the models under `TRITMARK_DATA` (its README says how).

use std::{
    collections::BTreeMap,
    io::Read,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde_json::Value;
use tritmark_engine::{
    engine::{Engine, EngineOptions, Logits},
    kernels::{self, Activations, Columns, KernelChoice},
    kv_cache::KvCache,
    load::{LoadOptions, load},
    score::{argmax, token_logprobs},
    weights::{Layer, Linear, Matrix},
};

/// Returns the data folder, or None after saying that the test did not run.
fn data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TRITMARK_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("NOT RUN: {test} needs TRITMARK_DATA");
    }
    folder
}

fn engine(path: &Path, kernel: KernelChoice) -> Engine {
    let options = EngineOptions {
        threads: NonZeroUsize::new(2).unwrap(),
        kernel,
        pin: false,
    };
    Engine::open(path, &options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tensors of one file of `golden/outputs`, in f32.
struct Tensors(BTreeMap<String, Vec<f32>>);

impl Tensors {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let values = tensors.iter().map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter();
            let values = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (name.to_owned(), values)
        });
        Self(values.collect())
    }

    fn get(&self, name: &str) -> &[f32] {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }
}

fn read_json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

/// Returns `sum(p ln(p / q))` of two softmaxes.
fn divergence(reference: &[f32], other: &[f32]) -> f64 {
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let max = f64::from(logits[argmax(logits)]);
        let sum: f64 = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum();
        logits
            .iter()
            .map(|x| f64::from(*x) - max - sum.ln())
            .collect()
    };
    let terms = log_softmax(reference)
        .into_iter()
        .zip(log_softmax(other))
        .map(|(p, q)| p.exp() * (p - q));
    terms.sum()
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// What a whole model may differ from its reference.
enum Limits {
    /// Ternary models: rounding activations is discontinuous, so that limits are statistical.
    Ternary {
        /// Median and worst over the prompts.
        kl: [f64; 2],
        /// p50, p99 and largest difference of token log-probabilities.
        logprob: [f64; 3],
        /// Greedy text may part where the two best logits are nearer than this.
        margin: f64,
    },
    /// Full precision: largest difference of a logit.
    Dense(f64),
}

impl Limits {
    /// Returns the margin of the two best logits below which greedy text may part.
    fn margin(&self) -> f64 {
        match self {
            Self::Ternary { margin, .. } => *margin,
            Self::Dense(_) => 1e-3,
        }
    }

    fn check(&self, kl: [f64; 2], logprob: [f64; 3], logit_error: f64, found: &str) {
        let within = |found: &[f64], limits: &[f64]| found.iter().zip(limits).all(|(f, l)| f <= l);
        match self {
            Self::Ternary {
                kl: kl_limits,
                logprob: logprob_limits,
                ..
            } => {
                assert!(within(&kl, kl_limits), "{found}");
                assert!(within(&logprob, logprob_limits), "{found}");
            }
            Self::Dense(limit) => assert!(logit_error <= *limit, "{found}"),
        }
    }
}

/// README, "What tolerance is honest", for an f32 cache.
const TERNARY: Limits = Limits::Ternary {
    kl: [2e-5, 3e-4],
    logprob: [0.005, 0.035, 0.2],
    margin: 0.2,
};

fn check(model: &str, outputs: &str, limits: &Limits, max_len: usize) {
    let Some(data) = data(model) else { return };
    let golden = data.join("golden");
    let path = golden.join("models").join(model);
    let tensors = Tensors::read(&golden.join(format!("outputs/{outputs}.safetensors")));
    let outputs = read_json(&golden.join(format!("outputs/{outputs}.json.gz")));
    let prompts: Vec<(&str, Vec<u32>, &Value)> = outputs["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|prompt| (prompt["id"].as_str().unwrap(), ids(&prompt["ids"]), prompt))
        .filter(|(_, tokens, _)| tokens.len() <= max_len)
        .collect();
    let mut best = engine(&path, KernelChoice::Auto);
    let mut kls = Vec::new();
    let mut logprob_errors = Vec::new();
    let mut logit_error = 0.0_f64;
    let mut last_logits = Vec::new();
    for (id, tokens, prompt) in &prompts {
        let mut cache = best.new_cache(tokens.len() + 64);
        let logprobs = token_logprobs(&mut best, &mut cache, tokens).unwrap();
        let expected = tensors.get(&format!("{id}.token_logprobs"));
        assert_eq!(logprobs.len(), expected.len());
        let errors = logprobs.iter().zip(expected);
        logprob_errors.extend(errors.map(|(a, b)| (a - f64::from(*b)).abs()));

        cache.truncate(0);
        let mut logits = Vec::new();
        best.forward(&mut cache, tokens, Logits::Last, &mut logits)
            .unwrap();
        let expected = tensors.get(&format!("{id}.last_logits"));
        kls.push(divergence(expected, &logits));
        for (a, b) in logits.iter().zip(expected) {
            logit_error = logit_error.max(f64::from((a - b).abs()));
        }
        last_logits.push(logits.clone());
        check_greedy(&mut best, &mut cache, logits, prompt, limits.margin());
    }
    let kl = [quantile(&mut kls, 0.5), quantile(&mut kls, 1.0)];
    let logprob = [0.5, 0.99, 1.0].map(|q| quantile(&mut logprob_errors, q));
    let found = format!(
        "{model}, {} prompts: KL median {:.1e} worst {:.1e}, log-probability p50 {:.1e} p99 {:.1e} \
         max {:.1e}, logits max {logit_error:.1e}",
        kls.len(),
        kl[0],
        kl[1],
        logprob[0],
        logprob[1],
        logprob[2]
    );
    println!("{found}");
    assert!(kls.len() >= 10, "too few prompts");
    limits.check(kl, logprob, logit_error, &found);

    // The other kernels: the same bits. The reference is there to be right, not fast.
    for kernel in kernels::available().into_iter().skip(1) {
        let mut other = engine(&path, KernelChoice::Named(kernel.name()));
        for ((id, tokens, _), expected) in prompts.iter().zip(&last_logits) {
            if kernel.name() == "reference" && tokens.len() > 100 {
                continue;
            }
            let mut cache = other.new_cache(tokens.len());
            let mut logits = Vec::new();
            other
                .forward(&mut cache, tokens, Logits::Last, &mut logits)
                .unwrap();
            assert!(logits == *expected, "{model}, {id} on {}", kernel.name());
        }
    }
}

/// Follows the reference's greedy text up to its first close call.
fn check_greedy(
    engine: &mut Engine,
    cache: &mut KvCache,
    mut logits: Vec<f32>,
    prompt: &Value,
    close: f64,
) {
    let margins = prompt["greedy_margins"].as_array().unwrap();
    for (step, (token, margin)) in ids(&prompt["greedy_ids"])
        .into_iter()
        .zip(margins)
        .enumerate()
    {
        if margin.as_f64().unwrap() < close {
            break;
        }
        assert_eq!(
            argmax(&logits),
            token as usize,
            "{}, step {step}",
            prompt["id"]
        );
        engine
            .forward(cache, &[token], Logits::Last, &mut logits)
            .unwrap();
    }
}

#[test]
fn packed_bitnet_matches_transformers() {
    check(
        "bitnet-tiny-packed",
        "bitnet-tiny-packed.f32",
        &TERNARY,
        2048,
    );
}

#[test]
fn bitnet_from_master_weights_matches_transformers() {
    check("bitnet-tiny-bf16", "bitnet-tiny-bf16.f32", &TERNARY, 600);
}

#[test]
fn gguf_bitnets_match_transformers() {
    check(
        "bitnet-tiny.i2_s.gguf",
        "bitnet-tiny-packed.f32",
        &TERNARY,
        600,
    );
    // Blocks carry their scale in f16, which the packed folder has in bf16: below half an ulp.
    for model in ["bitnet-tiny.tq2_0.gguf", "bitnet-tiny.tq1_0.gguf"] {
        check(model, "bitnet-tiny-packed.f32", &TERNARY, 600);
    }
}

#[test]
fn ternary_llama_matches_transformers() {
    check("llama158-tiny", "llama158-tiny.f32", &TERNARY, 600);
}

#[test]
fn dense_llama_matches_transformers() {
    check("llama-tiny", "llama-tiny.f32", &Limits::Dense(1e-4), 2048);
}

#[test]
fn qwen2_matches_transformers() {
    check("qwen2-tiny", "qwen2-tiny.f32", &Limits::Dense(1e-4), 2048);
}

/// One linear, given the reference's own input: nothing can have gone astray before it.
#[test]
fn single_linears_match_the_trace() {
    let Some(data) = data("single_linears_match_the_trace") else {
        return;
    };
    let golden = data.join("golden");
    let trace = Tensors::read(&golden.join("outputs/bitnet-tiny-packed.f32.safetensors"));
    let model = load(
        &golden.join("models/bitnet-tiny-packed"),
        &LoadOptions::default(),
    )
    .unwrap();
    let module =
        |layer: usize, name: &str| trace.get(&format!("trace.p03.model.layers.{layer}.{name}"));
    let mut skipped = 0;
    let mut checked = 0;
    for index in [0, 3] {
        let Layer {
            q,
            k,
            v,
            o,
            gate,
            up,
            down,
            ..
        } = &model.weights.layers[index];
        for (linear, input, output) in [
            (q, "input_layernorm", "self_attn.q_proj"),
            (k, "input_layernorm", "self_attn.k_proj"),
            (v, "input_layernorm", "self_attn.v_proj"),
            (o, "self_attn.attn_sub_norm", "self_attn.o_proj"),
            (gate, "post_attention_layernorm", "mlp.gate_proj"),
            (up, "post_attention_layernorm", "mlp.up_proj"),
            (down, "mlp.ffn_sub_norm", "mlp.down_proj"),
        ] {
            let (near, far) = check_linear(linear, module(index, input), module(index, output));
            skipped += near;
            checked += far;
        }
    }
    // About one value in 3000 lies near a half: most tokens of most layers are compared.
    assert!(checked > 2 * skipped, "{checked} checked, {skipped} not");
}

/// Returns how many tokens had a value too near a half, and how many were compared.
fn check_linear(linear: &Linear, input: &[f32], expected: &[f32]) -> (usize, usize) {
    let Matrix::Ternary(matrix) = &linear.matrix else {
        panic!("a ternary model")
    };
    let (mut near_half, mut compared) = (0, 0);
    for (x, expected) in input
        .chunks_exact(matrix.cols)
        .zip(expected.chunks_exact(matrix.rows))
    {
        let absmax = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let near = |x: &f32| {
            let scaled = f64::from(*x) * 127.0 / f64::from(absmax);
            ((scaled - scaled.floor()) - 0.5).abs() < 1e-4
        };
        if x.iter().any(near) {
            near_half += 1;
            continue;
        }
        compared += 1;
        for kernel in kernels::available() {
            let mut activations = Activations::default();
            activations.reshape(1, matrix.cols);
            kernel.quantize(x, activations.rows_mut().next().unwrap());
            let mut y = vec![0.0; matrix.rows];
            kernel.ternary(
                matrix,
                &activations,
                &mut Columns::whole(&mut y, matrix.rows),
            );
            let largest = expected.iter().fold(0.0_f32, |max, y| max.max(y.abs()));
            for (actual, expected) in y.iter().zip(expected) {
                assert!((actual - expected).abs() <= 1e-5 * largest);
            }
        }
    }
    (near_half, compared)
}

/// Trained ternary models of others, against an f64 reference with exact BitNet arithmetic.
///
/// That reference divides by the plain root mean square inside the layers and adds 1e-5 before
/// the last norm; the files say 1e-12 for all, which is enough to turn roundings. So the engine
/// runs with an epsilon of 0 here, and what is left of the last norm is one factor a position.
#[test]
fn trained_tinystories_models_match_their_reference() {
    let Some(data) = data("trained_tinystories_models_match_their_reference") else {
        return;
    };
    let folder = data.join("models/bitllama");
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let mut exact = 0;
    let mut prompts = 0;
    for (model, file) in [
        ("1M", "bitllama-tinystories-1m-f32.gguf"),
        ("3M", "bitllama-tinystories-3m-tq2_0.gguf"),
    ] {
        let mut loaded = load(&folder.join(file), &LoadOptions::default()).unwrap();
        loaded.config.rms_norm_eps = 0.0;
        let mut engine = Engine::from_loaded(loaded, &EngineOptions::default()).unwrap();
        for prompt in golden[model].as_array().unwrap() {
            exact += usize::from(check_story(&mut engine, prompt));
            prompts += 1;
        }
    }
    // In f32 a rounding of one prompt in eight falls the other way, which moves logits by 0.03.
    assert!(8 * exact >= 7 * prompts, "{exact} of {prompts} prompts");
}

/// Checks one prompt; returns whether its logits are the reference's but for one factor.
fn check_story(engine: &mut Engine, prompt: &Value) -> bool {
    let tokens = ids(&prompt["ids"]);
    let name = prompt["prompt"].to_string();
    let mut cache = engine.new_cache(512);
    let sum: f64 = token_logprobs(engine, &mut cache, &tokens)
        .unwrap()
        .iter()
        .sum();
    let expected = prompt["sum_logprob_of_prompt"].as_f64().unwrap();
    assert!(
        (sum - expected).abs() < 0.01,
        "{name}: {sum} for {expected}"
    );

    cache.truncate(0);
    let mut logits = Vec::new();
    engine
        .forward(&mut cache, &tokens, Logits::Last, &mut logits)
        .unwrap();
    let mut factors = Vec::new();
    for pair in prompt["last_top8"].as_array().unwrap() {
        let id = usize::try_from(pair[0].as_u64().unwrap()).unwrap();
        let expected = pair[1].as_f64().unwrap();
        let actual = f64::from(logits[id]);
        assert!(
            (actual - expected).abs() < 0.05,
            "{name}: logit of {id} is {actual}, not {expected}"
        );
        factors.push(actual / expected);
    }
    for (step, token) in ids(&prompt["greedy32"]).into_iter().enumerate() {
        assert_eq!(argmax(&logits), token as usize, "{name}, step {step}");
        engine
            .forward(&mut cache, &[token], Logits::Last, &mut logits)
            .unwrap();
    }
    let smallest = quantile(&mut factors, 0.0);
    let largest = quantile(&mut factors, 1.0);
    (1.0..1.001).contains(&smallest) && largest - smallest < 1e-6
}
