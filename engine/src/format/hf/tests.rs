//! Configurations as they are found, and configurations that lie.
#![expect(clippy::float_cmp, reason = "numbers are read as they are written")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
        "num_attention_heads": 4, "vocab_size": 2048
    })
}

fn with(mut config: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn parse(config: &Value) -> Result<HfConfig, String> {
    parse_config(config.to_string().as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn missing_keys_get_the_classes_defaults() {
    let config = parse(&llama()).unwrap();
    let model = &config.model;
    assert_eq!((model.n_kv_heads, model.head_dim), (4, 32));
    assert_eq!((model.rms_norm_eps, model.rope_theta), (1e-6, 10_000.0));
    assert_eq!(model.activation, Activation::Silu);
    assert_eq!(model.rope_scaling, RopeScaling::None);
    assert!(!config.tie_word_embeddings);
    assert_eq!(config.ternary, None);

    let bitnet = json!({"architectures": ["BitNetForCausalLM"], "num_key_value_heads": 2});
    let config = parse(&with(llama(), &bitnet)).unwrap();
    assert_eq!(config.model.activation, Activation::ReluSquared);
    assert_eq!(config.model.rope_theta, 500_000.0);
    assert_eq!(config.warnings.len(), 1, "no quantization_config");
}

#[test]
fn both_forms_of_rope_settings_are_read() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256
    });
    let old = with(llama(), &json!({"rope_theta": 5e5, "rope_scaling": llama3}));
    let parameters = with(llama3.clone(), &json!({"rope_theta": 5e5}));
    let new = with(llama(), &json!({"rope_parameters": parameters}));
    assert_eq!(parse(&old).unwrap(), parse(&new).unwrap());
    assert_eq!(parse(&new).unwrap().model.rope_theta, 5e5);

    let linear = json!({"rope_scaling": {"type": "linear", "factor": 2}});
    assert_eq!(
        parse(&with(llama(), &linear)).unwrap().model.rope_scaling,
        RopeScaling::Linear { factor: 2.0 }
    );
}

fn gemma3() -> Value {
    json!({
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_size": 144, "intermediate_size": 384, "num_hidden_layers": 12,
        "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 2048
    })
}

#[test]
fn a_gemma3_gets_its_classes_defaults_in_either_form() {
    let config = parse(&gemma3()).unwrap();
    assert!(config.tie_word_embeddings);
    let model = &config.model;
    assert_eq!((model.head_dim, model.rope_theta), (256, 1e6));
    assert_eq!((model.embedding_scale, model.attention_scale), (12.0, None));
    assert_eq!(model.activation, Activation::Gelu);
    let local = LocalAttention {
        window: 4096,
        rope_theta: 10_000.0,
        all_but_every: 6,
    };
    assert_eq!(model.local, Some(local));

    let old = json!({
        "query_pre_attn_scalar": 64, "sliding_window": 512, "sliding_window_pattern": 3,
        "rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": {"type": "linear", "factor": 8}
    });
    let layers: Vec<_> = (1..=12)
        .map(|layer| ["sliding_attention", "full_attention"][usize::from(layer % 3 == 0)])
        .collect();
    let new = json!({
        "query_pre_attn_scalar": 64, "sliding_window": 512, "layer_types": layers,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}
        }
    });
    let [old, new] = [old, new].map(|changes| parse(&with(gemma3(), &changes)).unwrap().model);
    assert_eq!(old, new);
    assert_eq!(old.attention_scale, Some(0.125));
    assert_eq!(old.rope_scaling, RopeScaling::Linear { factor: 8.0 });
    let local = old.local.unwrap();
    assert_eq!((local.window, local.rope_theta), (512, 2e4));
    assert_eq!(local.all_but_every, 3);
}

