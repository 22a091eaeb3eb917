//! `kill -9` of everything, at moments that a seed chooses: the run that goes on ends with the same
//! set of results as an undisturbed one.

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use support::{
    Lab, Results, bundle, bundled_accuracy, bundled_models, coordinator_up as up, published_data,
    results, wait_until,
};

const LIMIT: Duration = Duration::from_mins(5);

/// Long enough to be killed in the middle, short enough for a test.
fn plan_text(name: &str) -> String {
    format!(
        r#"
name = "{name}"
{}
[suites.latency]
n_prompt = [16]
n_gen = [16]
warm_ups = 1
repetitions = 4
probe = false
{}"#,
        bundled_models(),
        bundled_accuracy(&["arc_challenge", "arc_easy", "boolq", "winogrande"]),
    )
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Runs the plan undisturbed; returns its results and how long it took.
fn undisturbed(lab: &Lab) -> (Results, Duration) {
    let plan = lab.plan("calm.toml", &plan_text("calm"));
    let start = Instant::now();
    lab.run(["run".as_ref(), plan.as_os_str()]).expect(0);
    let took = start.elapsed();
    (results(&bundle(&lab.path("out/calm/bundle"))), took)
}

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_same_results() {
    let lab = Lab::new();
    let (calm, took) = undisturbed(&lab);
    for seed in [1, 2, 3] {
        let mut random = Random(seed);
        let name = format!("killed-{seed}");
        let plan = lab.plan(&format!("{name}.toml"), &plan_text(&name));
        let out = lab.path(&format!("out/{name}"));
        // Twice in the middle: also the run that was resumed dies.
        for _ in 0..2 {
            let run = lab.start(
                "killed.log",
                ["run".as_ref(), plan.as_os_str(), "--resume".as_ref()],
            );
            let at = took.as_millis() as u64 * (10 + random.below(60)) / 100;
            std::thread::sleep(Duration::from_millis(at));
            run.kill();
        }
        lab.run(["run".as_ref(), plan.as_os_str(), "--resume".as_ref()])
            .expect(0);
        let resumed = results(&bundle(&out.join("bundle")));
        assert_same(&calm, &resumed, &format!("seed {seed}"));
    }
}

#[test]
fn gsm8k_killed_at_ten_moments_ends_with_the_same_item_log() {
    let Some(data) = published_data("killing GSM8K") else {
        return;
    };
    let lab = Lab::new();
    let text = |name: &str| {
        format!(
            r#"
name = "{name}"
{}
[suites.accuracy]
tasks = ["gsm8k"]
data = "{}"
limit = 48
num_fewshot = 0
max_new = 48
batch = 4
models = ["bitnet-tiny"]
"#,
            bundled_models(),
            data.display(),
        )
    };
    let calm = lab.plan("calm.toml", &text("calm"));
    let start = Instant::now();
    lab.run(["run".as_ref(), calm.as_os_str()]).expect(0);
    let took = start.elapsed();
    let calm = results(&bundle(&lab.path("out/calm/bundle")));
    assert_eq!(
        calm.keys().filter(|key| key.contains("item gsm8k")).count(),
        48
    );

    let plan = lab.plan("killed.toml", &text("killed"));
    let mut random = Random(8);
    let mut n_running = 0;
    for _ in 0..10 {
        let run = lab.start(
            "gsm8k.log",
            ["run".as_ref(), plan.as_os_str(), "--resume".as_ref()],
        );
        // What is resumed is shorter each time, so that later moments come earlier.
        let at = took.as_millis() as u64 * (5 + random.below(30)) / 100;
        std::thread::sleep(Duration::from_millis(at));
        let mut run = run;
        n_running += u32::from(!run.has_ended());
        run.kill();
    }
    assert!(n_running >= 3, "only {n_running} runs were still under way");
    lab.run(["run".as_ref(), plan.as_os_str(), "--resume".as_ref()])
        .expect(0);
    let resumed = results(&bundle(&lab.path("out/killed/bundle")));
    assert_same(&calm, &resumed, "ten times");
}

#[test]
fn no_worker_outlives_the_run_that_started_it() {
    let lab = Lab::new();
    let plan = lab.plan("orphan.toml", &plan_text("orphan"));
    let run = lab.start("orphan.log", ["run".as_ref(), plan.as_os_str()]);
    let mut workers = Vec::new();
    wait_until(LIMIT, "a worker runs", || {
        workers = children_of(run.0.id());
        !workers.is_empty()
    });
    run.kill();
    wait_until(Duration::from_secs(10), "the worker has ended", || {
        workers.iter().all(|pid| !is_alive(*pid))
    });
}

#[test]
fn a_worker_that_is_killed_fails_its_own_job_alone() {
    let lab = Lab::new();
    // The ternary model's job would take hours; it is killed at each of its three attempts.
    let plan = lab.plan(
        "doomed.toml",
        &format!(
            r#"
{}
[suites.latency]
models = ["bitnet-tiny"]
n_prompt = [8]
n_gen = [100]
repetitions = 100000
probe = false
{}models = ["llama-tiny"]
"#,
            bundled_models(),
            bundled_accuracy(&["boolq"]),
        ),
    );
    let mut run = lab.start("doomed.log", ["run".as_ref(), plan.as_os_str()]);
    let mut killed = std::collections::BTreeSet::new();
    wait_until(LIMIT, "the run has ended", || {
        for worker in children_of(run.0.id()) {
            let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap_or_default();
            if maps.contains("bitnet-tiny") && killed.insert(worker) {
                let sent = std::process::Command::new("kill")
                    .args(["-KILL", &worker.to_string()])
                    .status()
                    .expect("kill can be started");
                assert!(sent.success());
            }
        }
        run.has_ended()
    });
    assert_eq!(run.wait(LIMIT), Some(5), "{}", lab.read("doomed.log"));
    assert_eq!(killed.len(), 3);
    let bundle = bundle(&lab.path("out/doomed/bundle"));
    let [doomed, spared] = &bundle.manifest.jobs[..] else {
        panic!("the plan has two jobs");
    };
    let failure = doomed.failure.as_ref().expect("it was killed");
    assert!(failure.message.contains("SIGKILL (9)"), "{failure:?}");
    assert!(spared.failure.is_none(), "{:?}", spared.failure);
    assert!(!bundle.items.is_empty());
}

#[test]
fn agents_and_coordinator_killed_in_the_middle_lose_and_double_nothing() {
    let lab = Lab::new();
    let (calm, took) = undisturbed(&lab);

    let state = lab.path("coordinator");
    let mut listen = "127.0.0.1:0".to_owned();
    let mut coordinator = up(&lab, &state, &listen);
    // The same port after a restart, as a fleet expects it.
    listen = coordinator.1.trim_start_matches("http://").to_owned();
    let url = coordinator.1.clone();
    let agent = |name: &str| {
        let state = lab.path(name);
        lab.start(
            &format!("{name}.log"),
            [
                "agent".as_ref(),
                "up".as_ref(),
                "--coordinator".as_ref(),
                url.as_ref(),
                "--state".as_ref(),
                state.as_os_str(),
            ],
        )
    };
    let mut agents = [agent("agent-a"), agent("agent-b")];

    let plan = lab.plan("fleet.toml", &plan_text("fleet"));
    let run = lab
        .run([
            "submit".as_ref(),
            plan.as_os_str(),
            "--coordinator".as_ref(),
            url.as_ref(),
        ])
        .expect(0)
        .stdout
        .trim()
        .to_owned();

    let mut random = Random(7);
    let n_done = || {
        let jobs = lab.run(["ls", "jobs", &run, "--coordinator", &url, "--json"]);
        let jobs: serde_json::Value = serde_json::from_str(&jobs.stdout).unwrap_or_default();
        let is_done = |job: &&serde_json::Value| job["state"] == "succeeded";
        jobs.as_array()
            .map_or(0, |jobs| jobs.iter().filter(is_done).count())
    };
    wait_until(LIMIT, "the first job is done", || n_done() >= 1);

    // An agent in the middle of a job.
    std::thread::sleep(Duration::from_millis(random.below(500)));
    let [a, b] = agents;
    a.kill();
    agents = [agent("agent-a"), b];
    wait_until(LIMIT, "another job is done", || n_done() >= 3);

    // The coordinator in the middle of the run.
    std::thread::sleep(Duration::from_millis(random.below(500)));
    coordinator.0.kill();
    std::thread::sleep(took / 8);
    coordinator = up(&lab, &state, &listen);

    let watched = lab
        .run(["watch", &run, "--coordinator", &url])
        .expect(0)
        .stdout;
    assert!(watched.contains("10 of 10 jobs done"), "{watched}");
    lab.run([
        "report".as_ref(),
        run.as_ref(),
        "--coordinator".as_ref(),
        url.as_ref(),
        "--out".as_ref(),
        lab.path("fetched").as_os_str(),
    ])
    .expect(0);
    let fetched = results(&bundle(&lab.path("fetched/bundle")));
    assert_same(&calm, &fetched, "three processes");
    drop(agents);
    drop(coordinator);
}

#[track_caller]
fn assert_same(calm: &Results, disturbed: &Results, what: &str) {
    let lost: Vec<_> = calm
        .keys()
        .filter(|key| !disturbed.contains_key(*key))
        .collect();
    let more: Vec<_> = disturbed
        .keys()
        .filter(|key| !calm.contains_key(*key))
        .collect();
    assert!(
        lost.is_empty() && more.is_empty(),
        "{what}: lost {lost:?}, more {more:?}"
    );
    for (key, value) in calm {
        assert_eq!(value, &disturbed[key], "{what}: {key}");
    }
}

/// Returns the processes whose parent is `pid`.
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| stat(*child).is_some_and(|(parent, _)| parent == pid))
        .collect()
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, state)| state != 'Z')
}

/// Parent and state of a process.
fn stat(pid: u32) -> Option<(u32, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}
