//! `EvalPlus`'s `eval_results.json`, and its `samples.jsonl` where nothing was scored.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tritmark_proto::record::{Answer, GeneratedAnswer, Item, ItemScore};

use super::{
    Document, ImportError, Imported, files, read,
    run::{ForeignModel, ForeignTask, bundle},
};

/// A program and its verdicts.
struct Program {
    solution: String,
    base: Option<f64>,
    plus: Option<f64>,
    base_reason: Option<String>,
    plus_reason: Option<String>,
}

/// Imports `EvalPlus`'s results of one model: a folder with `eval_results.json` or the file itself,
/// or `samples.jsonl` alone, whose programs then are undecided.
///
/// # Errors
///
/// Fails where a file cannot be read or holds something else.
pub fn evalplus(paths: &[PathBuf]) -> Result<Imported, ImportError> {
    let files = files(paths)?;
    let of = |ending: &str| -> Vec<PathBuf> {
        let name = |path: &PathBuf| path.to_string_lossy().into_owned();
        let found = files.iter().filter(|path| name(path).ends_with(ending));
        found.cloned().collect()
    };
    let results = of("eval_results.json");
    let samples: Vec<PathBuf> = of(".jsonl");
    let mut digest = Sha256::new();
    let mut warnings = Vec::new();
    let mut programs: BTreeMap<(String, u64, String), Program> = BTreeMap::new();
    let mut at = Timestamp::UNIX_EPOCH;
    let mut hash = None;
    let source = results.first().or(samples.first()).cloned();
    let Some(source) = source else {
        return Err(ImportError::Files {
            what: "there is neither an `eval_results.json` nor a `samples.jsonl`".to_owned(),
        });
    };
    if results.is_empty() {
        for path in &samples {
            let bytes = read(path)?;
            digest.update(&bytes);
            for line in Document::lines(path, &bytes) {
                let line = line?;
                let id = line.required_text("task_id")?;
                let solution = match line.text("solution")? {
                    Some(solution) => solution,
                    None => line.required_text("completion")?,
                };
                let program = Program {
                    solution: solution.to_owned(),
                    base: None,
                    plus: None,
                    base_reason: Some("EvalPlus has not run it".to_owned()),
                    plus_reason: Some("EvalPlus has not run it".to_owned()),
                };
                keep_first(&mut programs, &mut warnings, id, program);
            }
        }
    }
    for path in &results {
        let bytes = read(path)?;
        digest.update(&bytes);
        let document = Document::whole(path, &bytes)?;
        if let Some(date) = document.text("date")? {
            at = moment(date).unwrap_or(at);
        }
        hash = document.text("hash")?.map(str::to_owned).or(hash);
        let Some(eval) = document.get("eval").and_then(Value::as_object) else {
            return Err(document.bad("eval", "no object"));
        };
        for (id, answers) in eval {
            let key = format!("eval.{id}");
            let Some(answers) = answers.as_array() else {
                return Err(document.bad(key, "no list"));
            };
            for (position, answer) in answers.iter().enumerate() {
                let key = format!("{key}[{position}]");
                let program = scored(&document, &key, answer)?;
                keep_first(&mut programs, &mut warnings, id, program);
            }
        }
    }
    if programs.is_empty() {
        return Err(ImportError::Files {
            what: format!("`{}` holds no programs", source.display()),
        });
    }
    let mut tasks: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for ((set, _, id), program) in programs {
        let items = tasks.entry(set.clone()).or_default();
        items.push(item(&set, items.len() as u32, &id, program));
    }
    let model = ForeignModel {
        id: name_of(&source),
        weights_hash: String::new(),
        dtype: "unknown".to_owned(),
        n_params: 0,
    };
    let tasks = tasks
        .into_iter()
        .map(|(name, items)| ForeignTask {
            name,
            num_fewshot: 0,
            chat: None,
            limit: None,
            n_items: items.len() as u64,
            items,
            data_hash: hash.clone(),
        })
        .collect();
    Ok(Imported {
        bundle: bundle("EvalPlus", at, &model, tasks, digest),
        warnings,
    })
}

