//! Models and data that only the submitter has, measured by an agent that has neither.

mod support;

use std::{fs, path::Path, time::Duration};

use tritmark_reports::bundle::Bundle;

use support::{Lab, bundle, coordinator_up, repository, results, wait_until, write_adapter};

const LIMIT: Duration = Duration::from_mins(2);

/// Of the bundled ternary model.
const HIDDEN_SIZE: usize = 256;

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder can be made");
        for entry in fs::read_dir(from).expect("it can be read").flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a file can be copied");
    }
}

/// A folder of this lab with models, data and a plan that names them by relative paths.
fn workplace(lab: &Lab) {
    let here = lab.path("here");
    let from = repository();
    copy(&from.join("models"), &here.join("models"));
    copy(&from.join("data/mini"), &here.join("mini"));
    write_adapter(&here.join("lora"), HIDDEN_SIZE, 0.05);
    let plan = r#"
[[models]]
id = "llama-tiny"
path = "models/llama-tiny"

[[models]]
id = "bitnet-tiny"
path = "models/bitnet-tiny.i2_s.gguf"
baseline = "llama-tiny"

[[models]]
id = "bitnet-lora"
path = "models/bitnet-tiny.i2_s.gguf"
lora = "lora"
baseline = "llama-tiny"

[suites.accuracy]
tasks = ["boolq", "arc_easy"]
data = "mini"
limit = 3

[suites.agreement]
n_prompts = 1
max_len = 4
n_gen = 1
threads = [1]
n_batch = [3]
models = ["bitnet-lora"]
"#;
    fs::write(here.join("plan.toml"), plan).expect("a file can be written");
}

fn submitted(lab: &Lab, url: &str, more: &[&str]) -> String {
    let args = ["submit", "here/plan.toml", "--coordinator", url];
    lab.run(args.iter().chain(more))
        .expect(0)
        .stdout
        .trim()
        .to_owned()
}

/// Starts an agent that can see nothing of the workplace, and waits for the run.
fn measured(lab: &Lab, url: &str, run: &str, state: &str) {
    let args = ["agent", "up", "--coordinator", url, "--state", state];
    let _agent = lab.start(&format!("{state}.log"), args);
    let watched = lab.run(["watch", run, "--coordinator", url]);
    let said = format!("{}\n{}", watched.stdout, lab.read(&format!("{state}.log")));
    assert_eq!(watched.code, Some(0), "{said}");
    assert!(watched.stdout.contains("7 of 7 jobs done"), "{said}");
}

/// Checks that the adapted model is told from its base, and agrees with itself on every kernel.
fn check_adapter(bundle: &Bundle) {
    let facts = |id: &str| {
        let jobs = bundle.manifest.jobs.iter();
        let mut jobs = jobs.filter(|job| job.job.model.id == id);
        let job = jobs.next().expect("the model is in the plan");
        job.facts.as_ref().expect("it has run")
    };
    let (base, adapted) = (facts("bitnet-tiny"), facts("bitnet-lora"));
    assert_eq!(base.weight_format, "i2_s");
    assert_eq!(
        adapted.weight_format,
        "i2_s, LoRA of rank 2 beside 1 linears"
    );
    assert_ne!(adapted.weights_hash, base.weights_hash);
    assert_ne!(adapted.logits_fingerprint, base.logits_fingerprint);
    let cells = &bundle.cells;
    assert!(
        !cells.is_empty() && cells.iter().all(|row| row.cell.agrees()),
        "{cells:?}"
    );
}

