//! One line a document and filter: what was asked, said and scored.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;
use tritmark_proto::record::{
    Answer, Choice, ChoiceAnswer, GeneratedAnswer, Item, ItemScore, NO_FILTER, RollingAnswer,
};

use super::{Document, ImportError};
use crate::score::Rolling;

/// Returns the items of a samples file in the order of their positions; lines of one document
/// behind several filters are one item.
pub(super) fn items(
    path: &Path,
    bytes: &[u8],
    task: &str,
    warnings: &mut BTreeSet<String>,
) -> Result<Vec<Item>, ImportError> {
    let mut items: BTreeMap<u32, Item> = BTreeMap::new();
    for line in Document::lines(path, bytes) {
        let line = line?;
        let doc_id = line
            .get("doc_id")
            .and_then(Value::as_u64)
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| line.bad("doc_id", "no position"))?;
        let filter = line.text("filter")?.unwrap_or(NO_FILTER);
        let scores = scores(&line, filter, task, warnings)?;
        if let Some(item) = items.get_mut(&doc_id) {
            if scores
                .iter()
                .any(|score| item.score(&score.metric, filter).is_some())
            {
                return Err(line.bad("doc_id", format!("{doc_id} has filter `{filter}` twice")));
            }
            item.scores.extend(scores);
            continue;
        }
        let answer = answer(&line, &scores, task, warnings)?;
        let doc_hash = line
            .text("doc_hash")?
            .map_or_else(|| format!("lm-eval:{task}:{doc_id}"), str::to_owned);
        let prompt_hash = line.text("prompt_hash")?.unwrap_or_default().to_owned();
        let item = Item {
            task: task.to_owned(),
            group: None,
            index: doc_id,
            doc_hash,
            prompt_hash,
            answer,
            scores,
            elapsed_ns: None,
            energy: Vec::new(),
            from_cache: None,
            scored_on: None,
        };
        items.insert(doc_id, item);
    }
    if let Some((doc_id, _)) = items.iter().find(|(_, item)| item.scores.is_empty()) {
        return Err(ImportError::Value {
            path: path.to_owned(),
            line: None,
            key: "metrics".to_owned(),
            what: format!("document {doc_id} has no score that is one number from 0 to 1"),
        });
    }
    Ok(items.into_values().collect())
}

