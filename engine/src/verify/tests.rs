//! Tiny models, sound and with faults, and the verdict that each must get.

use super::*;
use crate::{
    config::ModelConfig,
    engine::Logits,
    load::{GgufVocab, ModelSource, VocabSource},
    score,
    testing::{TestRng, tiny_model, tiny_models},
    verify::golden::Prompt,
    weights::{Matrix, TernaryScale, Weights},
};

fn model(config: ModelConfig, weights: Weights) -> LoadedModel {
    LoadedModel {
        config,
        weights,
        source: ModelSource {
            architecture: "bitnet-b1.58".to_owned(),
            ..ModelSource::default()
        },
        vocab: VocabSource::None,
    }
}

fn tiny() -> LoadedModel {
    let (config, weights) = tiny_model(3);
    model(config, weights)
}

/// A reference made by the model itself.
fn golden(model: &LoadedModel) -> Golden {
    let options = EngineOptions::default();
    let mut engine = Engine::new(model.config.clone(), model.weights.clone(), &options).unwrap();
    let mut rng = TestRng::new(5);
    let prompts = (1..8).map(|n| {
        let ids = rng.tokens(3 * n, model.config.vocab_size);
        let mut cache = engine.new_cache(64);
        let logprobs = score::token_logprobs(&mut engine, &mut cache, &ids).unwrap();
        let mut logits = Vec::new();
        let last = &ids[ids.len() - 1..];
        engine
            .forward(&mut cache, last, Logits::Last, &mut logits)
            .unwrap();
        Prompt {
            id: format!("p{n}"),
            sum_logprob: logprobs.iter().sum(),
            greedy_ids: vec![score::argmax(&logits) as u32],
            greedy_margins: vec![9.0],
            last_logits: Some(logits),
            token_logprobs: Some(logprobs.iter().map(|&x| x as f32).collect()),
            ids,
        }
    });
    Golden {
        model: "tiny".to_owned(),
        mode: "f32".to_owned(),
        prompts: prompts.collect(),
        vocab_size: Some(model.config.vocab_size),
    }
}

fn report(model: &LoadedModel, golden: Option<&Golden>) -> Report {
    verify(model, golden, &Options::default(), |_, _| {}).unwrap()
}

fn outcome(report: &Report, name: &str) -> (Outcome, String) {
    let check = report
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("no check `{name}` in {report:#?}"));
    (check.outcome, check.found.clone())
}

#[test]
fn a_sound_model_passes_with_and_without_a_reference() {
    let model = tiny();
    let alone = report(&model, None);
    assert_eq!(alone.verdict, Verdict::Pass, "{alone:#?}");
    let golden = golden(&model);
    let compared = report(&model, Some(&golden));
    assert_eq!(compared.verdict, Verdict::Pass, "{compared:#?}");
    assert_eq!(compared.fingerprint, alone.fingerprint);
    let json = serde_json::to_value(&compared).unwrap();
    assert_eq!(json["verdict"], "pass");
    assert_eq!(json["checks"][0]["group"], "numbers");
}

#[test]
fn every_kind_of_weights_can_be_verified() {
    for (name, config, weights) in tiny_models(4) {
        let mut model = model(config, weights);
        model.source.architecture = match name.split_once('-') {
            Some(("llama", _)) => "llama",
            Some(("qwen2", _)) => "qwen2",
            Some(("gemma3", _)) => "gemma3",
            _ => "bitnet-b1.58",
        }
        .to_owned();
        let found = report(&model, Some(&golden(&model)));
        let expected = if numbers::block_formats(&model.weights).is_empty() {
            Verdict::Pass
        } else {
            Verdict::Inconclusive
        };
        assert_eq!(found.verdict, expected, "{name}: {found:#?}");
    }
}

#[test]
fn a_model_that_computes_otherwise_fails_against_its_reference() {
    let model = tiny();
    let golden = golden(&model);
    let mut changed = model.clone();
    changed.config.rope_theta = 100.0;
    let found = report(&changed, Some(&golden));
    assert_eq!(found.verdict, Verdict::Fail);
    assert_eq!(outcome(&found, "KL, median").0, Outcome::Fail);
    // Its own log-likelihoods alone tell it too.
    let mut bare = golden;
    bare.vocab_size = None;
    for prompt in &mut bare.prompts {
        prompt.last_logits = None;
        prompt.token_logprobs = None;
    }
    let found = report(&changed, Some(&bare));
    assert_eq!(found.verdict, Verdict::Fail);
    assert_eq!(
        outcome(&found, "log-likelihoods of whole prompts").0,
        Outcome::Fail
    );
}