#[test]
fn an_agent_measures_what_only_the_submitter_has() {
    let lab = Lab::new();
    workplace(&lab);
    // What it is to be measured as: by one process that reads the files where they are.
    lab.run(["run", "here/plan.toml", "--out", "direct"])
        .expect(0);
    let direct = bundle(&lab.path("direct/bundle"));
    assert!(
        !lab.path("direct/state/agent/files/blobs").exists()
            || fs::read_dir(lab.path("direct/state/agent/files/blobs"))
                .expect("it can be read")
                .count()
                == 0,
        "nothing is copied where the agent sees the files"
    );

    let (_coordinator, url) = coordinator_up(&lab, &lab.path("state"), "127.0.0.1:0");
    let run = submitted(&lab, &url, &["--upload"]);
    // Nothing is sent twice.
    let again = lab
        .run([
            "submit",
            "here/plan.toml",
            "--upload",
            "--coordinator",
            &url,
        ])
        .expect(0);
    assert!(!again.stderr.contains("sending"), "{}", again.stderr);
    lab.run(["cancel", again.stdout.trim(), "--coordinator", &url])
        .expect(0);
    fs::rename(lab.path("here"), lab.path("gone")).expect("it can be moved");

    measured(&lab, &url, &run, "agent");
    let fetched = ["report", &run, "--out", "fetched", "--coordinator", &url];
    lab.run(fetched).expect(0);
    let remote = bundle(&lab.path("fetched/bundle"));
    assert_eq!(results(&remote), results(&direct));
    let facts = |bundle: &Bundle| {
        let jobs = bundle.manifest.jobs.iter();
        let facts = jobs.map(|job| job.facts.clone().expect("each has run"));
        facts
            .map(|facts| {
                (
                    facts.weights_hash,
                    facts.data_hash,
                    facts.logits_fingerprint,
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(facts(&remote), facts(&direct));
    check_adapter(&direct);
    let said = fs::read_to_string(lab.path("fetched/bundle/run.json")).expect("it is there");
    let jobs = said.split_once("\"jobs\"").expect("it has jobs").1;
    assert!(
        !jobs.contains("/here/"),
        "no path of the submitter's is in a job"
    );

    // The run has ended: its bundle is among the objects, and what is had from there is the same.
    let kept = lab.path("state/objects/runs").join(format!("{run}.json"));
    wait_until(LIMIT, "the bundle is kept", || kept.exists());
    lab.run(["report", &run, "--out", "once-more", "--coordinator", &url])
        .expect(0);
    for name in tritmark_proto::bundle::FILES {
        let read = |out: &str| fs::read(lab.path(out).join("bundle").join(name)).expect("a file");
        assert!(read("fetched") == read("once-more"), "{name}");
    }
}

#[test]
fn a_coordinator_hands_on_what_it_may_read() {
    let lab = Lab::new();
    workplace(&lab);
    let folder = lab.path("here").display().to_string();
    let state = lab.path("state").display().to_string();
    let _coordinator = lab.start(
        "coordinator.log",
        [
            "coordinator",
            "up",
            "--listen",
            "127.0.0.1:0",
            "--state",
            &state,
            "--files-from",
            &folder,
        ],
    );
    let mut url = String::new();
    wait_until(LIMIT, "the coordinator serves", || {
        let said = lab.read("coordinator.log");
        url = said
            .lines()
            .find(|line| line.starts_with("http://"))
            .unwrap_or_default()
            .to_owned();
        !url.is_empty()
    });
    let run = submitted(&lab, &url, &[]);
    fs::rename(lab.path("here"), lab.path("gone")).expect("it can be moved");
    measured(&lab, &url, &run, "agent");
}

#[test]
fn what_cannot_be_sent_is_named() {
    let lab = Lab::new();
    workplace(&lab);
    let (_coordinator, url) = coordinator_up(&lab, &lab.path("state"), "127.0.0.1:0");
    fs::remove_file(lab.path("here/models/bitnet-tiny.i2_s.gguf")).expect("it goes");
    let refused = lab
        .run([
            "submit",
            "here/plan.toml",
            "--upload",
            "--coordinator",
            &url,
        ])
        .expect(2);
    assert!(
        refused.stderr.contains("bitnet-tiny.i2_s.gguf"),
        "{}",
        refused.stderr
    );
    let bad = lab
        .run([
            "coordinator",
            "up",
            "--listen",
            "127.0.0.1:0",
            "--objects",
            "ftp://x",
        ])
        .expect(2);
    assert!(bad.stderr.contains("`ftp://x`"), "{}", bad.stderr);
    let bad = lab
        .run(["agent", "up", "--coordinator", &url, "--cache-size", "much"])
        .expect(2);
    assert!(bad.stderr.contains("`much`"), "{}", bad.stderr);
}
