//! `tritmark run` over ARC-Challenge, BoolQ and WinoGrande against lm-evaluation-harness.
//!
//! The expected log-likelihoods are those of lm-eval 0.4.9.2 (`--model hf`, float32, batch size 1)
//! for the same small models and the first items of each set; they and the limits below are in
//! `$TRITMARK_DATA/golden` (its README says how they were made; every context in them begins with
//! BOS, whatever their `add_bos_token` says, as `suites/tests/golden_accuracy.rs` found). Rounding activations to int8 is
//! discontinuous, so two right engines differ by some hundredths in a ternary model's log-likelihood;
//! a full-precision model has no such cliff.

mod support;

use std::{collections::BTreeMap, path::Path};

use flate2::read::GzDecoder;
use serde_json::Value;
use support::{Lab, bundle, published_data};
use tritmark_proto::record::{Answer, Item};

const TASKS: [&str; 3] = ["arc_challenge", "boolq", "winogrande"];

/// A model, the reference it is held to, and by how much it may differ.
struct Case {
    model: &'static str,
    path: &'static str,
    reference: &'static str,
    /// Differences of a request's log-likelihood: median, 99 % quantile, largest.
    limits: [f64; 3],
    /// An item whose best choices are further apart than this must have the same answer.
    margin: f64,
}

const CASES: [Case; 3] = [
    Case {
        model: "bitnet-tiny-packed",
        path: "bitnet-tiny-packed",
        reference: "bitnet-tiny-packed.f32",
        limits: [0.03, 0.15, 0.4],
        margin: 0.3,
    },
    Case {
        model: "bitnet-tiny-i2_s",
        path: "bitnet-tiny.i2_s.gguf",
        reference: "bitnet-tiny-packed.f32",
        limits: [0.03, 0.15, 0.4],
        margin: 0.3,
    },
    Case {
        model: "llama-tiny",
        path: "llama-tiny",
        reference: "llama-tiny.f32",
        limits: [1e-4, 1e-3, 5e-3],
        margin: 0.01,
    },
];

#[test]
fn the_first_items_score_as_the_reference_harness_scores_them() {
    check("golden", Some(100));
}

#[test]
#[ignore = "the full sets take several minutes"]
fn full_sets_score_as_the_reference_harness_scores_them() {
    check("golden-full", None);
}

fn check(name: &str, limit: Option<u32>) {
    let Some(data) = published_data(name) else {
        return;
    };
    let lab = Lab::new();
    let plan = lab.plan(&format!("{name}.toml"), &plan(&data, limit));
    lab.run(["run".as_ref(), plan.as_os_str()]).expect(0);
    let bundle = bundle(&lab.path(&format!("out/{name}/bundle")));

    for case in CASES {
        let reference = reference(&data, case.reference);
        for task in TASKS {
            let index = bundle
                .manifest
                .jobs
                .iter()
                .find(|job| {
                    job.job.model.id == case.model
                        && matches!(&job.job.suite,
                            tritmark_proto::job::SuiteSpec::Accuracy(spec) if spec.task == task)
                })
                .unwrap_or_else(|| panic!("{} {task}", case.model))
                .job
                .id
                .index;
            let items: BTreeMap<u32, &Item> = bundle
                .items
                .iter()
                .filter(|row| row.job_index == index)
                .map(|row| (row.item.index, &row.item))
                .collect();
            let expected_items = match (limit, task) {
                (Some(limit), _) => limit as usize,
                (None, "arc_challenge") => 1172,
                (None, "boolq") => 3270,
                (None, _) => 1267,
            };
            assert_eq!(items.len(), expected_items, "{} {task}", case.model);
            compare(
                &case,
                task,
                &items,
                &reference["tasks"][format!("{task}:0shot")],
            );
        }
    }
}

fn compare(case: &Case, task: &str, items: &BTreeMap<u32, &Item>, expected: &Value) {
    let expected = expected["items"].as_array().expect("there are items");
    assert!(expected.len() >= 50, "{task}: {}", expected.len());
    let mut differences = Vec::new();
    for doc in expected {
        let index = doc["doc_id"].as_u64().expect("it is a number") as u32;
        let item = items[&index];
        let wanted: Vec<f64> = doc["requests"]
            .as_array()
            .expect("there are requests")
            .iter()
            .map(|request| request["loglikelihood"].as_f64().expect("it is a number"))
            .collect();
        assert_eq!(item.choices().len(), wanted.len(), "{task} {index}");
        let ours = item.choices().iter().map(|choice| choice.loglikelihood);
        differences.extend(
            ours.zip(&wanted)
                .map(|(ours, wanted)| (ours - wanted).abs()),
        );

        let mut ranked: Vec<usize> = (0..wanted.len()).collect();
        ranked.sort_by(|a, b| wanted[*b].total_cmp(&wanted[*a]));
        if wanted[ranked[0]] - wanted[ranked[1]] > case.margin {
            let name = case.model;
            let Answer::Choice(answer) = &item.answer else {
                panic!("{name} {task} {index} is no choice");
            };
            assert_eq!(
                answer.predicted as usize, ranked[0],
                "{name} {task} {index}"
            );
        }
    }
    differences.sort_by(f64::total_cmp);
    let last = differences.len() - 1;
    let found = [last / 2, last * 99 / 100, last].map(|at| differences[at]);
    eprintln!(
        "{} {task}: {} requests, difference p50 {:.2e}, p99 {:.2e}, max {:.2e}",
        case.model,
        differences.len(),
        found[0],
        found[1],
        found[2]
    );
    for (found, limit) in found.iter().zip(case.limits) {
        assert!(*found <= limit, "{} {task}: {found} > {limit}", case.model);
    }
}

fn plan(data: &Path, limit: Option<u32>) -> String {
    let models = CASES.map(|case| {
        let path = data.join("golden/models").join(case.path);
        format!(
            "[[models]]\nid = \"{}\"\npath = \"{}\"\n",
            case.model,
            path.display()
        )
    });
    let limit = limit.map_or_else(String::new, |limit| format!("limit = {limit}\n"));
    format!(
        "[defaults]\nthreads = [1]\n{}[suites.accuracy]\ntasks = {TASKS:?}\ndata = \"{}\"\n\
         add_bos = true\n{limit}",
        models.concat(),
        data.display()
    )
}

fn reference(data: &Path, name: &str) -> Value {
    let path = data.join("golden/lm-eval").join(format!("{name}.json.gz"));
    let file =
        std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_reader(GzDecoder::new(file)).expect("it is JSON")
}
