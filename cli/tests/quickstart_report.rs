//! What the quickstart's report must hold; `.ci/run` calls this on the report it has just made.

use std::{collections::HashMap, path::PathBuf};

type Row = HashMap<String, String>;

const PAIRS: [(&str, &str); 2] = [
    ("bitnet-tiny", "llama-tiny"),
    ("synth-125m-i2_s", "synth-125m-f16"),
];

#[test]
#[ignore = "needs TRITMARK_REPORT, the folder of a quickstart report"]
fn the_quickstart_report_is_whole() {
    let folder =
        PathBuf::from(std::env::var_os("TRITMARK_REPORT").expect("TRITMARK_REPORT is set"));
    for name in [
        "report.html",
        "summary.csv",
        "summary.md",
        "samples.parquet",
    ] {
        let length = std::fs::metadata(folder.join(name)).map(|m| m.len());
        assert!(length.is_ok_and(|n| n > 0), "{name}");
    }
    let rows: Vec<Row> = csv::Reader::from_path(folder.join("summary.csv"))
        .expect("the summary can be read")
        .deserialize()
        .map(|row| row.expect("it is a row"))
        .collect();
    for row in &rows {
        assert!(
            ["ok", "unmeasurable"].contains(&row["status"].as_str()),
            "{row:?}"
        );
    }

    for (ternary, baseline) in PAIRS {
        for model in [ternary, baseline] {
            for threads in ["1", "2"] {
                for metric in [
                    "prefill_tok_per_s",
                    "decode_tok_per_s",
                    "ttft_ns",
                    "tpot_ns",
                ] {
                    let row = find(&rows, model, metric, |row| row["threads"] == threads);
                    assert_eq!(row["n"], "5", "{model} {metric}");
                    assert_positive(row);
                }
            }
            for metric in ["peak_rss_bytes", "weight_bytes", "file_bytes", "kv_bytes"] {
                assert_positive(find(&rows, model, metric, |_| true));
            }
            let energy = find(&rows, model, "energy_j", |_| true);
            if energy["status"] == "ok" {
                assert_eq!(energy["grade"], "counted");
                assert_positive(energy);
            } else {
                assert_eq!(energy["value"], "", "unmeasurable is never a number");
                assert!(!energy["reason"].is_empty(), "and has a reason");
            }
            let estimate = find(&rows, model, "energy_estimate_j", |_| true);
            assert_eq!(estimate["grade"], "estimated");
            assert_positive(estimate);
        }
        let speed = find(&rows, ternary, "decode_tok_per_s", |_| true);
        assert_eq!(speed["baseline"], baseline);
        assert!(!speed["baseline_ratio"].is_empty(), "{speed:?}");
        assert_eq!(speed["role"], "ternary");
    }

    for model in ["bitnet-tiny", "llama-tiny"] {
        for task in ["arc_challenge", "arc_easy", "boolq", "winogrande"] {
            let row = find(&rows, model, "acc", |row| row["task"] == task);
            assert_eq!((row["n"].as_str(), row["status"].as_str()), ("60", "ok"));
            assert!(!row["stderr"].is_empty(), "{model} {task}");
            if model == "bitnet-tiny" {
                assert!(!row["baseline_difference"].is_empty(), "{task}");
                assert!(!row["baseline_difference_stderr"].is_empty(), "{task}");
            }
        }
    }
}

#[track_caller]
fn find<'r>(rows: &'r [Row], model: &str, metric: &str, which: impl Fn(&Row) -> bool) -> &'r Row {
    rows.iter()
        .find(|row| row["model"] == model && row["metric"] == metric && which(row))
        .unwrap_or_else(|| panic!("no row for {model} {metric}"))
}

#[track_caller]
fn assert_positive(row: &Row) {
    let value: f64 = row["value"].parse().unwrap_or(f64::NAN);
    assert!(value > 0.0, "{row:?}");
}
