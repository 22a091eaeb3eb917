//! Files of other programs: real values come in, and damage is named.

use std::{collections::BTreeSet, fs};

use proptest::prelude::*;
use serde_json::{Value, json};
use tritmark_proto::record::Answer;

use super::*;
use crate::summary;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Two lines of ARC as lm-evaluation-harness 0.4.9 writes them, shortened.
fn arc() -> String {
    let line = |doc_id: u32, target: &str, acc: f64| {
        json!({
            "doc_id": doc_id,
            "doc": {"id": "Mercury_7175875"},
            "target": target,
            "arguments": {
                "gen_args_0": {"arg_0": "Question: \nAnswer:", "arg_1": " less"},
                "gen_args_1": {"arg_0": "Question: \nAnswer:", "arg_1": " ünder"},
            },
            "resps": [[["-7.5", "False"]], [["-6.25", "True"]]],
            "filtered_resps": [["-7.5", "False"], ["-6.25", "True"]],
            "filter": "none",
            "metrics": ["acc", "acc_norm"],
            "doc_hash": format!("d{doc_id}"),
            "prompt_hash": "p",
            "target_hash": "t",
            "acc": acc,
            "acc_norm": acc,
        })
        .to_string()
    };
    format!("{}\n\n{}\n", line(1, "0", 0.0), line(0, "ünder", 1.0))
}

const SAMPLES: &str = "samples_arc_easy_2025-11-02T10-00-00.123456.jsonl";

#[test]
fn choices_come_in_with_what_is_known() {
    let dir = folder(&[(SAMPLES, &arc())]);
    let imported = lm_eval(&[dir.path().to_owned()]).unwrap();
    assert_eq!(imported.warnings.len(), 1, "{:?}", imported.warnings);
    let items: Vec<_> = imported.bundle.items.iter().map(|row| &row.item).collect();
    assert_eq!((items[0].index, items[1].index), (0, 1));
    let Answer::Choice(answer) = &items[0].answer else {
        panic!("no choice");
    };
    // The target is a text here, and five characters long.
    assert_eq!(
        (answer.gold, answer.predicted, answer.predicted_norm),
        (1, 1, Some(1))
    );
    assert_eq!(answer.choices[1].n_chars, 5);
    assert!(answer.choices[1].is_greedy && !answer.choices[0].is_greedy);
    let rows = summary::rows(&imported.bundle);
    assert!(
        rows.iter()
            .any(|row| row.is_value_of("acc") && row.value == Some(0.5))
    );
}

#[test]
fn the_same_files_give_the_same_bundle() {
    let read = || {
        let dir = folder(&[(SAMPLES, &arc())]);
        let mut imported = lm_eval(&[dir.path().join(SAMPLES)]).unwrap();
        // Without results the model has the folder's name, which is another one each time.
        imported.bundle.manifest.jobs.clear();
        imported.bundle.manifest.run.name.clear();
        imported.bundle
    };
    assert_eq!(read(), read());
}

#[test]
fn damage_is_named_by_file_line_and_key() {
    let check = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        let text = arc();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut line: Value = serde_json::from_str(&lines[2]).unwrap();
        change(&mut line);
        lines[2] = line.to_string();
        let dir = folder(&[(SAMPLES, &lines.join("\n"))]);
        let error = chain(&lm_eval(&[dir.path().to_owned()]).unwrap_err());
        for part in [SAMPLES, "line 3"].iter().chain(parts) {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    };
    check(
        &|line| line["doc_id"] = "x".into(),
        &["`doc_id`", "no position"],
    );
    check(&|line| line["doc_id"] = 1.into(), &["filter `none` twice"]);
    check(
        &|line| line["resps"] = json!([[]]),
        &["`resps`", "without response"],
    );
    check(
        &|line| line["resps"] = json!([[["x", "True"]], [["-1", "True"]]]),
        &["`resps`"],
    );
    check(
        &|line| line["metrics"] = json!([1]),
        &["`metrics`", "no list of names"],
    );
    check(&|line| line["filter"] = json!(1), &["`filter`", "no text"]);
    check(&|line| *line = json!([1]), &["no object"]);

    let dir = folder(&[(SAMPLES, "{\"doc_id\": 0,\n")]);
    let error = chain(&lm_eval(&[dir.path().to_owned()]).unwrap_err());
    assert!(error.contains("line 1: no JSON"), "{error}");
    let dir = folder(&[]);
    let error = chain(&lm_eval(&[dir.path().to_owned()]).unwrap_err());
    assert!(error.contains("--log_samples"), "{error}");
    let error = chain(&lm_eval(&[dir.path().join("samples_x.jsonl")]).unwrap_err());
    assert!(error.contains("cannot read"), "{error}");
    let results = (
        "results_2025-11-02.json",
        "{\"n-shot\": {\"arc_easy\": \"many\"}}",
    );
    let dir = folder(&[(SAMPLES, &arc()), results]);
    let error = chain(&lm_eval(&[dir.path().to_owned()]).unwrap_err());
    assert!(
        error.contains("key `n-shot.arc_easy`: no number"),
        "{error}"
    );
}

