//! How an answer is made and scored: `generation_kwargs`, `filter_list` and `metric_list`.

use super::{
    ImportError,
    config::{Config, count, finish, flag, list, map, text, wrong},
    yaml::Yaml,
};
use crate::accuracy::definition::{ExactMatch, Filter, Generation, Kind, Metric, RegexStep, Step};

/// Most tokens where a task gives no number.
const MAX_NEW: u32 = 256;
/// Names of the most tokens; the first of them that is there holds.
const MAX_NEW_KEYS: [&str; 4] = [
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
];
/// What changes nothing where the most likely token is taken.
const WITHOUT_EFFECT: [&str; 3] = ["top_p", "top_k", "min_p"];

/// Reads how an answer is generated; only greedily is supported.
pub(super) fn generation(
    config: &mut Config,
    fewshot_delimiter: &str,
) -> Result<Generation, ImportError> {
    const KEY: &str = "generation_kwargs";
    let until_default = || vec![fewshot_delimiter.to_owned()];
    let Some(value) = config.take(KEY) else {
        return Ok(Generation {
            until: until_default(),
            max_new: MAX_NEW,
        });
    };
    let mut given = map(KEY, value)?;
    let until = match given.take("until") {
        None => until_default(),
        Some(Yaml::Text(stop)) => vec![stop],
        Some(value) => texts("generation_kwargs.until", value)?,
    };
    let mut max_new = None;
    for key in MAX_NEW_KEYS {
        if let Some(value) = given.take(key) {
            let value = count(&format!("{KEY}.{key}"), &value)?;
            max_new = max_new.or(Some(value));
        }
    }
    let temperature = match given.take("temperature") {
        None => 0.0,
        Some(Yaml::Int(n)) => n as f64,
        Some(Yaml::Float(x)) => x,
        Some(other) => return Err(wrong("generation_kwargs.temperature", "a number", &other)),
    };
    let samples = match given.take("do_sample") {
        None => temperature > 0.0,
        other => flag("generation_kwargs.do_sample", other)?,
    };
    if samples {
        let problem = "samples the answer, where only the most likely tokens can be taken";
        return Err(ImportError::key(KEY, problem));
    }
    if let Some(beams) = given
        .take("num_beams")
        .filter(|beams| *beams != Yaml::Int(1))
    {
        return Err(wrong("generation_kwargs.num_beams", "1", &beams));
    }
    for key in WITHOUT_EFFECT {
        given.take(key);
    }
    finish(KEY, given)?;
    Ok(Generation {
        until: until.into_iter().filter(|stop| !stop.is_empty()).collect(),
        max_new: max_new.unwrap_or(MAX_NEW),
    })
}

fn texts(key: &str, value: Yaml) -> Result<Vec<String>, ImportError> {
    let entries = list(key, value)?.into_iter().enumerate();
    entries
        .map(|(i, entry)| text(&format!("{key}[{i}]"), entry))
        .collect()
}

/// Reads what is made of an answer before it is scored.
pub(super) fn filters(kind: Kind, config: &mut Config) -> Result<Vec<Filter>, ImportError> {
    const KEY: &str = "filter_list";
    let Some(value) = config.take(KEY) else {
        return Ok(Vec::new());
    };
    let mut filters = Vec::new();
    for (i, entry) in list(KEY, value)?.into_iter().enumerate() {
        let path = format!("{KEY}[{i}]");
        let mut entry = map(&path, entry)?;
        let name = entry.text("name")?;
        let name = name.ok_or_else(|| ImportError::key(format!("{path}.name"), "is missing"))?;
        let steps = entry.take("filter").unwrap_or(Yaml::Null);
        let steps = list(&format!("{path}.filter"), steps)?;
        finish(&path, entry)?;
        let steps = self::steps(&path, steps)?;
        filters.push(Filter { name, steps });
    }
    // Without steps it is the answer as it is, which is what no filter means.
    if let [only] = &filters[..]
        && only.steps.is_empty()
    {
        filters.clear();
    }
    if kind != Kind::GenerateUntil && !filters.is_empty() {
        let problem = "means something to generated answers alone";
        return Err(ImportError::key(KEY, problem));
    }
    Ok(filters)
}

