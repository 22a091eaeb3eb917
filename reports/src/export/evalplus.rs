//! `samples.jsonl` and `eval_results.json` of `EvalPlus` 0.3.1, one pair a task of programs.

use serde_json::{Map, Value, json};
use tritmark_proto::record::{Answer, GeneratedAnswer, Item, ItemScore};

use super::{Bundle, File, ReportError, Task, json, json_line};

/// Returns the files of a model's tasks of programs; none where it has none.
pub(super) fn files(bundle: &Bundle, tasks: &[Task<'_>]) -> Result<Vec<File>, ReportError> {
    let programs: Vec<&Task<'_>> = tasks
        .iter()
        .filter(|task| task.items.iter().any(|item| program(item).is_some()))
        .collect();
    let mut files = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for task in &programs {
        // Alone, a task has EvalPlus's own names.
        let mut prefix = match programs.as_slice() {
            [_] => String::new(),
            _ => format!("{}.", super::sanitized(&task.name)),
        };
        if names.contains(&prefix) {
            prefix = format!("{}.{prefix}", names.len());
        }
        names.push(prefix.clone());
        let mut samples = Vec::new();
        let mut eval = Map::new();
        let mut base = Vec::new();
        let mut plus = Vec::new();
        for item in &task.items {
            let Some(answer) = program(item) else {
                continue;
            };
            let of_base = item.score("pass@1", "base");
            let of_plus = item.score("pass@1", "plus");
            // What was run, where the answer was made into a program first.
            let mut scores = [of_base, of_plus].into_iter().flatten();
            let solution = scores
                .find_map(|score| score.extracted.as_ref())
                .unwrap_or(&answer.text);
            let task_id = &answer.target;
            json_line(
                &mut samples,
                &json!({"task_id": task_id, "solution": solution}),
            )?;
            base.extend(of_base.and_then(|score| score.value));
            plus.extend(of_plus.and_then(|score| score.value));
            eval.insert(
                task_id.clone(),
                json!([{
                    "task_id": task_id,
                    "solution": solution,
                    "base_status": status(of_base),
                    "plus_status": status(of_plus),
                    "base_fail_tests": [],
                    "plus_fail_tests": [],
                }]),
            );
        }
        let mut pass_at_k = Map::new();
        for (name, values) in [("base", base), ("plus", plus)] {
            if !values.is_empty() {
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                pass_at_k.insert(name.to_owned(), json!({"pass@1": mean}));
            }
        }
        let date = bundle.manifest.run.submitted_at;
        let results = json!({
            "date": date.strftime("%Y-%m-%d %H:%M").to_string(),
            "hash": task.data_hash,
            "eval": eval,
            "pass_at_k": pass_at_k,
        });
        files.push((format!("{prefix}samples.jsonl"), samples));
        files.push((format!("{prefix}eval_results.json"), json(&results)?));
    }
    Ok(files)
}

/// Returns the answer of an item that is a program, which is scored by its tests.
fn program(item: &Item) -> Option<&GeneratedAnswer> {
    let has_tests = item
        .scores
        .iter()
        .any(|score| score.metric == "pass@1" && score.filter == "base");
    match &item.answer {
        Answer::Generated(answer) if has_tests => Some(answer),
        _ => None,
    }
}

/// Returns a verdict in `EvalPlus`'s words; null where there is none, as for tests it did not run.
fn status(score: Option<&ItemScore>) -> Value {
    let Some(value) = score.and_then(|score| score.value) else {
        return Value::Null;
    };
    if value >= 1.0 {
        return "pass".into();
    }
    let reason = score.and_then(|score| score.reason.as_deref());
    match reason {
        Some(reason) if reason.starts_with("timeout") => "timeout".into(),
        _ => "fail".into(),
    }
}
