//! One run on two architectures: an x86-64 coordinator, an agent beside it, and an ARM agent on an
//! emulated CPU. `.ci/arm` builds the ARM agent and runs this.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use support::{Lab, Running, bundle, bundled_accuracy, bundled_models, coordinator_up, wait_until};
use tritmark_proto::{bundle::JobState, job::SuiteSpec};
use tritmark_reports::bundle::Bundle;

const EMULATOR: &str = "qemu-aarch64-static";

fn plan() -> String {
    format!(
        r#"
name = "mixed"
{}
[suites.latency]
n_prompt = [8]
n_gen = [4]
warm_ups = 0
repetitions = 2
probe = false
{}
limit = 6

[[select]]
arch = "x86_64"

[[select]]
arch = "aarch64"
"#,
        bundled_models(),
        bundled_accuracy(&["arc_challenge", "winogrande"]),
    )
}

#[test]
#[ignore = "needs an agent for ARM, named by TRITMARK_ARM_AGENT, and an emulator"]
fn both_architectures_measure_one_plan_and_agree_to_the_bit() {
    let program = std::env::var_os("TRITMARK_ARM_AGENT").map(PathBuf::from);
    let program = program.expect("TRITMARK_ARM_AGENT names the agent for ARM");
    let lab = Lab::new();
    let (_coordinator, url) = coordinator_up(&lab, &lab.path("coordinator"), "127.0.0.1:0");
    let x86_state = lab.path("x86");
    let _x86 = lab.start(
        "x86.log",
        [
            "agent".as_ref(),
            "up".as_ref(),
            "--coordinator".as_ref(),
            url.as_ref(),
            "--state".as_ref(),
            x86_state.as_os_str(),
        ],
    );
    let log = std::fs::File::create(lab.path("arm.log")).expect("a file can be written");
    let _arm = Running(
        Command::new(EMULATOR)
            .arg(&program)
            .args(["--coordinator", &url, "--launcher", EMULATOR, "--state"])
            .arg(lab.path("arm"))
            .env("TRITMARK_LOCK", lab.path("machine.lock"))
            .env("TRITMARK_NO_CALIBRATION", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("the emulator can be started"),
    );
    let n_agents = || {
        let agents = lab.run(["ls", "agents", "--coordinator", &url, "--json"]);
        let agents: serde_json::Value = serde_json::from_str(&agents.stdout).unwrap_or_default();
        agents.as_array().map_or(0, Vec::len)
    };
    wait_until(Duration::from_mins(2), "both agents are there", || {
        n_agents() == 2
    });

    let plan = lab.plan("mixed.toml", &plan());
    let report = lab.path("report");
    let run = lab
        .run([
            "submit".as_ref(),
            plan.as_os_str(),
            "--coordinator".as_ref(),
            url.as_ref(),
        ])
        .expect(0)
        .stdout;
    let run = run.trim();
    lab.run(["watch", run, "--coordinator", &url]).expect(0);
    lab.run([
        "report".as_ref(),
        run.as_ref(),
        "--coordinator".as_ref(),
        url.as_ref(),
        "--out".as_ref(),
        report.as_os_str(),
    ])
    .expect(0);

    let bundle = bundle(&report.join("bundle"));
    check(&bundle);
    let page = std::fs::read_to_string(report.join("report.html")).expect("the page");
    for machine in &bundle.manifest.machines {
        assert!(page.contains(&machine.arch), "{}", machine.arch);
    }
    assert!(!page.contains("kernels or machines disagree"));
}

/// Checks that both did everything and computed the same bits.
fn check(bundle: &Bundle) {
    let archs: BTreeSet<&str> = bundle
        .manifest
        .machines
        .iter()
        .map(|machine| machine.arch.as_str())
        .collect();
    assert_eq!(archs, BTreeSet::from(["aarch64", "x86_64"]));

    let mut fingerprints: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    let mut kernels: BTreeSet<&str> = BTreeSet::new();
    for outcome in &bundle.manifest.jobs {
        let job = &outcome.job;
        let arch = job.selector.arch.as_deref().expect("each names one");
        assert_eq!(outcome.state, JobState::Succeeded, "{job:?}");
        let facts = outcome.facts.as_ref().expect("it says what it ran");
        kernels.insert(&facts.kernel);
        assert!(!facts.logits_fingerprint.is_empty());
        fingerprints
            .entry(&job.model.id)
            .or_default()
            .entry(&facts.logits_fingerprint)
            .or_default()
            .insert(arch);
    }
    for (model, found) in &fingerprints {
        assert_eq!(found.len(), 1, "{model}: {found:?}");
        for on in found.values() {
            assert_eq!(*on, archs, "{model}");
        }
    }
    for arch in &archs {
        assert!(
            kernels.iter().any(|kernel| kernel.starts_with(arch)),
            "{kernels:?}"
        );
    }

    // Every item's log-likelihoods too.
    let mut items: BTreeMap<(&str, &str, u32), Vec<Vec<u64>>> = BTreeMap::new();
    for row in &bundle.items {
        let job = &bundle.manifest.jobs[row.job_index as usize].job;
        assert!(matches!(job.suite, SuiteSpec::Accuracy(_)));
        let bits = row.item.choices().iter();
        items
            .entry((&job.model.id, &row.item.task, row.item.index))
            .or_default()
            .push(bits.map(|choice| choice.loglikelihood.to_bits()).collect());
    }
    assert_eq!(items.len(), 2 * 2 * 6);
    for (item, found) in &items {
        assert_eq!(found.len(), 2, "{item:?}");
        assert_eq!(found[0], found[1], "{item:?}");
    }
    eprintln!(
        "{} jobs on {archs:?}, kernels {kernels:?}, fingerprints {fingerprints:?}",
        bundle.manifest.jobs.len()
    );
}