fn steps(path: &str, functions: Vec<Yaml>) -> Result<Vec<Step>, ImportError> {
    let mut steps = Vec::new();
    let mut is_taken = false;
    for (i, value) in functions.into_iter().enumerate() {
        let path = format!("{path}.filter[{i}]");
        let mut given = map(&path, value)?;
        let function = given.text("function")?.unwrap_or_default();
        if is_taken && function != "take_first" {
            let problem = format!(
                "`{function}` stands behind `take_first`, where the reference harness filters \
                 single characters"
            );
            return Err(ImportError::key(path, problem));
        }
        match function.as_str() {
            // Answers are generated once: that is the first one, and the majority.
            "take_first" => is_taken = true,
            "majority_vote" => {}
            "remove_whitespace" => steps.push(Step::Strip {}),
            "lowercase" => steps.push(Step::Lowercase {}),
            "uppercase" => steps.push(Step::Uppercase {}),
            "regex" => {
                let pattern = given.text("regex_pattern")?;
                let take = match given.take("group_select") {
                    None => 0,
                    Some(Yaml::Int(n)) if i32::try_from(n).is_ok() => n as i32,
                    Some(other) => return Err(wrong("group_select", "a whole number", &other)),
                };
                let fallback = given.text("fallback")?;
                steps.push(Step::Regex(RegexStep {
                    pattern: pattern.unwrap_or_else(|| r"#### (\-?[0-9\.\,]+)".to_owned()),
                    take,
                    fallback: fallback.unwrap_or_else(|| "[invalid]".to_owned()),
                }));
            }
            other => {
                let problem = format!("is the filter `{other}`, which is not supported");
                return Err(ImportError::key(path, problem));
            }
        }
        finish(&path, given)?;
    }
    if is_taken {
        Ok(steps)
    } else {
        let problem = "lacks `take_first`, without which the reference harness scores lists";
        Err(ImportError::key(path, problem))
    }
}

/// Reads how answers are scored.
pub(super) fn metrics(
    kind: Kind,
    config: &mut Config,
) -> Result<(Vec<Metric>, ExactMatch), ImportError> {
    const KEY: &str = "metric_list";
    let mut exact = ExactMatch::default();
    let mut metrics = Vec::new();
    let Some(value) = config.take(KEY) else {
        let metrics = match kind {
            Kind::MultipleChoice => vec![Metric::Acc, Metric::AccNorm],
            Kind::GenerateUntil => vec![Metric::ExactMatch],
            _ => vec![
                Metric::WordPerplexity,
                Metric::BytePerplexity,
                Metric::BitsPerByte,
            ],
        };
        return Ok((metrics, exact));
    };
    for (i, entry) in list(KEY, value)?.into_iter().enumerate() {
        let path = format!("{KEY}[{i}]");
        let mut entry = map(&path, entry)?;
        let name = entry.text("metric")?.unwrap_or_default();
        let (metric, aggregation) = match (kind, name.as_str()) {
            (Kind::MultipleChoice, "acc") => (Metric::Acc, "mean"),
            (Kind::MultipleChoice, "acc_norm") => (Metric::AccNorm, "mean"),
            (Kind::GenerateUntil, "exact_match") => (Metric::ExactMatch, "mean"),
            (Kind::LoglikelihoodRolling, "word_perplexity") => {
                (Metric::WordPerplexity, "weighted_perplexity")
            }
            (Kind::LoglikelihoodRolling, "byte_perplexity") => {
                (Metric::BytePerplexity, "weighted_perplexity")
            }
            (Kind::LoglikelihoodRolling, "bits_per_byte") => (Metric::BitsPerByte, "bits_per_byte"),
            _ => {
                let problem = format!("is the metric `{name}`, which is not supported");
                return Err(ImportError::key(path, problem));
            }
        };
        if let Some(found) = entry
            .text("aggregation")?
            .filter(|found| found != aggregation)
        {
            let problem = format!("is `{found}`, where only `{aggregation}` is supported");
            return Err(ImportError::key(format!("{path}.aggregation"), problem));
        }
        entry.take("higher_is_better");
        entry.take("hf_evaluate");
        entry.take("weight_by_size");
        if metric == Metric::ExactMatch {
            exact = exact_match(&path, &mut entry)?;
        }
        finish(&path, entry)?;
        if metrics.contains(&metric) {
            return Err(ImportError::key(path, "stands there twice"));
        }
        metrics.push(metric);
    }
    Ok((metrics, exact))
}

fn exact_match(path: &str, entry: &mut Config) -> Result<ExactMatch, ImportError> {
    let mut read = |key: &str| flag(&format!("{path}.{key}"), entry.take(key));
    let ignore_case = read("ignore_case")?;
    let ignore_punctuation = read("ignore_punctuation")?;
    if read("ignore_numbers")? {
        let key = format!("{path}.ignore_numbers");
        return Err(ImportError::key(key, "is not supported"));
    }
    let ignore = match entry.take("regexes_to_ignore") {
        None => Vec::new(),
        Some(value) => texts(&format!("{path}.regexes_to_ignore"), value)?,
    };
    Ok(ExactMatch {
        ignore_case,
        ignore_punctuation,
        ignore,
    })
}
