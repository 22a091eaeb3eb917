//! `tritmark run` from a plan to its report, on the bundled models.

mod support;

use std::{fs, path::Path};

use support::{Lab, bundle, bundled_accuracy, bundled_models, results};

/// Every suite in its shortest form.
fn small_plan() -> String {
    format!(
        r#"
name = "small"
[defaults]
threads = [1]
{}
[suites.latency]
n_prompt = [8]
n_gen = [4]
warm_ups = 1
repetitions = 3
[suites.memory]
n_prompt = [8]
n_gen = [4]
[suites.energy]
n_prompt = [8]
n_gen = [4]
idle_seconds = 0.05
window_seconds = 0.05
repetitions = 1
{}limit = 3
"#,
        bundled_models(),
        bundled_accuracy(&["arc_easy", "winogrande"]),
    )
}

/// Rows of `summary.csv` as maps from column to cell.
fn rows(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    csv::Reader::from_path(path)
        .expect("the summary can be read")
        .deserialize()
        .map(|row| row.expect("it is a row"))
        .collect()
}

#[test]
fn a_run_ends_with_its_report_and_a_row_for_everything_asked() {
    let lab = Lab::new();
    let plan = lab.plan("any-name.toml", &small_plan());
    let said = lab.run(["run".as_ref(), plan.as_os_str()]).expect(0);
    // 2 models × (latency, memory, energy, 2 tasks).
    assert!(
        said.stdout.contains("10 of 10 jobs done"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("report.html"), "{}", said.stdout);
    assert!(said.stderr.contains("[10/10]"), "{}", said.stderr);

    for name in [
        "report.html",
        "summary.csv",
        "summary.md",
        "samples.parquet",
        "bundle/run.json",
        "bundle/measurements.parquet",
        "bundle/items.parquet",
        "bundle/tokens.parquet",
        "state/store.sqlite",
    ] {
        let length = fs::metadata(lab.path(&format!("out/small/{name}"))).map(|m| m.len());
        assert!(length.is_ok_and(|n| n > 0), "{name}");
    }
    let n_charts = fs::read_dir(lab.path("out/small/charts"))
        .expect("there are charts")
        .count();
    assert!(n_charts > 0);

    let rows = rows(&lab.path("out/small/summary.csv"));
    for model in ["llama-tiny", "bitnet-tiny"] {
        for metric in [
            "load_ns",
            "prefill_tok_per_s",
            "decode_tok_per_s",
            "ttft_ns",
            "tpot_ns",
            "memory_read_bytes_per_s",
            "int8_ops_per_s",
            "f32_ops_per_s",
            "decode_read_share",
            "weight_bytes",
            "file_bytes",
            "kv_bytes",
            "peak_rss_bytes",
            "energy_estimate_j",
        ] {
            let row = rows
                .iter()
                .find(|row| row["model"] == model && row["metric"] == metric)
                .unwrap_or_else(|| panic!("{model} {metric}"));
            assert_eq!(row["status"], "ok", "{model} {metric}: {row:?}");
            let value: f64 = row["value"].parse().expect("it is a number");
            assert!(value > 0.0, "{model} {metric}: {value}");
        }
        let shares = ["prefill_int8_share", "prefill_f32_share"];
        let has = |metric: &str| {
            let mut rows = rows.iter();
            rows.any(|row| row["model"] == model && row["metric"] == metric)
        };
        let is_ternary = model == "bitnet-tiny";
        assert_eq!(shares.map(has), [is_ternary, !is_ternary], "{model}");
        for task in ["arc_easy", "winogrande"] {
            let row = rows
                .iter()
                .find(|row| row["model"] == model && row["task"] == task && row["metric"] == "acc")
                .unwrap_or_else(|| panic!("{model} {task}"));
            assert_eq!((row["n"].as_str(), row["status"].as_str()), ("3", "ok"));
        }
    }
    // Energy is counted where the machine has counters, and has a reason where it has none.
    let energy: Vec<_> = rows
        .iter()
        .filter(|row| row["metric"] == "energy_j")
        .collect();
    assert!(!energy.is_empty());
    for row in energy {
        match row["status"].as_str() {
            "ok" => assert_eq!(row["grade"], "counted"),
            "unmeasurable" => assert!(!row["reason"].is_empty() && row["value"].is_empty()),
            other => panic!("{other}"),
        }
    }

    let bundle = bundle(&lab.path("out/small/bundle"));
    assert_eq!(bundle.manifest.jobs.len(), 10);
    assert_eq!(bundle.items.len(), 2 * 2 * 3);
    assert!(!results(&bundle).is_empty());
}

#[test]
fn a_second_run_measures_anew_and_loses_nothing() {
    let lab = Lab::new();
    let plan = lab.plan(
        "twice.toml",
        &format!(
            "{}{}limit = 2\n",
            bundled_models(),
            bundled_accuracy(&["boolq"])
        ),
    );
    let run = |flag: &[&str]| {
        let args = ["run".as_ref(), plan.as_os_str()]
            .into_iter()
            .chain(flag.iter().map(AsRef::as_ref));
        lab.run(args).expect(0);
        bundle(&lab.path("out/twice/bundle"))
    };
    let first = run(&[]);
    let second = run(&[]);
    assert_ne!(first.manifest.run.id, second.manifest.run.id);
    assert_eq!(results(&first), results(&second));
    let earlier = lab.path(&format!("out/twice/earlier/{}", first.manifest.run.id));
    assert_eq!(bundle(&earlier.join("bundle")), first);
    assert!(earlier.join("report.html").is_file());

    // Of a run that has ended, nothing is left to resume.
    let third = run(&["--resume"]);
    assert_eq!(third.manifest.run.id, second.manifest.run.id);

    let report = lab.path("again");
    lab.run([
        "report".as_ref(),
        lab.path("out/twice").as_os_str(),
        "--out".as_ref(),
        report.as_os_str(),
    ])
    .expect(0);
    for name in ["report.html", "summary.csv", "summary.md"] {
        let again = fs::read(report.join(name)).expect("it was written");
        let before = fs::read(lab.path("out/twice").join(name)).expect("it was written");
        assert!(again == before, "{name} is the same whenever it is made");
    }
}

#[test]
fn a_model_that_cannot_be_loaded_fails_its_own_jobs_alone() {
    let lab = Lab::new();
    // Whole enough for the plan's check, cut off in the middle of its weights.
    let whole =
        fs::read(support::repository().join("models/bitnet-tiny.i2_s.gguf")).expect("it is there");
    fs::write(lab.path("cut.gguf"), &whole[..whole.len() / 2]).expect("it can be written");
    let plan = lab.plan(
        "mixed.toml",
        &format!(
            "{}[[models]]\nid = \"cut\"\npath = \"cut.gguf\"\n{}limit = 2\n",
            bundled_models(),
            bundled_accuracy(&["boolq"])
        ),
    );
    let said = lab
        .run(["run".as_ref(), plan.as_os_str(), "--json".as_ref()])
        .expect(5);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(json["run"]["n_succeeded"], 2);
    assert_eq!(json["run"]["n_failed"], 1);
    let bundle = bundle(&lab.path("out/mixed/bundle"));
    let failed: Vec<_> = bundle
        .manifest
        .jobs
        .iter()
        .filter_map(|job| Some((job.job.model.id.as_str(), job.failure.as_ref()?)))
        .collect();
    assert_eq!(failed.len(), 1);
    let (model, failure) = failed[0];
    assert_eq!(model, "cut");
    assert!(failure.message.contains("cut.gguf"), "{failure:?}");
    let page = fs::read_to_string(lab.path("out/mixed/report.html")).expect("it was written");
    assert!(page.contains("cut.gguf"), "the report says what failed");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let lab = Lab::new();
    let plan = lab.plan("small.toml", &small_plan());
    let first = lab.start("first.log", ["run".as_ref(), plan.as_os_str()]);
    support::wait_until(
        std::time::Duration::from_mins(1),
        "the first run holds its folder",
        || lab.path("out/small/state/store.sqlite").exists(),
    );
    let said = lab.run(["run".as_ref(), plan.as_os_str()]).expect(75);
    assert!(said.stderr.contains("another tritmark"), "{}", said.stderr);
    drop(first);
}

#[test]
fn an_interrupt_lets_the_job_in_hand_end_and_the_run_can_go_on() {
    let lab = Lab::new();
    let plan = lab.plan("small.toml", &small_plan());
    let calm = lab.path("calm");
    lab.run([
        "run".as_ref(),
        plan.as_os_str(),
        "--out".as_ref(),
        calm.as_os_str(),
    ])
    .expect(0);
    let undisturbed = bundle(&calm.join("bundle"));
    let run = lab.start("run.log", ["run".as_ref(), plan.as_os_str()]);
    let limit = std::time::Duration::from_mins(2);
    support::wait_until(limit, "a job has ended", || {
        lab.read("run.log").contains(" done in ")
    });
    let interrupted = std::process::Command::new("kill")
        .args(["-INT", &run.0.id().to_string()])
        .status()
        .expect("kill can be started");
    assert!(interrupted.success());
    let code = run.wait(limit);
    let log = lab.read("run.log");
    assert_eq!(code, Some(5), "{log}");
    assert!(log.contains("--resume"), "{log}");

    // Neither repeated nor resumed unasked.
    let said = lab.run(["run".as_ref(), plan.as_os_str()]).expect(2);
    for flag in ["--resume", "--fresh"] {
        assert!(said.stderr.contains(flag), "{}", said.stderr);
    }
    lab.run(["run".as_ref(), plan.as_os_str(), "--resume".as_ref()])
        .expect(0);
    let bundle = bundle(&lab.path("out/small/bundle"));
    let n_done = log.matches(" done in ").count();
    let n_first = bundle
        .manifest
        .jobs
        .iter()
        .filter(|job| job.attempt == 1)
        .count();
    assert!(
        n_done > 0 && n_first >= n_done,
        "what was done is not measured again"
    );
    assert_eq!(results(&bundle).len(), results(&undisturbed).len());
}