/// Keeps the first answer to a task: later ones are further tries, and pass@1 is of one.
fn keep_first(
    programs: &mut BTreeMap<(String, u64, String), Program>,
    warnings: &mut Vec<String>,
    id: &str,
    program: Program,
) {
    let key = key(id);
    if let std::collections::btree_map::Entry::Vacant(entry) = programs.entry(key) {
        entry.insert(program);
    } else {
        warnings.push(format!("`{id}` has several programs; the first counts"));
    }
}

/// Returns task, number and name of a program: `HumanEval/32`, `Mbpp/2`.
fn key(id: &str) -> (String, u64, String) {
    let (set, number) = id.rsplit_once('/').unwrap_or((id, ""));
    let task = match set {
        "HumanEval" => "humaneval_plus".to_owned(),
        "Mbpp" => "mbpp_plus".to_owned(),
        other => other.to_lowercase(),
    };
    (task, number.parse().unwrap_or(u64::MAX), id.to_owned())
}

fn scored(document: &Document<'_>, key: &str, answer: &Value) -> Result<Program, ImportError> {
    let solution = match answer.get("solution").map(Value::as_str) {
        Some(Some(solution)) => solution.to_owned(),
        _ => return Err(document.bad(format!("{key}.solution"), "no text")),
    };
    let status = |name: &str| -> Result<Option<&str>, ImportError> {
        match answer.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(status))
                if ["pass", "fail", "timeout"].contains(&status.as_str()) =>
            {
                Ok(Some(status))
            }
            Some(_) => Err(document.bad(
                format!("{key}.{name}"),
                "none of `pass`, `fail`, `timeout`, null",
            )),
        }
    };
    let base = status("base_status")?;
    let plus = status("plus_status")?;
    let is = |passed: bool| f64::from(u8::from(passed));
    let reason = |status: Option<&str>| match status {
        Some("pass") => None,
        Some(status) => Some(status.to_owned()),
        None => Some("EvalPlus has not run these tests".to_owned()),
    };
    Ok(Program {
        solution,
        base: base.map(|status| is(status == "pass")),
        // EvalPlus's "+" asks for both.
        plus: plus
            .zip(base)
            .map(|(plus, base)| is(plus == "pass" && base == "pass")),
        base_reason: reason(base),
        plus_reason: reason(plus),
    })
}

fn item(task: &str, index: u32, id: &str, program: Program) -> Item {
    let score = |filter: &str, value, reason| ItemScore {
        metric: "pass@1".to_owned(),
        filter: filter.to_owned(),
        value,
        extracted: None,
        reason,
        pending: false,
    };
    Item {
        task: task.to_owned(),
        group: None,
        index,
        doc_hash: format!("evalplus:{id}"),
        prompt_hash: String::new(),
        answer: Answer::Generated(GeneratedAnswer {
            text: program.solution,
            target: id.to_owned(),
            n_prompt_tokens: 0,
            n_tokens: 0,
            end: "unknown".to_owned(),
        }),
        scores: vec![
            score("base", program.base, program.base_reason),
            score("plus", program.plus, program.plus_reason),
        ],
        elapsed_ns: None,
        energy: Vec::new(),
        from_cache: None,
        scored_on: None,
    }
}

/// Reads `EvalPlus`'s `%Y-%m-%d %H:%M`, which says nothing of its zone.
fn moment(date: &str) -> Option<Timestamp> {
    let civil = DateTime::strptime("%Y-%m-%d %H:%M", date).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Names the model after its folder, or its file.
fn name_of(path: &std::path::Path) -> String {
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let is_plain = ["eval_results", "samples"].contains(&stem.as_str());
    let folder = path.parent().and_then(|parent| parent.file_name());
    match folder {
        Some(folder) if is_plain => folder.to_string_lossy().into_owned(),
        _ => stem
            .trim_end_matches("eval_results")
            .trim_end_matches(['.', '_'])
            .to_owned(),
    }
}
