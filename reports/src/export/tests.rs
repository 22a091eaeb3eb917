//! What is written is what lm-evaluation-harness and `EvalPlus` write, and comes back.

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use tritmark_proto::record::{Answer, GeneratedAnswer, ItemScore, RollingAnswer};

use super::*;
use crate::{
    comparison::{self, Options, PairedBy, Verdict},
    import,
    testing::{DENSE_125M, Fixture, TERNARY_125M, machine},
};

fn scored(metric: &str, filter: &str, value: Option<f64>) -> ItemScore {
    ItemScore {
        metric: metric.to_owned(),
        filter: filter.to_owned(),
        value,
        extracted: Some("42".to_owned()),
        reason: None,
        pending: false,
    }
}

/// Choices, groups, texts, programs and perplexities of one model.
fn everything() -> Fixture {
    let mut fixture = Fixture::new("everything", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "arc_easy", 20);
    fixture.accuracy(TERNARY_125M, 0, "mmlu", 30);
    for row in &mut fixture.bundle.items {
        if row.item.task == "mmlu" {
            let group = if row.item.index % 3 == 0 {
                "law"
            } else {
                "world history"
            };
            row.item.group = Some(group.to_owned());
        }
    }
    let text = |text: &str, target: &str| {
        Answer::Generated(GeneratedAnswer {
            text: text.to_owned(),
            target: target.to_owned(),
            n_prompt_tokens: 9,
            n_tokens: 3,
            end: "stop".to_owned(),
        })
    };
    for (task, n) in [("gsm8k", 6), ("humaneval_plus", 4), ("wikitext2", 3)] {
        fixture.accuracy(TERNARY_125M, 0, task, 0);
        let job = fixture.bundle.manifest.jobs.last().unwrap().job.id.index;
        let facts = fixture.bundle.manifest.jobs[job as usize].facts.as_mut();
        facts.unwrap().n_items = Some(n);
        for index in 0..n as u32 {
            let right = f64::from(u8::from(index % 2 == 0));
            let (answer, scores) = match task {
                "gsm8k" => (
                    text("so\n#### \u{1f600} 42", "42"),
                    vec![
                        scored("exact_match", "strict-match", Some(right)),
                        scored("exact_match", "flexible-extract", Some(1.0)),
                    ],
                ),
                "humaneval_plus" => (
                    text("def f(): pass", &format!("HumanEval/{index}")),
                    vec![
                        scored("pass@1", "base", Some(1.0)),
                        scored("pass@1", "plus", (index != 3).then_some(right)),
                    ],
                ),
                _ => (
                    Answer::Rolling(RollingAnswer {
                        loglikelihood: -100.25 - f64::from(index),
                        n_tokens: 40,
                        n_words: 30 + index,
                        n_bytes: 150,
                    }),
                    vec![ItemScore::plain("word_perplexity", 0.0)],
                ),
            };
            fixture.item(job, task, index, answer, scores);
        }
    }
    fixture.accuracy_spec(2).num_fewshot = 5;
    fixture
}

fn exported(fixture: &Fixture, format: Format) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let files = export(
        &fixture.bundle,
        None,
        format,
        &Questions::default(),
        dir.path(),
    )
    .unwrap();
    (dir, files)
}

