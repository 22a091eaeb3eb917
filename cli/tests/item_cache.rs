//! Items kept between runs, and programs scored by the coordinator, through the whole binary.

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use support::{Lab, bundled_accuracy, bundled_models};
use tritmark_proto::record::Item;
use tritmark_reports::bundle::Bundle;

fn items(lab: &Lab, out: &str) -> BTreeMap<(u32, u32), Item> {
    let bundle = Bundle::read(&lab.path(out).join("bundle")).expect("there is a bundle");
    let items = bundle.items.into_iter();
    items
        .map(|row| ((row.job_index, row.item.index), row.item))
        .collect()
}

/// What is the same wherever an item comes from.
fn told(items: &BTreeMap<(u32, u32), Item>) -> Vec<Item> {
    let items = items.values().cloned();
    items
        .map(|item| Item {
            elapsed_ns: None,
            energy: Vec::new(),
            from_cache: None,
            ..item
        })
        .collect()
}

/// Returns how many items of a figure were taken from the cache, for each row of the summary that
/// says so.
fn n_cached(summary: &Path) -> Vec<String> {
    csv::Reader::from_path(summary)
        .expect("the summary can be read")
        .deserialize()
        .map(|row| row.expect("it is a row"))
        .filter_map(|row: BTreeMap<String, String>| row.get("n_cached").cloned())
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn a_second_run_takes_what_the_first_has_evaluated() {
    let lab = Lab::new();
    let text = format!(
        "name = \"kept\"\n{}{}limit = 4\ncache = true\n",
        bundled_models(),
        bundled_accuracy(&["arc_easy", "winogrande"]),
    );
    let plan = lab.plan("kept.toml", &text);
    let summary = lab.path("out/kept/summary.csv");
    lab.run(["run".as_ref(), plan.as_os_str()]).expect(0);
    let first = items(&lab, "out/kept");
    assert_eq!(first.len(), 2 * 2 * 4);
    assert!(first.values().all(|item| item.from_cache.is_none()));
    assert!(n_cached(&summary).iter().all(|n| n == "0"));

    let again = |flags: &[&str]| {
        let mut args = vec!["run".as_ref(), plan.as_os_str(), "--fresh".as_ref()];
        args.extend(flags.iter().map(std::ffi::OsStr::new));
        lab.run(args).expect(0);
        items(&lab, "out/kept")
    };
    let second = again(&[]);
    assert_eq!(told(&second), told(&first));
    assert!(second.values().all(|item| item.from_cache.is_some()));
    assert!(second.values().all(|item| item.elapsed_ns.is_none()));
    assert!(!n_cached(&summary).is_empty());
    assert!(n_cached(&summary).iter().all(|n| n == "4"));
    let text = fs::read_to_string(&summary).expect("there is a summary");
    assert!(text.contains("4 of 4 items are from the cache"), "{text}");
    let page = lab.read("out/kept/report.html");
    assert!(page.contains("4 from the cache"));

    let third = again(&["--no-cache"]);
    assert_eq!(told(&third), told(&first));
    assert!(third.values().all(|item| item.from_cache.is_none()));
}

/// Writes problems of no published set.
fn programs(lab: &Lab) {
    let folder = lab.path("data/humaneval");
    fs::create_dir_all(&folder).expect("a folder can be made");
    let lines: Vec<String> = (0..3)
        .map(|n| {
            format!(
                r#"{{"task_id": "HumanEval/{}", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n", "test": "def check(f):\n    f()\n"}}"#,
                9000 + n
            )
        })
        .collect();
    fs::write(folder.join("test.jsonl"), lines.join("\n")).expect("a file can be written");
}

#[test]
fn the_coordinator_scores_as_an_agent_does() {
    let lab = Lab::new();
    let doctor = lab.run(["doctor"]);
    if !doctor
        .stdout
        .lines()
        .any(|line| line.starts_with("ok") && line.contains("sandbox"))
    {
        eprintln!("NOT RUN: untrusted programs: {}", doctor.stdout);
        return;
    }
    programs(&lab);
    let run = |name: &str, place: &str| {
        let text = format!(
            "name = \"{name}\"\n{}[suites.accuracy]\ntasks = [\"humaneval\"]\ndata = \"data\"\n\
             max_new = 4\nscore_on = \"{place}\"\n",
            bundled_models(),
        );
        let plan = lab.plan(&format!("{name}.toml"), &text);
        lab.run(["run".as_ref(), plan.as_os_str()]).expect(0);
        items(&lab, &format!("out/{name}"))
    };
    let by_agent = run("agent", "agent");
    let by_coordinator = run("coordinator", "coordinator");
    assert_eq!(by_agent.len(), 2 * 3);
    assert!(by_coordinator.values().all(|item| !item.is_pending()));
    assert!(by_coordinator.values().all(|item| item.scored_on.is_some()));
    assert_eq!(told(&by_coordinator), told(&by_agent));
}
