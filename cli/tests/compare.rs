//! `compare`, `import` and `export`, from files of other programs to exit codes.

mod support;

use std::path::{Path, PathBuf};

use serde_json::json;
use support::Lab;

/// Writes the samples of a model that answers `right` of `n` questions, from the first on, and
/// imports them.
fn imported(lab: &Lab, name: &str, task: &str, n: u32, right: impl Fn(u32) -> bool) -> PathBuf {
    let folder = lab.path(&format!("{name}-files"));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let mut lines = String::new();
    for doc_id in 0..n {
        let acc = f64::from(u8::from(right(doc_id)));
        let (gold, other) = if acc > 0.5 {
            ("-1.5", "-2.5")
        } else {
            ("-2.5", "-1.5")
        };
        let line = json!({
            "doc_id": doc_id,
            "doc": {},
            "target": "0",
            "arguments": {"gen_args_0": {"arg_0": "Q", "arg_1": " a"}, "gen_args_1": {"arg_0": "Q", "arg_1": " b"}},
            "resps": [[[gold, "False"]], [[other, "False"]]],
            "filtered_resps": [[gold, "False"], [other, "False"]],
            "filter": "none",
            "metrics": ["acc"],
            "doc_hash": format!("doc-{doc_id}"),
            "prompt_hash": "p",
            "target_hash": "t",
            "acc": acc,
        });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    let samples = folder.join(format!("samples_{task}_2025-11-02T10-00-00.123456.jsonl"));
    std::fs::write(samples, lines).expect("a file can be written");
    let results = json!({"model_name": name, "n-samples": {task: {"original": n, "effective": n}}});
    let path = folder.join("results_2025-11-02T10-00-00.123456.json");
    std::fs::write(path, results.to_string()).expect("a file can be written");
    let bundle = lab.path(name);
    lab.run(["import", "lm-eval", text(&folder), "-o", text(&bundle)])
        .expect(0);
    bundle
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

#[test]
fn the_exit_code_is_the_verdict() {
    let lab = Lab::new();
    let base = imported(&lab, "base", "boolq", 400, |doc_id| doc_id < 300);
    let worse = imported(&lab, "worse", "boolq", 400, |doc_id| doc_id < 240);
    let near = imported(&lab, "near", "boolq", 400, |doc_id| doc_id < 297);
    let other = imported(&lab, "other", "arc_easy", 10, |doc_id| doc_id < 5);
    let compare = |a: &Path, b: &Path, more: &[&str]| {
        let mut args = vec!["compare", text(a), text(b)];
        args.extend(more);
        lab.run(args)
    };
    let found = compare(&base, &worse, &[]).expect(1).stdout;
    assert!(
        found.contains("B is worse than A in 1 of 1 figure."),
        "{found}"
    );
    compare(&worse, &base, &[]).expect(0);
    compare(&base, &near, &[]).expect(3);
    compare(&base, &near, &["--margin", "5"]).expect(0);
    compare(&base, &other, &[]).expect(3);
    compare(&base, &worse, &["--task", "piqa"]).expect(4);
    let named = lab.path("base#nobody");
    let refused = compare(&named, &worse, &[]).expect(2).stderr;
    assert!(refused.contains("no model `nobody`"), "{refused}");
    compare(&lab.path("nowhere"), &worse, &[]).expect(2);
    compare(&base, &worse, &["--margin", "0"]).expect(2);
}

#[test]
fn missing_items_are_an_exit_code_of_their_own() {
    let lab = Lab::new();
    let base = imported(&lab, "base", "boolq", 400, |doc_id| doc_id < 200);
    let better = imported(&lab, "better", "boolq", 400, |doc_id| doc_id < 300);
    // The run says 400 items; the table is of fewer.
    let manifest = better.join("run.json");
    let said = std::fs::read_to_string(&manifest).expect("a manifest");
    let said = said.replace("\"n_items\": 400", "\"n_items\": 500");
    std::fs::write(&manifest, said).expect("a file can be written");
    let found = lab
        .run(["compare", text(&base), text(&better)])
        .expect(5)
        .stdout;
    assert!(found.contains("B has 400 of 500 items"), "{found}");
}

#[test]
fn every_format_and_the_page_are_written() {
    let lab = Lab::new();
    let base = imported(&lab, "base", "boolq", 60, |doc_id| doc_id < 40);
    let other = imported(&lab, "other", "boolq", 60, |doc_id| doc_id % 2 == 0);
    let page = lab.path("differ.html");
    let run = |format: &str| {
        let args = ["compare", text(&base), text(&other), "--format", format];
        lab.run(args.into_iter().chain(["--html", text(&page)]))
    };
    let json = run("json");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("it is JSON");
    assert_eq!(json["rows"][0]["n"], 60);
    assert!(run("md").stdout.starts_with("# other against base"));
    assert!(run("csv").stdout.starts_with("a_run,a_model,"));
    let page = std::fs::read_to_string(page).expect("the page");
    assert!(page.contains("only A is right") && page.contains("only B is right"));
    assert!(!page.contains("<script"));
}

#[test]
fn what_is_exported_comes_back() {
    let lab = Lab::new();
    let base = imported(&lab, "base", "boolq", 30, |doc_id| doc_id < 20);
    let files = lab.path("files");
    let written = lab
        .run([
            "export",
            text(&base),
            "--format",
            "lm-eval",
            "-o",
            text(&files),
        ])
        .expect(0)
        .stdout;
    assert_eq!(written.lines().count(), 2, "{written}");
    let again = lab.path("again");
    let folder = files.join("base");
    lab.run(["import", "lm-eval", text(&folder), "-o", text(&again)])
        .expect(0);
    let found = lab
        .run(["compare", text(&base), text(&again), "--margin", "50"])
        .expect(0)
        .stdout;
    assert!(found.contains("equivalent within the margin"), "{found}");
    lab.run([
        "export",
        text(&base),
        "--format",
        "evalplus",
        "-o",
        text(&files),
    ])
    .expect(4);
    let empty = lab.path("empty");
    std::fs::create_dir(&empty).expect("a folder can be made");
    let refused = lab
        .run(["import", "evalplus", text(&empty), "-o", text(&again)])
        .expect(2)
        .stderr;
    assert!(refused.contains("eval_results.json"), "{refused}");
}

#[test]
fn a_task_of_lm_eval_becomes_a_definition_or_names_its_hook() {
    let lab = Lab::new();
    let folder = lab.path("task");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path
    };
    write(
        "base.yaml",
        "output_type: multiple_choice\ntest_split: test\n",
    );
    let task = write(
        "capitals.yaml",
        "include: base.yaml\ntask: capitals\ndataset_path: atlas/capitals\n\
         doc_to_text: \"{{country}}:\"\ndoc_to_choice: cities\ndoc_to_target: \"{{right}}\"\n\
         metric_list:\n  - metric: acc\n",
    );
    let printed = lab
        .run(["import", "lm-eval-task", text(&task)])
        .expect(0)
        .stdout;
    assert!(printed.contains("name = \"capitals\""), "{printed}");
    let toml = lab.path("capitals.toml");
    lab.run(["import", "lm-eval-task", text(&task), "-o", text(&toml)])
        .expect(0);
    let written = std::fs::read_to_string(&toml).expect("the definition");
    assert_eq!(written, printed);

    let hooked = write(
        "hooked.yaml",
        "include: base.yaml\ntask: hooked\ndataset_path: atlas/capitals\n\
         doc_to_text: !function utils.prompt\ndoc_to_choice: cities\ndoc_to_target: right\n",
    );
    let refused = lab
        .run(["import", "lm-eval-task", text(&hooked)])
        .expect(2)
        .stderr;
    assert!(refused.contains("utils.prompt"), "{refused}");
    let lost = write("lost.yaml", "include: nowhere.yaml\ntask: lost\n");
    let refused = lab
        .run(["import", "lm-eval-task", text(&lost)])
        .expect(2)
        .stderr;
    assert!(refused.contains("nowhere.yaml"), "{refused}");
}