#[test]
fn the_results_have_lm_evals_keys() {
    let (dir, files) = exported(&everything(), Format::LmEval);
    let names: Vec<String> = files
        .iter()
        .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "results_2026-03-02T09-30-00.000000.json",
            "samples_arc_easy_2026-03-02T09-30-00.000000.jsonl",
            "samples_mmlu_law_2026-03-02T09-30-00.000000.jsonl",
            "samples_mmlu_world_history_2026-03-02T09-30-00.000000.jsonl",
            "samples_gsm8k_2026-03-02T09-30-00.000000.jsonl",
            "samples_humaneval_plus_2026-03-02T09-30-00.000000.jsonl",
            "samples_wikitext2_2026-03-02T09-30-00.000000.jsonl",
        ]
        .map(|name| format!("synth-125m-i2_s/{name}"))
    );
    let results: Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
    // Those of `EvalResults` in lm-eval's result_schema.py, but for the tokenizer's.
    for key in [
        "results",
        "groups",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "config",
        "git_hash",
        "date",
        "pretty_env_info",
        "transformers_version",
        "lm_eval_version",
        "upper_git_hash",
        "eot_token_id",
        "max_length",
        "task_hashes",
        "model_source",
        "model_name",
        "model_name_sanitized",
        "system_instruction",
        "system_instruction_sha",
        "fewshot_as_multiturn",
        "chat_template",
        "chat_template_sha",
        "total_evaluation_time_seconds",
    ] {
        assert!(results.get(key).is_some(), "{key}");
    }
    let gsm8k = &results["results"]["gsm8k"];
    assert_eq!(gsm8k["exact_match,strict-match"], 0.5);
    assert_eq!(gsm8k["exact_match,flexible-extract"], 1.0);
    assert_eq!(gsm8k["exact_match_stderr,flexible-extract"], 0.0);
    assert_eq!(gsm8k["sample_len"], 6);
    let wikitext = &results["results"]["wikitext2"];
    assert_eq!(wikitext["word_perplexity_stderr,none"], "N/A");
    let words: f64 = (303.75_f64 / 93.0).exp();
    assert!((wikitext["word_perplexity,none"].as_f64().unwrap() - words).abs() < 1e-9);
    assert_eq!(
        results["group_subtasks"]["mmlu"],
        serde_json::json!(["mmlu_law", "mmlu_world_history"])
    );
    assert_eq!(results["n-shot"]["gsm8k"], 5);
    assert_eq!(results["n-samples"]["mmlu_law"]["effective"], 10);
    assert_eq!(
        results["higher_is_better"]["wikitext2"]["bits_per_byte"],
        false
    );
    let whole = &results["groups"]["mmlu"];
    let parts = ["mmlu_law", "mmlu_world_history"].map(|task| {
        let part = &results["results"][task];
        part["acc,none"].as_f64().unwrap() * part["sample_len"].as_f64().unwrap()
    });
    let mean = parts.iter().sum::<f64>() / 30.0;
    assert!((whole["acc,none"].as_f64().unwrap() - mean).abs() < 1e-12);
}

#[test]
fn samples_have_lm_evals_shape() {
    let (_dir, files) = exported(&everything(), Format::LmEval);
    let first = |at: usize| -> Value {
        let text = fs::read_to_string(&files[at]).unwrap();
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    };
    let choice = first(1);
    let keys: Vec<&str> = choice
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "doc_id",
            "doc",
            "target",
            "arguments",
            "resps",
            "filtered_resps",
            "filter",
            "metrics",
            "doc_hash",
            "prompt_hash",
            "target_hash",
            "acc",
            "acc_norm"
        ]
    );
    assert_eq!(choice["resps"][0][0], serde_json::json!(["-2.0", "True"]));
    assert_eq!(choice["filtered_resps"].as_array().unwrap().len(), 4);
    assert_eq!(choice["metrics"], serde_json::json!(["acc", "acc_norm"]));
    let text = first(4);
    assert_eq!(
        text["resps"],
        serde_json::json!([["so\n#### \u{1f600} 42"]])
    );
    assert_eq!(text["filtered_resps"], serde_json::json!(["42"]));
    assert_eq!(text["filter"], "strict-match");
    let rolling = first(6);
    assert_eq!(rolling["resps"], serde_json::json!([["-100.25"]]));
    assert_eq!(rolling["word_perplexity"], serde_json::json!([-100.25, 30]));
}

