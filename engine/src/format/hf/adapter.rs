//! `adapter_config.json` of a LoRA adapter, as peft writes it (huggingface/peft, `LoraConfig`).
//!
//! Patterns of module names are Python's regular expressions; what is written differently for
//! [`fancy_regex`] is refused.

use fancy_regex::Regex;
use serde_json::Value;

use super::{
    json::{self, Object},
    unsupported,
};
use crate::config::ConfigError;

/// Which linears an adapter changes, and by how much.
///
/// Modules are named as in the base model: `model.layers.0.self_attn.q_proj`.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    rank: usize,
    alpha: f32,
    /// Whether the scale is `alpha / √r` (arXiv 2312.03732) rather than `alpha / r`.
    rank_stabilized: bool,
    targets: Targets,
    // Of the first pattern that a module matches.
    ranks: Vec<(Pattern, usize)>,
    alphas: Vec<(Pattern, f32)>,
}

#[derive(Clone, Debug)]
enum Targets {
    All,
    /// Names, or the ends of names behind a dot.
    Names(Vec<String>),
    /// What the whole name must match.
    Pattern(Pattern),
}

/// A regular expression and the key it stands in.
#[derive(Clone, Debug)]
struct Pattern {
    key: String,
    regex: Regex,
}

impl Pattern {
    /// Makes a pattern that the whole of a name must match.
    fn new(key: String, text: &str) -> Result<Self, ConfigError> {
        match Regex::new(&format!(r"\A(?:{text})\z")) {
            Ok(regex) => Ok(Self { key, regex }),
            Err(error) => Err(ConfigError::Value {
                key,
                value: format!("{text:?}"),
                reason: error.to_string(),
            }),
        }
    }

    fn matches(&self, module: &str) -> Result<bool, ConfigError> {
        self.regex
            .is_match(module)
            .map_err(|error| ConfigError::Value {
                key: self.key.clone(),
                value: format!("{:?}", self.regex.as_str()),
                reason: error.to_string(),
            })
    }
}

