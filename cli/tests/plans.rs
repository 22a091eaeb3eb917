//! Plans that are refused before anything runs, and those in the repository, which are not.

mod support;

use support::{Lab, bundled_accuracy, bundled_models, repository};

const LATENCY: &str = "[suites.latency]\nn_prompt = [8]\nn_gen = [4]\n";

/// Runs a plan that must be refused with `code` 2, naming all `parts`, and leaving no output.
#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let lab = Lab::new();
    let plan = lab.plan("bad.toml", text);
    let said = lab.run(["run".as_ref(), plan.as_os_str()]).expect(2);
    for part in parts.iter().chain(&["bad.toml"]) {
        assert!(said.stderr.contains(part), "{part} in\n{}", said.stderr);
    }
    assert_eq!(said.stdout, "");
    assert!(!lab.path("out").exists(), "nothing must be made");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let text = format!("colour = \"blue\"\n{}{LATENCY}", bundled_models());
    refused(&text, &["colour", "line 1"]);
}

#[test]
fn an_unknown_suite_is_named() {
    let text = format!("[suites.speed]\nn_prompt = [8]\n{}", bundled_models());
    refused(&text, &["line 1", "`suites.speed`", "latency"]);
}

#[test]
fn a_missing_model_is_named_with_its_line() {
    let text = format!("[[models]]\nid = \"a\"\npath = \"absent.gguf\"\n{LATENCY}");
    refused(&text, &["absent.gguf", "line 3", "`models[0].path`"]);
}

#[test]
fn a_baseline_that_is_no_model_is_named() {
    let text = format!("{}baseline2 = 1\n{LATENCY}", bundled_models());
    refused(&text, &["baseline2"]);
}

#[test]
fn an_unknown_kernel_is_named() {
    let text = format!(
        "[defaults]\nkernels = [\"warp\"]\n{}{LATENCY}",
        bundled_models()
    );
    refused(&text, &["warp", "line 2"]);
}

#[test]
fn missing_data_is_named() {
    let text = format!(
        "{}[suites.accuracy]\ntasks = [\"boolq\"]\ndata = \"no-data\"\n",
        bundled_models()
    );
    refused(&text, &["no-data", "boolq"]);
}

#[test]
fn a_selector_that_this_machine_does_not_meet_is_refused() {
    let text = format!(
        "[[select]]\nmemory_min = \"9000 TiB\"\n{}{LATENCY}",
        bundled_models()
    );
    refused(&text, &["line 1", "`select[0]`", "selector"]);
}

#[test]
fn a_selector_that_no_machine_can_meet_is_refused() {
    let text = format!(
        "[select]\narch = \"x86_64\"\nisa = [\"neon\"]\n{}{LATENCY}",
        bundled_models()
    );
    refused(&text, &["line 3", "`select.isa[0]`", "aarch64"]);
}

#[test]
fn a_plan_without_a_model_is_refused() {
    refused(&format!("models = []\n{LATENCY}"), &["models"]);
}

#[test]
fn the_quickstart_plan_covers_every_suite_for_both_sides() {
    let lab = Lab::new();
    let plan = repository().join("plans/quickstart.toml");
    let jobs = lab
        .run(["plan".as_ref(), "--check".as_ref(), plan.as_os_str()])
        .expect(0)
        .stdout;
    for model in ["bitnet-tiny", "llama-tiny"] {
        for suite in [
            "latency",
            "memory",
            "energy",
            "accuracy winogrande",
            "agreement",
        ] {
            let is_there = jobs
                .lines()
                .any(|line| line.contains(model) && line.contains(suite));
            assert!(is_there, "{model} {suite} in\n{jobs}");
        }
    }
}

#[test]
fn every_plan_of_the_repository_is_well_formed() {
    let plans = repository().join("plans");
    let examples = std::fs::read_dir(plans.join("examples")).expect("there are examples");
    let mut n_plans = 0;
    for entry in examples.chain(std::fs::read_dir(&plans).expect("there are plans")) {
        let path = entry.expect("it can be read").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = std::fs::read_to_string(&path).expect("it is text");
            let parent = path.parent().expect("it lies in a folder");
            let plan = tritmark_coordinator::plan::Plan::parse(&text, "plan", parent)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(!plan.jobs(tritmark_proto::job::RunId::generate()).is_empty());
            n_plans += 1;
        }
    }
    assert!(n_plans >= 5, "{n_plans}");
}

#[test]
fn a_plan_can_be_checked_without_running_it() {
    let lab = Lab::new();
    let plan = lab.plan(
        "p.toml",
        &format!("{}{}", bundled_models(), bundled_accuracy(&["boolq"])),
    );
    let said = lab
        .run([
            "plan".as_ref(),
            "--check".as_ref(),
            plan.as_os_str(),
            "--json".as_ref(),
        ])
        .expect(0);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(json["name"], "p");
    assert_eq!(json["jobs"].as_array().map(Vec::len), Some(2));
}