#[test]
fn scores_that_are_no_shares_are_left_out_and_said() {
    let text = arc().replace("\"acc_norm\":0.0", "\"acc_norm\":-3.5");
    let dir = folder(&[(SAMPLES, &text)]);
    let imported = lm_eval(&[dir.path().to_owned()]).unwrap();
    let warning = "`acc_norm` of `arc_easy` is no share and left out";
    assert!(imported.warnings.iter().any(|known| known == warning));
}

/// `EvalPlus` 0.3.1's form, shortened.
const EVALPLUS: &str = r#"{"date": "2025-11-02 10:31", "hash": "fe585eb4df8c88d844eeb463ea4d0302",
  "eval": {
    "HumanEval/10": [{"task_id": "HumanEval/10", "solution": "def f():\n    return 1",
       "base_status": "pass", "plus_status": "fail", "base_fail_tests": [], "plus_fail_tests": [["a"]]}],
    "HumanEval/2": [{"task_id": "HumanEval/2", "solution": "", "base_status": "timeout",
       "plus_status": "pass", "base_fail_tests": [], "plus_fail_tests": []},
      {"task_id": "HumanEval/2", "solution": "x", "base_status": "pass", "plus_status": "pass"}]},
  "pass_at_k": {"base": {"pass@1": 0.5}}}"#;

#[test]
fn evalplus_verdicts_come_in() {
    let dir = folder(&[("bitnet_eval_results.json", EVALPLUS)]);
    let imported = evalplus(&[dir.path().to_owned()]).unwrap();
    let bundle = &imported.bundle;
    assert_eq!(bundle.manifest.jobs[0].job.model.id, "bitnet");
    assert_eq!(
        bundle.manifest.run.submitted_at.to_string(),
        "2025-11-02T10:31:00Z"
    );
    assert_eq!(imported.warnings.len(), 1, "two programs of one task");
    let scores: Vec<Vec<Option<f64>>> = bundle
        .items
        .iter()
        .map(|row| row.item.scores.iter().map(|score| score.value).collect())
        .collect();
    // In the order of their numbers; "+" asks for both.
    assert_eq!(scores, [[Some(0.0), Some(0.0)], [Some(1.0), Some(0.0)]]);
    let names: Vec<&str> = bundle
        .manifest
        .jobs
        .iter()
        .map(|outcome| outcome.job.suite.name())
        .collect();
    assert_eq!(names, ["accuracy"]);
}

#[test]
fn programs_nobody_ran_are_undecided() {
    let text = "{\"task_id\": \"Mbpp/2\", \"completion\": \"x\"}\n";
    let dir = folder(&[("samples.jsonl", text)]);
    let imported = evalplus(&[dir.path().to_owned()]).unwrap();
    let item = &imported.bundle.items[0].item;
    assert_eq!(
        (item.task.as_str(), item.scores[0].value),
        ("mbpp_plus", None)
    );
}