impl AdapterConfig {
    /// Returns whether the adapter changes a module.
    pub fn targets(&self, module: &str) -> Result<bool, ConfigError> {
        match &self.targets {
            Targets::All => Ok(true),
            Targets::Names(names) => Ok(names.iter().any(|name| {
                let before = module.strip_suffix(name.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            })),
            Targets::Pattern(pattern) => pattern.matches(module),
        }
    }

    /// Returns the rank of a module's branch.
    pub fn rank(&self, module: &str) -> Result<usize, ConfigError> {
        Ok(first_match(&self.ranks, module)?.unwrap_or(self.rank))
    }

    /// Returns what a module's branch is multiplied by.
    pub fn scale(&self, module: &str) -> Result<f32, ConfigError> {
        let rank = self.rank(module)? as f64;
        let alpha = first_match(&self.alphas, module)?.unwrap_or(self.alpha);
        let divisor = if self.rank_stabilized {
            rank.sqrt()
        } else {
            rank
        };
        Ok((f64::from(alpha) / divisor) as f32)
    }
}

fn first_match<T: Copy>(values: &[(Pattern, T)], module: &str) -> Result<Option<T>, ConfigError> {
    for (pattern, value) in values {
        if pattern.matches(module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// Reads `adapter_config.json`.
///
/// What changes more than linears, or linears otherwise, is refused. `fan_in_fan_out` is about
/// layers that store their weights transposed, of which no supported model has any: peft too
/// ignores it elsewhere.
pub fn parse_adapter_config(bytes: &[u8]) -> Result<AdapterConfig, ConfigError> {
    let root = json::parse(bytes)?;
    let config = Object::root(&root)?;
    let kind = config
        .string("peft_type")?
        .ok_or_else(|| ConfigError::Missing {
            key: "peft_type".into(),
        })?;
    if kind != "LORA" {
        return Err(unsupported("peft_type", kind, "LORA"));
    }
    refuse_other_kinds(&config)?;
    let rank = config.size("r")?.unwrap_or(8);
    let alpha = config.f32("lora_alpha")?.unwrap_or(8.0);
    let ranks = patterns(&config, "rank_pattern", Object::need_size)?;
    let alphas = patterns(&config, "alpha_pattern", Object::need_f32)?;
    check_ranks("r", rank)?;
    check_alphas("lora_alpha", alpha)?;
    for (pattern, rank) in &ranks {
        check_ranks(&pattern.key, *rank)?;
    }
    for (pattern, alpha) in &alphas {
        check_alphas(&pattern.key, *alpha)?;
    }
    Ok(AdapterConfig {
        rank,
        alpha,
        rank_stabilized: config.bool("use_rslora")?.unwrap_or(false),
        targets: targets(&config)?,
        ranks,
        alphas,
    })
}

fn refuse_other_kinds(config: &Object<'_>) -> Result<(), ConfigError> {
    for key in ["use_dora", "lora_bias", "use_qalora"] {
        if config.bool(key)? == Some(true) {
            return Err(unsupported(key, "true", "false"));
        }
    }
    if let Some(bias) = config.string("bias")?.filter(|bias| *bias != "none") {
        return Err(unsupported("bias", bias, "none"));
    }
    for key in [
        "modules_to_save",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
    ] {
        let value = config.get(key);
        let is_empty = |value: &&Value| value.as_array().is_some_and(Vec::is_empty);
        if let Some(value) = value.filter(|value| !is_empty(value)) {
            let mut text = value.to_string();
            if let Some((end, _)) = text.char_indices().nth(80) {
                text.truncate(end);
            }
            return Err(unsupported(key, &text, "null"));
        }
    }
    match config.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => Ok(()),
        // These only begin elsewhere; the others (PiSSA, OLoRA, LoftQ …) change the base model.
        Some(Value::String(name)) if ["gaussian", "eva", "orthogonal"].contains(&name.as_str()) => {
            Ok(())
        }
        Some(other) => Err(unsupported(
            "init_lora_weights",
            &other.to_string(),
            "true, false, gaussian, eva, orthogonal",
        )),
    }
}

fn targets(config: &Object<'_>) -> Result<Targets, ConfigError> {
    let key = "target_modules";
    match config.get(key) {
        None => Ok(Targets::All),
        Some(Value::String(text)) if text == "all-linear" => Ok(Targets::All),
        Some(Value::String(text)) => Ok(Targets::Pattern(Pattern::new(key.into(), text)?)),
        Some(_) => Ok(Targets::Names(config.strings(key)?.unwrap_or_default())),
    }
}

/// Reads values by patterns, each of which stands for a name or its end behind a dot.
fn patterns<'a, T>(
    config: &Object<'a>,
    key: &str,
    read: impl Fn(&Object<'a>, &str) -> Result<T, ConfigError>,
) -> Result<Vec<(Pattern, T)>, ConfigError> {
    let Some(values) = config.object(key)? else {
        return Ok(Vec::new());
    };
    let patterns = values.keys().map(|text| {
        let pattern = Pattern::new(values.full(text), &format!(r"(?:.*\.)?(?:{text})"))?;
        Ok((pattern, read(&values, text)?))
    });
    patterns.collect()
}

fn check_ranks(key: &str, rank: usize) -> Result<(), ConfigError> {
    if rank > 0 {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: key.to_owned(),
        value: rank.to_string(),
        reason: "must be at least 1".into(),
    })
}

fn check_alphas(key: &str, alpha: f32) -> Result<(), ConfigError> {
    if alpha.is_finite() {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: key.to_owned(),
        value: alpha.to_string(),
        reason: "must be finite".into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const Q: &str = "model.layers.3.self_attn.q_proj";

    fn parse(keys: &str) -> Result<AdapterConfig, ConfigError> {
        parse_adapter_config(format!(r#"{{"peft_type": "LORA", {keys}}}"#).as_bytes())
    }

    #[test]
    fn the_scale_is_alpha_by_rank_or_by_its_root() {
        let found = |config: AdapterConfig| (config.rank(Q).unwrap(), config.scale(Q).unwrap());
        let plain = parse(r#""r": 16, "lora_alpha": 32"#).unwrap();
        assert_eq!(found(plain), (16, 2.0));
        let stabilized = parse(r#""r": 16, "lora_alpha": 32, "use_rslora": true"#).unwrap();
        assert_eq!(found(stabilized), (16, 8.0));
    }

    #[test]
    fn the_first_pattern_that_ends_a_name_gives_its_rank_and_alpha() {
        let config = parse(
            r#""r": 4, "lora_alpha": 4,
               "rank_pattern": {"layers.3.self_attn.q_proj": 2, "q_proj": 8, "^model.layers.7.*": 1},
               "alpha_pattern": {"(q|k)_proj": 16}"#,
        )
        .unwrap();
        for (module, rank, scale) in [
            (Q, 2, 8.0),
            ("model.layers.13.self_attn.q_proj", 8, 2.0),
            ("model.layers.3.self_attn.k_proj", 4, 4.0),
            ("model.layers.3.self_attn.v_proj", 4, 1.0),
        ] {
            let found = (config.rank(module).unwrap(), config.scale(module).unwrap());
            assert_eq!(found, (rank, scale), "{module}");
        }
    }

    #[test]
    fn targets_are_ends_of_names_or_a_pattern_of_whole_names() {
        for (targets, expected) in [
            (r#"["q_proj", "v_proj"]"#, true),
            (r#"["self_attn.q_proj"]"#, true),
            (r#"["proj"]"#, false),
            (r#""all-linear""#, true),
            ("null", true),
            (r#"".*(q|k)_proj""#, true),
            (r#""q_proj""#, false),
            (r#""(?!.*vision).*layers\\.[0-3]\\..*""#, true),
            (r#""(?!.*self_attn).*""#, false),
        ] {
            let config = parse(&format!(r#""target_modules": {targets}"#)).unwrap();
            assert_eq!(config.targets(Q).unwrap(), expected, "{targets}");
        }
    }

    #[test]
    fn what_is_more_than_a_branch_beside_linears_is_refused_by_its_key() {
        for (keys, expected) in [
            (
                r#""use_dora": true"#,
                "key `use_dora` is `true`, which is not supported",
            ),
            (r#""bias": "lora_only""#, "key `bias` is `lora_only`"),
            (r#""modules_to_save": ["lm_head"]"#, "key `modules_to_save`"),
            (
                r#""layer_replication": [[0, 2]]"#,
                "key `layer_replication`",
            ),
            (
                r#""init_lora_weights": "pissa_niter_4""#,
                "key `init_lora_weights`",
            ),
            (r#""r": 0"#, "key `r` is 0: must be at least 1"),
            (r#""rank_pattern": {"q": 0}"#, "key `rank_pattern.q` is 0"),
            (r#""rank_pattern": {"q(": 2}"#, "key `rank_pattern.q(` is"),
            (
                r#""alpha_pattern": {"q": "2"}"#,
                "key `alpha_pattern.q` is a string, not a number",
            ),
            (
                r#""lora_alpha": 1e300"#,
                "key `lora_alpha` is inf: must be finite",
            ),
            (
                r#""target_modules": [1]"#,
                "key `target_modules` is an array",
            ),
            (r#""target_modules": "(""#, "key `target_modules` is"),
        ] {
            let error = parse(keys).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{keys}: {error}");
        }
        let other = parse_adapter_config(br#"{"peft_type": "IA3"}"#).unwrap_err();
        assert!(other.to_string().contains("(supported: LORA)"));
        let none = parse_adapter_config(b"{}").unwrap_err();
        assert_eq!(none.to_string(), "key `peft_type` is missing");
        assert!(parse(r#""modules_to_save": [], "init_lora_weights": "eva""#).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_config_or_an_error(bytes: Vec<u8>) {
            let _ = parse_adapter_config(&bytes);
        }

        #[test]
        fn any_values_and_patterns_are_a_config_or_an_error(
            rank: i64,
            alpha: f64,
            pattern in ".{0,12}",
            targets in ".{0,12}",
            value in r#"(null|true|-1|3|"x"|\[\]|\{\}|\["q"\])"#,
        ) {
            let text = serde_json::json!({
                "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets,
                "rank_pattern": { pattern.as_str(): 3 }, "alpha_pattern": { pattern: alpha },
            });
            if let Ok(config) = parse_adapter_config(text.to_string().as_bytes()) {
                let _ = (config.targets(Q), config.rank(Q), config.scale(Q));
            }
            for key in ["r", "lora_alpha", "bias", "target_modules", "rank_pattern", "use_dora"] {
                let _ = parse(&format!(r#""{key}": {value}"#));
            }
        }
    }
}