#[test]
fn what_lm_eval_is_told_comes_back_and_compares_equal() {
    let fixture = everything();
    let (dir, _) = exported(&fixture, Format::LmEval);
    let imported = import::lm_eval(&[dir.path().join("synth-125m-i2_s")]).unwrap();
    assert_eq!(imported.warnings, Vec::<String>::new());
    let bundle = &imported.bundle;
    assert_eq!(bundle.items.len(), fixture.bundle.items.len());
    let key = |row: &crate::frame::ItemRow| (row.item.task.clone(), row.item.doc_hash.clone());
    let ours: BTreeMap<_, _> = fixture
        .bundle
        .items
        .iter()
        .map(|row| (key(row), row))
        .collect();
    for row in &bundle.items {
        let of_ours = &ours[&key(row)].item;
        let values = |item: &tritmark_proto::record::Item| -> Vec<_> {
            let scores = item.scores.iter();
            scores
                .map(|score| (score.filter.clone(), score.value))
                .collect::<Vec<_>>()
        };
        if !matches!(of_ours.answer, Answer::Rolling(_)) {
            assert_eq!(values(&row.item), values(of_ours));
        }
        let likely = |item: &tritmark_proto::record::Item| -> Vec<f64> {
            item.choices()
                .iter()
                .map(|choice| choice.loglikelihood)
                .collect()
        };
        assert_eq!(likely(&row.item), likely(of_ours));
        let group = of_ours.group.as_ref().map(|group| group.replace(' ', "_"));
        assert_eq!(row.item.group, group);
    }
    // A bundle like any other: it is written, read and compared.
    let folder = tempfile::tempdir().unwrap();
    bundle.write(folder.path()).unwrap();
    let read = Bundle::read(folder.path()).unwrap();
    assert_eq!(&read, bundle);
    let found =
        comparison::compare((&fixture.bundle, None), (&read, None), &Options::default()).unwrap();
    assert_eq!(found.only_a, Vec::<String>::new());
    assert_eq!(found.rows.len(), 10);
    for row in &found.rows {
        assert!(row.difference.abs() < 1e-12, "{}", row.label);
        assert_eq!((row.a_better, row.b_better), (0, 0), "{}", row.label);
        assert_eq!((row.n_only_a, row.n_only_b), (0, 0), "{}", row.label);
        assert_eq!(row.paired_by, PairedBy::DocHash);
        assert!(row.verdict != Verdict::Worse && row.verdict != Verdict::Better);
    }
}

#[test]
fn a_task_asked_in_two_ways_has_two_results() {
    let mut fixture = Fixture::new("shots", vec![machine("m")]);
    fixture.accuracy(DENSE_125M, 0, "boolq", 10);
    fixture.accuracy(DENSE_125M, 0, "boolq", 10);
    fixture.accuracy_spec(1).num_fewshot = 5;
    let (dir, files) = exported(&fixture, Format::LmEval);
    assert_eq!(files.len(), 4);
    let error = import::lm_eval(&[dir.path().to_owned()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("several runs"), "{error}");
    let one: Vec<PathBuf> = files
        .iter()
        .filter(|path| path.to_string_lossy().contains("09-30-01"))
        .cloned()
        .collect();
    let imported = import::lm_eval(&one).unwrap();
    assert_eq!(imported.bundle.items.len(), 10);
}

#[test]
fn programs_go_to_evalplus_and_back() {
    let fixture = everything();
    let (dir, files) = exported(&fixture, Format::EvalPlus);
    assert_eq!(files.len(), 2);
    let samples = fs::read_to_string(&files[0]).unwrap();
    let first: Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        serde_json::json!({"task_id": "HumanEval/0", "solution": "42"})
    );
    let results: Value = serde_json::from_slice(&fs::read(&files[1]).unwrap()).unwrap();
    let of = |id: &str| &results["eval"][id][0];
    assert_eq!(of("HumanEval/0")["plus_status"], "pass");
    assert_eq!(of("HumanEval/1")["plus_status"], "fail");
    assert_eq!(of("HumanEval/3")["plus_status"], Value::Null);
    assert_eq!(results["pass_at_k"]["base"]["pass@1"], 1.0);
    assert_eq!(results["date"], "2026-03-02 09:30");

    let imported = import::evalplus(&[dir.path().to_owned()]).unwrap();
    let found = comparison::compare(
        (&fixture.bundle, None),
        (&imported.bundle, None),
        &Options::default(),
    )
    .unwrap();
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| {
            (
                row.filter.as_str(),
                row.n,
                row.n_undecided,
                row.difference,
                row.paired_by,
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("base", 4, 0, 0.0, PairedBy::Program),
            ("plus", 3, 1, 0.0, PairedBy::Program)
        ]
    );
}

#[test]
fn a_run_without_programs_is_nothing_for_evalplus() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Fixture::one_pair().bundle;
    let error = export(
        &bundle,
        Some(DENSE_125M.id),
        Format::EvalPlus,
        &Questions::default(),
        dir.path(),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("no items of programs"),
        "{error}"
    );
    let error = export(
        &bundle,
        Some("x"),
        Format::LmEval,
        &Questions::default(),
        dir.path(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("no model `x`"), "{error}");
}

#[test]
fn names_stay_in_their_folder() {
    assert_eq!(
        sanitized("microsoft/bitnet: b1.58"),
        "microsoft__bitnet__ b1.58"
    );
    assert_eq!(sanitized("../../etc"), "..__..__etc");
    assert_eq!(sanitized(".."), "_..");
}