/// Returns a line's scores that are shares; perplexities are of all lines together.
fn scores(
    line: &Document<'_>,
    filter: &str,
    task: &str,
    warnings: &mut BTreeSet<String>,
) -> Result<Vec<ItemScore>, ImportError> {
    let names: Vec<String> = match line.get("metrics") {
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| line.bad("metrics", "no list of names"))?,
        Some(_) => return Err(line.bad("metrics", "no list of names")),
        // Versions before 0.4.3 have no such list.
        None => ["acc", "acc_norm", "exact_match", "mc2"]
            .into_iter()
            .filter(|name| line.get(name).is_some())
            .map(str::to_owned)
            .collect(),
    };
    let extracted = match line.value.get("filtered_resps") {
        Some(Value::Array(responses)) => match responses.as_slice() {
            [Value::String(text)] => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let mut scores = Vec::new();
    for metric in names {
        let value = line.value.get(&metric).unwrap_or(&Value::Null);
        let is_rolling = Rolling::ALL.iter().any(|rolling| rolling.name() == metric);
        let value = match value {
            // Its parts are in the answer.
            Value::Array(_) if is_rolling => Some(0.0),
            Value::Null => None,
            Value::Bool(is_right) => Some(f64::from(u8::from(*is_right))),
            Value::Number(number) => match number.as_f64() {
                Some(value) if (0.0..=1.0).contains(&value) => Some(value),
                _ => {
                    warnings.insert(format!("`{metric}` of `{task}` is no share and left out"));
                    continue;
                }
            },
            _ => {
                warnings.insert(format!("`{metric}` of `{task}` is no number and left out"));
                continue;
            }
        };
        scores.push(ItemScore {
            metric,
            filter: filter.to_owned(),
            value,
            extracted: extracted.clone().filter(|_| !is_rolling),
            reason: value.is_none().then(|| "lm-eval has no value".to_owned()),
            pending: false,
        });
    }
    Ok(scores)
}

fn answer(
    line: &Document<'_>,
    scores: &[ItemScore],
    task: &str,
    warnings: &mut BTreeSet<String>,
) -> Result<Answer, ImportError> {
    let Some(Value::Array(requests)) = line.get("resps") else {
        return Err(line.bad("resps", "no list"));
    };
    // The first of its repetitions.
    let first: Vec<&Value> = requests
        .iter()
        .map(|request| match request {
            Value::Array(repetitions) => repetitions.first(),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| line.bad("resps", "a request without response"))?;
    match first.as_slice() {
        [] => Err(line.bad("resps", "no response")),
        [only] if !only.is_array() => single(line, only),
        _ => choice(line, &first, scores, task, warnings).map(Answer::Choice),
    }
}

/// Returns a text, or how likely one is.
fn single(line: &Document<'_>, response: &Value) -> Result<Answer, ImportError> {
    let weight = |name: &str| -> Result<Option<u32>, ImportError> {
        let Some(Value::Array(parts)) = line.get(name) else {
            return Ok(None);
        };
        let weight = parts.get(1).and_then(number);
        #[expect(clippy::cast_sign_loss, reason = "it was compared with 0")]
        let weight = weight
            .filter(|weight| *weight >= 0.0 && *weight <= f64::from(u32::MAX))
            .map(|weight| weight as u32);
        weight
            .map(Some)
            .ok_or_else(|| line.bad(name, "no pair of log-likelihood and weight"))
    };
    let words = weight(Rolling::WordPerplexity.name())?;
    let bytes = weight(Rolling::BytePerplexity.name())?;
    let bytes = match bytes {
        Some(bytes) => Some(bytes),
        None => weight(Rolling::BitsPerByte.name())?,
    };
    if words.is_some() || bytes.is_some() {
        let loglikelihood = number(response)
            .filter(|value| value.is_finite())
            .ok_or_else(|| line.bad("resps", "no log-likelihood"))?;
        return Ok(Answer::Rolling(RollingAnswer {
            loglikelihood,
            n_tokens: 0,
            n_words: words.unwrap_or_default(),
            n_bytes: bytes.unwrap_or_default(),
        }));
    }
    let text = response
        .as_str()
        .ok_or_else(|| line.bad("resps", "no text"))?;
    Ok(Answer::Generated(GeneratedAnswer {
        text: text.to_owned(),
        target: target(line),
        n_prompt_tokens: 0,
        n_tokens: 0,
        end: "unknown".to_owned(),
    }))
}

fn choice(
    line: &Document<'_>,
    responses: &[&Value],
    scores: &[ItemScore],
    task: &str,
    warnings: &mut BTreeSet<String>,
) -> Result<ChoiceAnswer, ImportError> {
    let texts: Vec<Option<String>> = (0..responses.len())
        .map(|at| {
            let arguments = line.value.get("arguments")?;
            let request = match arguments {
                Value::Object(requests) => requests.get(&format!("gen_args_{at}"))?.get("arg_1"),
                // Before 0.4.3 they were lists.
                Value::Array(requests) => requests.get(at)?.get(1),
                _ => None,
            };
            let text = request?.as_str()?;
            let text = text.strip_prefix(' ').unwrap_or(text);
            (!text.is_empty()).then(|| text.to_owned())
        })
        .collect();
    let choices: Vec<Choice> = responses
        .iter()
        .zip(&texts)
        .map(|(response, text)| {
            let pair = response.as_array()?;
            let is_greedy = match pair.get(1)? {
                Value::Bool(is_greedy) => *is_greedy,
                Value::String(text) => text == "True",
                _ => return None,
            };
            let n_chars = text.as_ref().map_or(0, |text| text.chars().count());
            Some(Choice {
                loglikelihood: number(pair.first()?).filter(|value| !value.is_nan())?,
                is_greedy,
                n_tokens: 0,
                n_chars: n_chars as u32,
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| line.bad("resps", "no pair of log-likelihood and greediness"))?;
    let predicted = arg_max(choices.iter().map(|choice| choice.loglikelihood));
    let has_norm = scores.iter().any(|score| score.metric == "acc_norm");
    let has_chars = choices.iter().all(|choice| choice.n_chars > 0);
    let predicted_norm = (has_norm && has_chars).then(|| {
        let per_char = |choice: &Choice| choice.loglikelihood / f64::from(choice.n_chars);
        arg_max(choices.iter().map(per_char))
    });
    let target = target(line);
    let by_number = target.trim().parse::<u32>().ok();
    let by_text = || {
        let wanted = target.trim();
        let mut found = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| text.as_ref().is_some_and(|text| text.trim() == wanted));
        let (at, _) = found.next()?;
        found.next().is_none().then_some(at as u32)
    };
    let n_choices = choices.len() as u32;
    let by_score = || {
        let acc = scores.iter().find(|score| score.metric == "acc")?.value?;
        if acc >= 1.0 {
            return Some(predicted);
        }
        // Of two the other one; of more nothing is known.
        (n_choices == 2).then_some(1 - predicted.min(1))
    };
    let gold = by_number
        .filter(|gold| *gold < n_choices)
        .or_else(by_text)
        .or_else(by_score);
    let gold = gold.unwrap_or_else(|| {
        warnings.insert(format!(
            "`{task}` does not always say which choice is right; margins of such items mean nothing"
        ));
        u32::from(predicted == 0 && n_choices > 1)
    });
    Ok(ChoiceAnswer {
        gold,
        choices,
        predicted,
        predicted_norm,
    })
}

/// Returns the position of the largest, the first of equals.
fn arg_max(values: impl Iterator<Item = f64>) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for (at, value) in (0..).zip(values) {
        if value > best.1 {
            best = (at, value);
        }
    }
    best.0
}

fn target(line: &Document<'_>) -> String {
    match line.value.get("target") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Returns a number, or a text that is one; Python's words for infinity are Rust's.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
