//! `results_<time>.json` and `samples_<task>_<time>.jsonl` of lm-evaluation-harness 0.4, as its
//! `EvaluationTracker` writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tritmark_proto::{
    bundle::JobOutcome,
    job::SuiteSpec,
    record::{Answer, Item, NO_FILTER},
};

use super::{Asked, Bundle, File, Questions, ReportError, Task, json_line, sanitized};
use crate::{
    score::{self, Figure, Rolling},
    stats::{self, Likelihood},
};

/// A task under the name lm-evaluation-harness gives it.
struct Named<'a> {
    name: String,
    task: &'a Task<'a>,
    /// In order, each with its position in that task.
    items: Vec<&'a Item>,
    /// Name of the whole it is a part of.
    group: Option<&'a str>,
}

/// Returns the files of a model. Tasks asked in several ways come in sets: one result of a name a
/// file.
pub(super) fn files(
    bundle: &Bundle,
    model: &str,
    tasks: &[Task<'_>],
    questions: &Questions,
) -> Result<Vec<File>, ReportError> {
    let mut sets: Vec<Vec<&Task<'_>>> = Vec::new();
    for task in tasks {
        let free = sets
            .iter_mut()
            .find(|set| set.iter().all(|known| known.name != task.name));
        match free {
            Some(set) => set.push(task),
            None => sets.push(vec![task]),
        }
    }
    let mut files = Vec::new();
    for (at, set) in (0_i64..).zip(&sets) {
        let start = bundle.manifest.run.submitted_at;
        // A second apart, so that names differ.
        let start = start
            .checked_add(jiff::SignedDuration::from_secs(at))
            .unwrap_or(start);
        let stamp = start.strftime("%Y-%m-%dT%H-%M-%S.%6f").to_string();
        let named: Vec<Named<'_>> = set.iter().flat_map(|task| parts(task)).collect();
        let mut hashes = Map::new();
        for part in &named {
            let mut lines = Vec::new();
            let mut joined = String::new();
            for (doc_id, item) in part.items.iter().enumerate() {
                let doc_id = if part.group.is_some() {
                    doc_id
                } else {
                    item.index as usize
                };
                for sample in samples(doc_id, item, questions) {
                    for key in ["doc_hash", "prompt_hash", "target_hash"] {
                        joined.push_str(sample[key].as_str().unwrap_or_default());
                    }
                    json_line(&mut lines, &sample)?;
                }
            }
            hashes.insert(part.name.clone(), sha256(&joined).into());
            let name = format!("samples_{}_{stamp}.jsonl", sanitized(&part.name));
            files.push((name, lines));
        }
        let results = results(bundle, model, &named, &hashes);
        files.insert(0, (format!("results_{stamp}.json"), super::json(&results)?));
    }
    Ok(files)
}

/// Cuts a task with groups into the tasks lm-evaluation-harness has for them.
fn parts<'a>(task: &'a Task<'a>) -> Vec<Named<'a>> {
    let mut groups: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    let mut plain = Vec::new();
    for item in &task.items {
        match &item.group {
            Some(group) => groups.entry(group).or_default().push(item),
            None => plain.push(*item),
        }
    }
    let mut parts = Vec::new();
    if !plain.is_empty() {
        parts.push(Named {
            name: task.name.clone(),
            task,
            items: plain,
            group: None,
        });
    }
    parts.extend(groups.into_iter().map(|(group, items)| Named {
        name: format!("{}_{}", task.name, group.replace(char::is_whitespace, "_")),
        task,
        items,
        group: Some(&task.name),
    }));
    parts
}

/// Returns an item's lines, one a filter.
fn samples(doc_id: usize, item: &Item, questions: &Questions) -> Vec<Value> {
    let mut filters: Vec<&str> = Vec::new();
    for figure in &item.scores {
        if !filters.contains(&figure.filter.as_str()) {
            filters.push(&figure.filter);
        }
    }
    let requests = match &item.answer {
        Answer::Choice(answer) => answer.choices.len(),
        Answer::Generated(_) | Answer::Rolling(_) => 1,
    };
    let target = match &item.answer {
        Answer::Choice(answer) => answer.gold.to_string(),
        Answer::Generated(answer) => answer.target.clone(),
        Answer::Rolling(_) => String::new(),
    };
    // A bundle knows what was asked by its hash alone.
    let asked = questions.get(&item.prompt_hash);
    let arguments: Map<String, Value> = (0..requests)
        .map(|at| {
            let request = asked.and_then(|asked| asked.requests.get(at));
            let (context, answer) = request.map_or(("", ""), |(a, b)| (a.as_str(), b.as_str()));
            let request = match &item.answer {
                Answer::Choice(_) => json!({"arg_0": context, "arg_1": answer}),
                Answer::Generated(_) => {
                    let how = asked.map_or(json!({}), |asked| asked.generation.clone());
                    json!({"arg_0": context, "arg_1": how})
                }
                Answer::Rolling(_) => json!({"arg_0": context}),
            };
            (format!("gen_args_{at}"), request)
        })
        .collect();
    let likely: Vec<Value> = item
        .choices()
        .iter()
        .map(|choice| json!([python(choice.loglikelihood), python_bool(choice.is_greedy)]))
        .collect();
    let resps = match &item.answer {
        Answer::Choice(_) => likely.iter().map(|pair| json!([pair])).collect(),
        Answer::Generated(answer) => json!([[answer.text]]),
        Answer::Rolling(answer) => json!([[python(answer.loglikelihood)]]),
    };
    filters
        .into_iter()
        .map(|filter| {
            let scores: Vec<_> = item
                .scores
                .iter()
                .filter(|score| score.filter == filter)
                .collect();
            let filtered = match &item.answer {
                Answer::Choice(_) => Value::from(likely.clone()),
                Answer::Generated(answer) => {
                    let extracted = scores.iter().find_map(|score| score.extracted.as_ref());
                    json!([extracted.unwrap_or(&answer.text)])
                }
                Answer::Rolling(answer) => json!([python(answer.loglikelihood)]),
            };
            let mut values: Vec<(String, Value)> = Vec::new();
            match score::likelihood(item) {
                Some(likelihood) if filter == NO_FILTER => {
                    for rolling in Rolling::ALL {
                        let weight = match rolling {
                            Rolling::WordPerplexity => likelihood.words,
                            Rolling::BytePerplexity | Rolling::BitsPerByte => likelihood.bytes,
                        };
                        let value = json!([likelihood.loglikelihood, weight]);
                        values.push((rolling.name().to_owned(), value));
                    }
                }
                _ => values.extend(
                    scores
                        .iter()
                        .map(|score| (score.metric.clone(), score.value.into())),
                ),
            }
            let metrics: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
            let mut sample = json!({
                "doc_id": doc_id,
                "doc": asked.map_or(json!({}), |asked| asked.document.clone()),
                "target": target,
                "arguments": arguments,
                "resps": resps,
                "filtered_resps": filtered,
                "filter": filter,
                "metrics": metrics,
                "doc_hash": asked.map_or_else(|| item.doc_hash.clone(), Asked::doc_hash),
                "prompt_hash": asked.map_or_else(|| item.prompt_hash.clone(), Asked::prompt_hash),
                "target_hash": sha256(&target),
            });
            for (name, value) in values {
                sample[name] = value;
            }
            sample
        })
        .collect()
}

#[expect(clippy::too_many_lines, reason = "a line for each key")]
fn results(
    bundle: &Bundle,
    model: &str,
    named: &[Named<'_>],
    task_hashes: &Map<String, Value>,
) -> Value {
    let mut results = Map::new();
    let mut groups = Map::new();
    let mut group_subtasks = Map::new();
    let mut configs = Map::new();
    let mut versions = Map::new();
    let mut n_shot = Map::new();
    let mut higher_is_better = Map::new();
    let mut n_samples = Map::new();
    for part in named {
        let (name, task) = (&part.name, part.task);
        results.insert(name.clone(), figures(name, &part.items, false));
        configs.insert(
            name.clone(),
            json!({"task": name, "num_fewshot": task.num_fewshot, "metadata": {}}),
        );
        versions.insert(name.clone(), Value::Null);
        n_shot.insert(name.clone(), task.num_fewshot.into());
        higher_is_better.insert(name.clone(), directions(&part.items));
        let n = part.items.len() as u64;
        let original = task
            .n_expected
            .filter(|_| part.group.is_none())
            .unwrap_or(n);
        n_samples.insert(name.clone(), json!({"original": original, "effective": n}));
        if let Some(group) = part.group {
            let subtasks = group_subtasks.entry(group).or_insert_with(|| json!([]));
            if let Value::Array(subtasks) = subtasks {
                subtasks.push(name.as_str().into());
            }
            if !groups.contains_key(group) {
                let whole = figures(group, &task.items, true);
                results.insert(group.to_owned(), whole.clone());
                groups.insert(group.to_owned(), whole);
                versions.insert(group.to_owned(), Value::Null);
                n_shot.insert(group.to_owned(), task.num_fewshot.into());
                higher_is_better.insert(group.to_owned(), directions(&task.items));
            }
        }
    }
    let run = &bundle.manifest.run;
    let jobs: Vec<&JobOutcome> = bundle
        .manifest
        .jobs
        .iter()
        .filter(|outcome| outcome.job.model.id == model)
        .collect();
    let facts = jobs.iter().find_map(|outcome| outcome.facts.as_ref());
    let spec = jobs.iter().find_map(|outcome| match &outcome.job.suite {
        SuiteSpec::Accuracy(spec) => Some(spec),
        _ => None,
    });
    let chat = spec.and_then(|spec| spec.chat.as_ref());
    let system = chat.and_then(|chat| chat.system.clone());
    let seconds: f64 = jobs
        .iter()
        .filter(|outcome| matches!(outcome.job.suite, SuiteSpec::Accuracy(_)))
        .filter_map(|outcome| outcome.started_at.zip(outcome.ended_at))
        .map(|(start, end)| end.duration_since(start).as_secs_f64())
        .sum();
    let machines: Vec<String> = bundle
        .manifest
        .machines
        .iter()
        .map(|machine| {
            format!(
                "{} ({}, {})",
                machine.hostname, machine.cpu_model, machine.os
            )
        })
        .collect();
    let mut whole = json!({
        "results": results,
        "group_subtasks": group_subtasks,
        "configs": configs,
        "versions": versions,
        "n-shot": n_shot,
        "higher_is_better": higher_is_better,
        "n-samples": n_samples,
        "config": {
            "model": "tritmark",
            "model_args": format!("pretrained={model}"),
            "model_num_parameters": facts.map(|facts| facts.n_params),
            "model_dtype": facts.map(|facts| facts.weight_format.clone()),
            "model_revision": "",
            "model_sha": facts.map_or("", |facts| &facts.weights_hash),
            "batch_size": spec.and_then(|spec| spec.batch).map_or(1, std::num::NonZeroU32::get).to_string(),
            "batch_sizes": [],
            "device": "cpu",
            "use_cache": null,
            "limit": spec.and_then(|spec| spec.limit),
            "bootstrap_iters": 0,
            "gen_kwargs": null,
            "random_seed": null,
            "numpy_seed": null,
            "torch_seed": null,
            "fewshot_seed": 1234,
        },
        "git_hash": null,
        "date": run.submitted_at.as_second(),
        "pretty_env_info": format!("Tritmark {} on {}", run.tritmark_version, machines.join(", ")),
        "transformers_version": "N/A",
        "lm_eval_version": format!("tritmark {}", run.tritmark_version),
        "upper_git_hash": null,
        "eot_token_id": null,
        "max_length": null,
        "task_hashes": task_hashes,
        "model_source": "tritmark",
        "model_name": model,
        "model_name_sanitized": sanitized(model),
        "system_instruction": system,
        "system_instruction_sha": system.as_deref().map(sha256),
        "fewshot_as_multiturn": chat.is_some_and(|chat| chat.fewshot_as_multiturn),
        // The template itself is the model's, and stays with it.
        "chat_template": chat.map(|_| ""),
        "chat_template_sha": null,
        "total_evaluation_time_seconds": python(seconds),
    });
    if !groups.is_empty() {
        whole["groups"] = groups.into();
    }
    whole
}

/// Returns the figures of a task or a group in order of appearance.
fn all_figures(items: &[&Item]) -> Vec<Figure> {
    let mut figures: Vec<Figure> = Vec::new();
    for item in items {
        for figure in Figure::all_of(item) {
            if !figures.contains(&figure) {
                figures.push(figure);
            }
        }
    }
    figures
}

fn directions(items: &[&Item]) -> Value {
    all_figures(items)
        .iter()
        .map(|figure| (figure.metric().to_owned(), figure.higher_is_better().into()))
        .collect::<Map<String, Value>>()
        .into()
}

fn figures(name: &str, items: &[&Item], is_group: bool) -> Value {
    let mut result = Map::new();
    result.insert("name".to_owned(), name.into());
    result.insert("alias".to_owned(), name.into());
    result.insert("sample_len".to_owned(), items.len().into());
    let mut counts = Map::new();
    for figure in all_figures(items) {
        let (metric, filter) = (figure.metric(), figure.filter());
        let (value, stderr) = match &figure {
            Figure::Rolling(rolling) => {
                let sum = items
                    .iter()
                    .filter_map(|item| score::likelihood(item))
                    .fold(Likelihood::default(), std::ops::Add::add);
                (rolling.of(sum), None)
            }
            Figure::Score { .. } => {
                let values = |items: &[&Item]| -> Vec<f64> {
                    items.iter().filter_map(|item| figure.value(item)).collect()
                };
                let all = values(items);
                let mut stderr = stats::standard_error(&all);
                if is_group {
                    let mut groups: BTreeMap<Option<&str>, Vec<&Item>> = BTreeMap::new();
                    for item in items {
                        groups.entry(item.group.as_deref()).or_default().push(item);
                    }
                    let parts: Vec<(Option<f64>, usize)> = groups
                        .values()
                        .map(|items| values(items))
                        .map(|values| (stats::standard_error(&values), values.len()))
                        .collect();
                    stderr = stats::pooled_stderr(&parts).or(stderr);
                }
                counts.insert(format!("{metric},{filter}"), all.len().into());
                let mean = (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
                (mean, stderr)
            }
        };
        result.insert(format!("{metric},{filter}"), value.into());
        let stderr = stderr.map_or_else(|| Value::from("N/A"), Value::from);
        result.insert(format!("{metric}_stderr,{filter}"), stderr);
    }
    if is_group {
        result.insert("sample_count".to_owned(), counts.into());
    }
    result.into()
}

pub(super) fn sha256(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Returns a number as Python's `str` has it.
pub(super) fn python(value: f64) -> String {
    let text = format!("{value:?}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return half_to_even(value, &text).unwrap_or_else(|| text.replace("NaN", "nan"));
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Returns the shortest digits of a number that lies halfway between two such, as Python rounds
/// them; `None` of any other. Numbers that were f32 once often do.
fn half_to_even(value: f64, shortest: &str) -> Option<String> {
    let (_, fraction) = shortest.split_once('.')?;
    // Every digit: a number of this size has fewer.
    let exact = format!("{value:.80}");
    let kept = exact.find('.')? + 1 + fraction.len();
    let rest = exact.get(kept..)?.strip_prefix('5')?;
    let is_tie = rest.bytes().all(|digit| digit == b'0');
    let even = exact.get(..kept)?;
    let last = even.bytes().last()?;
    (is_tie && last.is_ascii_digit() && last % 2 == 0 && even.parse() == Ok(value))
        .then(|| even.to_owned())
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        // Python 3: str() of each.
        for (value, text) in [
            (-72.135_650_634_765_62, "-72.13565063476562"),
            (-0.00001, "-1e-05"),
            (0.0001, "0.0001"),
            (1.5e16, "1.5e+16"),
            (1e15, "1000000000000000.0"),
            (3.0, "3.0"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (1e-300, "1e-300"),
        ] {
            assert_eq!(python(value), text);
        }
    }

    #[test]
    fn hashes_are_hexadecimal_sha256() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256("abc"), expected);
    }
}