#[test]
fn damage_of_evalplus_is_named() {
    for (text, part) in [
        ("{}", "key `eval`: no object"),
        (r#"{"eval": {"a/1": 3}}"#, "key `eval.a/1`: no list"),
        (
            r#"{"eval": {"a/1": [{}]}}"#,
            "key `eval.a/1[0].solution`: no text",
        ),
        (
            r#"{"eval": {"a/1": [{"solution": "", "base_status": "ok"}]}}"#,
            "key `eval.a/1[0].base_status`",
        ),
        (r#"{"eval": {}}"#, "holds no programs"),
    ] {
        let dir = folder(&[("eval_results.json", text)]);
        let error = chain(&evalplus(&[dir.path().to_owned()]).unwrap_err());
        assert!(
            error.contains(part) && error.contains("eval_results.json"),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Damage is an error that says where, or harmless; it is never a panic.
    #[test]
    fn damaged_files_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        is_evalplus: bool,
    ) {
        let mut bytes = if is_evalplus { EVALPLUS.as_bytes().to_vec() } else { arc().into_bytes() };
        for (place, flip) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let name = if is_evalplus { "eval_results.json" } else { SAMPLES };
        fs::write(dir.path().join(name), bytes).unwrap();
        let paths = [dir.path().to_owned()];
        let found = if is_evalplus { evalplus(&paths) } else { lm_eval(&paths) };
        match found {
            Ok(imported) => prop_assert!(imported.bundle.items.len() <= 2),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// Any JSON in place of any value is an error or harmless.
    #[test]
    fn other_values_never_panic(
        key in prop::sample::select(vec![
            "doc_id", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
            "doc_hash", "prompt_hash", "acc", "acc_norm", "word_perplexity",
        ]),
        value in prop::sample::select(vec![
            json!(null), json!(true), json!(-1), json!(1e300), json!("x"), json!([]), json!([[]]),
            json!([["a"]]), json!([[[]], [[1, 2]]]), json!({}), json!(["acc", "word_perplexity"]),
            json!([-1.5, 3]), json!([["-inf", "True"]]), json!(4_294_967_296_u64),
        ]),
    ) {
        let text = arc();
        let mut line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        line[key] = value;
        let dir = folder(&[(SAMPLES, &line.to_string())]);
        if let Err(error) = lm_eval(&[dir.path().to_owned()]) {
            prop_assert!(error.to_string().contains(SAMPLES));
        }
    }
}

/// lm-evaluation-harness's own results of real tasks, in the form its samples have.
#[test]
fn real_results_of_lm_eval_give_lm_evals_figures() {
    let Some(data) = std::env::var_os("TRITMARK_DATA") else {
        eprintln!("skipped: TRITMARK_DATA is not set");
        return;
    };
    let path = PathBuf::from(data).join("golden/lm-eval/bitnet-tiny-packed.f32.json.gz");
    let file = fs::File::open(&path).expect("the golden file");
    let golden: Value =
        serde_json::from_reader(flate2::read::GzDecoder::new(file)).expect("the golden file");
    let mut seen = BTreeSet::new();
    for (title, task) in golden["tasks"].as_object().unwrap() {
        let name = title.split(':').next().unwrap();
        if name == "wikitext" {
            // Its words and bytes are not in the file.
            continue;
        }
        let mut lines = String::new();
        for item in task["items"].as_array().unwrap() {
            lines.push_str(&sample(item).to_string());
            lines.push('\n');
        }
        let file_name = format!("samples_{name}_2025-11-02T10-00-00.123456.jsonl");
        let results = json!({"model_name": "bitnet-tiny", "n-shot": {name: task["n_shot"]}});
        let dir = folder(&[
            (&file_name, &lines),
            (
                "results_2025-11-02T10-00-00.123456.json",
                &results.to_string(),
            ),
        ]);
        let imported = lm_eval(&[dir.path().to_owned()]).unwrap();
        assert_eq!(imported.warnings, Vec::<String>::new(), "{title}");
        let rows = summary::rows(&imported.bundle);
        for (key, value) in task["results"].as_object().unwrap() {
            let (metric, filter) = key.split_once(',').unwrap();
            let Some(expected) = value.as_f64().filter(|_| !metric.contains("_stderr")) else {
                continue;
            };
            let row = rows
                .iter()
                .find(|row| row.is_value_of(metric) && row.filter.as_deref() == Some(filter))
                .unwrap_or_else(|| panic!("{title} has no {key}"));
            assert!(
                (row.value.unwrap() - expected).abs() < 1e-12,
                "{title}, {key}"
            );
            seen.insert(format!("{title}, {key}"));
        }
        // Which choice is the likeliest, by sum and by character, is what lm-eval scored.
        for row in &imported.bundle.items {
            if let Answer::Choice(answer) = &row.item.answer {
                for score in answer.scores() {
                    let of_lm_eval = row.item.score(&score.metric, "none").unwrap();
                    assert_eq!(score.value, of_lm_eval.value, "{title} {}", row.item.index);
                }
            }
        }
    }
    assert!(seen.len() >= 17, "{seen:?}");
}

/// Returns a golden item as lm-evaluation-harness writes it.
fn sample(item: &Value) -> Value {
    let requests = item["requests"].as_array().unwrap();
    let mut sample = json!({
        "doc_id": item["doc_id"],
        "doc": {},
        "target": match &item["target"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
        "filter": item["filter"],
        "doc_hash": item["doc_hash"],
        "prompt_hash": requests[0]["context_sha256"],
    });
    let mut metrics = Vec::new();
    for metric in ["acc", "acc_norm", "exact_match"] {
        if let Some(value) = item.get(metric) {
            metrics.push(metric);
            sample[metric] = value.clone();
        }
    }
    sample["metrics"] = json!(metrics);
    let mut arguments = json!({});
    let mut responses = Vec::new();
    for (at, request) in requests.iter().enumerate() {
        arguments[format!("gen_args_{at}")] =
            json!({"arg_0": request["context"], "arg_1": request["continuation"]});
        responses.push(if let Some(response) = request.get("response") {
            json!([response])
        } else {
            let is_greedy = if request["is_greedy"] == true {
                "True"
            } else {
                "False"
            };
            let loglikelihood = format!("{:?}", request["loglikelihood"].as_f64().unwrap());
            json!([[loglikelihood, is_greedy]])
        });
    }
    sample["arguments"] = arguments;
    sample["resps"] = json!(responses);
    sample["filtered_resps"] = item
        .get("filtered_resps")
        .cloned()
        .unwrap_or(json!(responses));
    sample
}