#[test]
fn a_reference_that_cannot_judge_is_inconclusive_and_says_why() {
    let model = tiny();
    let sound = golden(&model);
    let inconclusive = |change: fn(&mut Golden), name: &str, why: &str| {
        let mut golden = sound.clone();
        change(&mut golden);
        let found = report(&model, Some(&golden));
        assert_eq!(found.verdict, Verdict::Inconclusive, "{found:#?}");
        let (outcome, said) = outcome(&found, name);
        assert_eq!(outcome, Outcome::Skip);
        assert!(said.contains(why), "{said}");
    };
    inconclusive(
        |golden| golden.vocab_size = Some(7),
        "the reference's model",
        "7 logits a position, and this model 101",
    );
    inconclusive(
        |golden| golden.prompts[1].ids[0] = 101,
        "the reference's model",
        "prompt `p2` has the token 101",
    );
    inconclusive(
        |golden| golden.prompts[0].ids = vec![0; 300],
        "the reference's model",
        "has 300 tokens, and this model takes 256",
    );
    inconclusive(
        |golden| golden.mode = "bf16".to_owned(),
        "the reference's arithmetic",
        "computed in bf16",
    );
    inconclusive(
        |golden| golden.prompts[2].last_logits = None,
        "logits",
        "1 prompts have no tensors",
    );
    let options = Options {
        longest_prompt: Some(2),
        ..Options::default()
    };
    let found = verify(&model, Some(&sound), &options, |_, _| {}).unwrap();
    assert_eq!(found.verdict, Verdict::Inconclusive);
}

#[test]
fn zeroed_tensors_and_wild_numbers_are_named() {
    let mut model = tiny();
    if let Matrix::Ternary(matrix) = &mut model.weights.layers[1].up.matrix {
        matrix.codes = vec![0b0101_0101; matrix.codes.len()].into();
    }
    let found = report(&model, None);
    assert_eq!(found.verdict, Verdict::Pass);
    let (zeros, said) = outcome(&found, "ternary tensors that are all zero");
    assert_eq!(
        (zeros, said.as_str()),
        (Outcome::Warn, "1 of 14: layers.1.up")
    );

    for wild in [f32::NAN, f32::INFINITY] {
        let mut model = tiny();
        if let Matrix::Ternary(matrix) = &mut model.weights.layers[0].q.matrix {
            matrix.scale = TernaryScale::Tensor(wild);
        }
        model.weights.layers[1].ffn_norm[3] = wild;
        let mut embedding = model.weights.embedding.data.to_vec();
        embedding[10..12].copy_from_slice(&half::f16::from_f32(wild).to_le_bytes());
        model.weights.embedding.data = embedding.into();
        let found = report(&model, None);
        assert_eq!(found.verdict, Verdict::Fail);
        for (name, part) in [
            ("ternary scales", "layers.0.q"),
            ("gains of norms", "layers.1.ffn_norm"),
            ("values of dense matrices", "embedding in row 0"),
            ("logits of a fixed prompt", "not finite"),
        ] {
            let (outcome, said) = outcome(&found, name);
            assert_eq!(outcome, Outcome::Fail, "{name}");
            assert!(said.contains(part), "{said}");
        }
    }
}

/// A byte-level vocabulary without merges.
fn vocabulary(pre: Option<&str>, chat_template: Option<&str>) -> VocabSource {
    // GPT-2's alphabet: bytes that can be printed are themselves.
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let (plain, others): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(printable);
    let others = (0..others.len() as u32).map(|nth| char::from_u32(256 + nth).unwrap());
    let mut tokens: Vec<String> = plain
        .into_iter()
        .map(char::from)
        .chain(others)
        .map(String::from)
        .collect();
    tokens.push("<|eot_id|>".to_owned());
    let mut token_types = vec![1; tokens.len()];
    *token_types.last_mut().unwrap() = 3;
    VocabSource::Gguf(Box::new(GgufVocab {
        architecture: "bitnet-b1.58".to_owned(),
        model: "gpt2".to_owned(),
        pre: pre.map(str::to_owned),
        tokens,
        token_types,
        chat_template: chat_template.map(str::to_owned),
        ..GgufVocab::default()
    }))
}

#[test]
fn a_vocabulary_that_others_read_otherwise_is_told() {
    let with = |pre, template| {
        let mut model = tiny();
        model.vocab = vocabulary(pre, template);
        report(&model, None)
    };
    let new = "{% for m in messages %}User: {{ m['content'] }}<|eot_id|>{% endfor %}Assistant: ";
    let old = "{% for m in messages %}Human: {{ m['content'] }}\n\nAssistant: {% endfor %}";
    let found = with(None, Some(old));
    assert_eq!(found.verdict, Verdict::Pass);
    assert_eq!(outcome(&found, "tokenizer.ggml.pre").0, Outcome::Warn);
    let (template, said) = outcome(&found, "chat template");
    assert_eq!(template, Outcome::Warn);
    assert!(said.contains("outdated"), "{said}");

    let found = with(Some("llama-bpe"), Some(new));
    assert_eq!(outcome(&found, "tokenizer.ggml.pre").0, Outcome::Pass);
    assert_eq!(outcome(&found, "chat template").0, Outcome::Pass);
    let found = with(Some("llama-bpe"), Some("{% if %}"));
    assert_eq!(outcome(&found, "chat template").0, Outcome::Warn);
    let found = with(Some("no-such-rule"), None);
    assert_eq!(found.verdict, Verdict::Fail);
    assert!(outcome(&found, "tokenizer").1.contains("no-such-rule"));
}