#[test]
fn gemmas_of_another_graph_are_refused() {
    let all_local = vec!["sliding_attention"; 12];
    let config = parse(&with(gemma3(), &json!({"layer_types": all_local}))).unwrap();
    assert_eq!(config.model.local.unwrap().all_but_every, 13);
    let mut uneven = all_local.clone();
    uneven[2] = "full_attention";
    for (changes, expected) in [
        (
            json!({"layer_types": uneven}),
            "key `layer_types` is `sliding_attention, sl",
        ),
        (
            json!({"layer_types": all_local[1..]}),
            "key `layer_types` is `sliding_attention, sl",
        ),
        (
            json!({"sliding_window_pattern": 0}),
            "key `sliding_window_pattern` is 0",
        ),
        (json!({"sliding_window": 0}), "key `sliding_window` is 0"),
        (
            json!({"rope_local_base_freq": 0}),
            "key `rope_local_base_freq` is 0",
        ),
        (
            json!({"query_pre_attn_scalar": 0}),
            "key `query_pre_attn_scalar` is inf",
        ),
        (
            json!({"final_logit_softcapping": 30.0}),
            "key `final_logit_softcapping` is `30`",
        ),
        (
            json!({"use_bidirectional_attention": true}),
            "key `use_bidirectional_attention`",
        ),
        (
            json!({"hidden_activation": "gelu"}),
            "key `hidden_activation` is `gelu`",
        ),
    ] {
        let error = parse(&with(gemma3(), &changes)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_linear_class_decides_which_way_the_scale_goes() {
    let ternary = |quantization: Value| {
        parse(&with(
            llama(),
            &json!({"quantization_config": quantization}),
        ))
        .map(|config| config.ternary.unwrap())
    };
    assert!(
        ternary(json!({"quant_method": "bitnet"}))
            .unwrap()
            .scale_is_inverse
    );
    let auto = json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "modules_to_not_convert": ["q_proj"]});
    let auto = ternary(auto).unwrap();
    assert!(!auto.scale_is_inverse);
    assert!(!auto.converts("model.layers.0.self_attn.q_proj"));
    assert!(auto.converts("model.layers.0.self_attn.k_proj"));
    assert_eq!(
        ternary(json!({"quant_method": "gptq"})).unwrap_err(),
        "key `quantization_config.quant_method` is `gptq`, which is not supported (supported: bitnet)"
    );
    assert!(ternary(json!({"quant_method": "bitnet", "use_rms_norm": true})).is_err());
}

#[test]
fn configurations_that_lie_name_their_key() {
    let cases = [
        (
            json!({"architectures": ["GPT2LMHeadModel"]}),
            "key `architectures` is `GPT2LMHeadModel`",
        ),
        (
            json!({"architectures": "LlamaForCausalLM"}),
            "key `architectures` is a string, not an array of strings",
        ),
        (json!({"hidden_act": "gelu"}), "key `hidden_act` is `gelu`"),
        (json!({"hidden_size": null}), "key `hidden_size` is missing"),
        (
            json!({"hidden_size": -1}),
            "key `hidden_size` is the number -1, not a non-negative integer",
        ),
        (json!({"hidden_size": 1e300}), "key `hidden_size`"),
        (
            json!({"hidden_size": 129}),
            "key `num_attention_heads` is 4: must divide",
        ),
        (
            json!({"num_attention_heads": 0}),
            "key `num_attention_heads` is 0",
        ),
        (
            json!({"num_key_value_heads": 3}),
            "key `num_key_value_heads` is 3: must divide",
        ),
        (
            json!({"num_key_value_heads": 0}),
            "key `num_key_value_heads` is 0",
        ),
        (
            json!({"head_dim": 33}),
            "key `head_dim` is 33: must be even",
        ),
        (
            json!({"head_dim": 2_000_000_000}),
            "key `head_dim` is 2000000000: is too large",
        ),
        (
            json!({"num_hidden_layers": u64::MAX}),
            "key `num_hidden_layers` is 18446744073709551615",
        ),
        (
            json!({"vocab_size": 1_u64 << 40}),
            "key `vocab_size` is 1099511627776",
        ),
        (json!({"rms_norm_eps": -1.0}), "key `rms_norm_eps` is -1"),
        (json!({"rope_theta": 0.0}), "key `rope_theta` is 0"),
        (json!({"rope_theta": 1e300}), "key `rope_theta` is inf"),
        (
            json!({"rope_scaling": {"rope_type": "yarn"}}),
            "key `rope_scaling.rope_type` is `yarn`",
        ),
        (
            json!({"rope_scaling": {"rope_type": "linear"}}),
            "key `rope_scaling.factor` is missing",
        ),
        (
            json!({"rope_scaling": {"rope_type": "linear", "factor": 0}}),
            "key `rope_scaling` is 0",
        ),
        (
            json!({"eos_token_id": [1, -1]}),
            "key `eos_token_id` is an array, not a token id",
        ),
        (
            json!({"use_sliding_window": true}),
            "key `use_sliding_window` is `true`",
        ),
    ];
    for (changes, expected) in cases {
        let found = parse(&with(llama(), &changes)).unwrap_err();
        assert!(found.contains(expected), "{found} <> {expected}");
    }
    assert!(
        parse_config(b"[1]")
            .unwrap_err()
            .to_string()
            .contains("an object")
    );
    assert!(parse_config(b"{").is_err());
    assert!(parse_config("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn end_tokens_are_one_or_several() {
    let ids = |text: &str| parse_generation_config(text.as_bytes()).unwrap().eos;
    assert_eq!(ids(r#"{"eos_token_id": 5}"#), [5]);
    assert_eq!(ids(r#"{"eos_token_id": [5, 7]}"#), [5, 7]);
    assert_eq!(ids(r#"{"eos_token_id": null}"#), [] as [u32; 0]);
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    let index = |file: &str| parse_index(json!({"weight_map": {"w": file}}).to_string().as_bytes());
    assert_eq!(
        index("model-00001-of-00002.safetensors").unwrap()["w"],
        "model-00001-of-00002.safetensors"
    );
    for file in [
        "../x",
        "/etc/passwd",
        "a/b",
        "..",
        ".",
        "",
        "a\\b",
        "c:x",
        "a\0b",
        "./a",
    ] {
        let error = index(file).unwrap_err().to_string();
        assert!(error.contains("key `weight_map.w`"), "{file}: {error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = parse_config(text.as_bytes());
        let _ = parse_index(text.as_bytes());
        let _ = parse_generation_config(text.as_bytes());
    }

    #[test]
    fn changed_bytes_never_panic(at in 0_usize..1000, byte in any::<u8>()) {
        let mut text = llama().to_string().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        let _ = parse_config(&text);
    }
}
