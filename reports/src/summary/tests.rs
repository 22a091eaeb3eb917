//! What rows a run gives.

use std::num::NonZeroU32;

use tritmark_proto::{
    bundle::JobState,
    job::{EnergySpec, SuiteSpec},
    record::{Grade, Metric, Outcome, Phase, Reading},
};

use super::*;
use crate::testing::{DENSE_2B, DENSE_125M, Fixture, TERNARY_2B, TERNARY_125M, WORKLOAD, machine};

fn find<'a>(rows: &'a [SummaryRow], model: &str, metric: &str, threads: u32) -> &'a SummaryRow {
    rows.iter()
        .find(|row| {
            row.model == model && row.metric.as_deref() == Some(metric) && row.threads == threads
        })
        .unwrap_or_else(|| panic!("no {metric} of {model}"))
}

#[test]
fn a_speedup_is_the_ratio_of_medians_with_its_interval() {
    let rows = rows(&Fixture::one_pair().bundle);
    let ternary = find(&rows, TERNARY_125M.id, "decode_tok_per_s", 1);
    let baseline = find(&rows, DENSE_125M.id, "decode_tok_per_s", 1);
    assert_eq!(
        (ternary.role, baseline.role),
        (Role::Ternary, Role::Baseline)
    );
    assert_eq!(
        (ternary.n, ternary.n_jobs, ternary.baseline_n),
        (10, 1, Some(10))
    );
    let ratio = ternary.baseline_ratio.unwrap();
    assert!((ratio - ternary.median.unwrap() / baseline.median.unwrap()).abs() < 1e-12);
    assert!((3.0..3.6).contains(&ratio), "{ratio}");
    let (low, high) = (
        ternary.baseline_ratio_low.unwrap(),
        ternary.baseline_ratio_high.unwrap(),
    );
    assert!(low <= ratio && ratio <= high && low < high);
    assert_eq!(
        ternary.ci_scope.as_deref(),
        Some("within one process run of each")
    );
    assert_eq!(baseline.baseline_ratio, None);
    assert_eq!(baseline.ci_scope.as_deref(), Some("within one process run"));
}

#[test]
fn memory_has_its_ratios_without_intervals() {
    let rows = rows(&Fixture::one_pair().bundle);
    let linear = find(&rows, TERNARY_125M.id, "linear_weight_bytes", 1);
    assert!((linear.baseline_ratio.unwrap() - 0.125).abs() < 1e-12);
    assert_eq!(linear.baseline_ratio_low, None);
    assert_eq!((linear.n, linear.grade.as_deref()), (1, Some("computed")));
    assert!(
        find(&rows, TERNARY_125M.id, "peak_rss_bytes", 1)
            .baseline_ratio
            .is_some()
    );
}

#[test]
fn what_cannot_be_measured_stands_beside_the_estimate() {
    let rows = rows(&Fixture::one_pair().bundle);
    for phase in ["prefill", "decode"] {
        let energy = rows
            .iter()
            .find(|row| {
                row.model == TERNARY_125M.id
                    && row.metric.as_deref() == Some("energy_j")
                    && row.phase.as_deref() == Some(phase)
            })
            .unwrap();
        assert_eq!(energy.status, Status::Unmeasurable);
        assert_eq!(
            (energy.value, energy.n, energy.baseline_ratio),
            (None, 0, None)
        );
        assert!(energy.reason.as_ref().unwrap().contains("powercap"));
    }
    let estimate = find(&rows, TERNARY_125M.id, "energy_estimate_j", 1);
    assert_eq!(estimate.grade.as_deref(), Some("estimated"));
    assert_eq!(estimate.status, Status::Ok);
    assert!(estimate.baseline_ratio.unwrap() < 0.1);
}

#[test]
fn accuracy_is_compared_item_by_item() {
    let rows = rows(&Fixture::one_pair().bundle);
    let ternary = find(&rows, TERNARY_125M.id, "acc", 2);
    assert_eq!(
        (ternary.n, ternary.n_items, ternary.baseline_n),
        (80, Some(80), Some(80))
    );
    let share = ternary.value.unwrap();
    let stderr = (share * (1.0 - share) / 79.0).sqrt();
    assert!((ternary.stderr.unwrap() - stderr).abs() < 1e-15);
    let baseline = find(&rows, DENSE_125M.id, "acc", 2);
    let difference = ternary.baseline_difference.unwrap();
    assert!((difference - (share - baseline.value.unwrap())).abs() < 1e-12);
    // Paired answers of like models vary less than independent ones.
    let unpaired = ternary.stderr.unwrap().hypot(baseline.stderr.unwrap());
    assert!(ternary.baseline_difference_stderr.unwrap() < unpaired);
    assert!((0.0..=1.0).contains(&ternary.mcnemar_p.unwrap()));
    assert!(ternary.data_hash.is_some());
    assert!(find(&rows, TERNARY_125M.id, "acc_norm", 2).value.is_some());
}

#[test]
fn a_task_without_normalised_scores_has_no_such_row() {
    let mut fixture = Fixture::new("boolq", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "boolq", 20);
    let rows = rows(&fixture.bundle);
    assert!(rows.iter().any(|row| row.is_value_of("acc")));
    assert!(
        !rows
            .iter()
            .any(|row| row.metric.as_deref() == Some("acc_norm"))
    );
}

#[test]
fn items_scored_twice_are_counted_once() {
    let mut fixture = Fixture::one_pair();
    fixture.accuracy(TERNARY_125M, 0, "arc_easy", 80);
    let rows = rows(&fixture.bundle);
    assert_eq!(find(&rows, TERNARY_125M.id, "acc", 2).n, 80);
}

#[test]
fn an_incomplete_task_says_so() {
    let mut fixture = Fixture::one_pair();
    fixture.bundle.items.truncate(50);
    let rows = rows(&fixture.bundle);
    let ternary = find(&rows, TERNARY_125M.id, "acc", 2);
    assert_eq!(ternary.reason.as_deref(), Some("50 of 80 items"));
}

#[test]
fn machines_are_never_compared_with_each_other() {
    let mut fixture = Fixture::new("apart", vec![machine("a"), machine("b")]);
    fixture.latency(TERNARY_125M, 0, 1);
    fixture.latency(DENSE_125M, 1, 1);
    let rows = rows(&fixture.bundle);
    let ternary = find(&rows, TERNARY_125M.id, "decode_tok_per_s", 1);
    assert_eq!(ternary.baseline_ratio, None);
    let note = ternary.baseline_note.as_ref().unwrap();
    assert!(note.contains("on this machine"), "{note}");
}

#[test]
fn thread_counts_are_never_compared_with_each_other() {
    let mut fixture = Fixture::new("threads", vec![machine("a")]);
    fixture.latency(TERNARY_125M, 0, 2);
    fixture.latency(DENSE_125M, 0, 1);
    let rows = rows(&fixture.bundle);
    assert_eq!(
        find(&rows, TERNARY_125M.id, "decode_tok_per_s", 2).baseline_ratio,
        None
    );
}

#[test]
fn grades_are_never_compared_with_each_other() {
    let mut fixture = Fixture::new("grades", vec![machine("m")]);
    for (model, grade) in [
        (TERNARY_125M, Grade::Counted),
        (DENSE_125M, Grade::Estimated),
    ] {
        let suite = SuiteSpec::Energy(EnergySpec {
            workload: WORKLOAD,
            repetitions: NonZeroU32::MIN,
            idle_seconds: 1.0,
            window_seconds: 1.0,
        });
        let job = fixture.succeeded(model, 0, 1, suite);
        let reading = Outcome::Reading(Reading {
            value: 2.0,
            grade,
            source: "powercap:package-0".to_owned(),
        });
        let phase = Some(Phase::Decode);
        fixture.push(job, "energy", Metric::EnergyJ, phase, Some(0), reading);
    }
    let rows = rows(&fixture.bundle);
    let ternary = find(&rows, TERNARY_125M.id, "energy_j", 1);
    assert_eq!((ternary.value, ternary.baseline_ratio), (Some(2.0), None));
}

#[test]
fn power_domains_keep_apart() {
    let mut fixture = Fixture::new("domains", vec![machine("m")]);
    for model in [TERNARY_125M, DENSE_125M] {
        let suite = SuiteSpec::Energy(EnergySpec {
            workload: WORKLOAD,
            repetitions: NonZeroU32::MIN,
            idle_seconds: 1.0,
            window_seconds: 1.0,
        });
        let job = fixture.succeeded(model, 0, 1, suite);
        for (source, value) in [("powercap:package-0", 8.0), ("powercap:dram", 1.0)] {
            let reading = Outcome::Reading(Reading {
                value: if model.bits < 3.0 { value } else { 2.0 * value },
                grade: Grade::Counted,
                source: source.to_owned(),
            });
            fixture.push(job, "energy", Metric::EnergyJ, None, Some(0), reading);
        }
    }
    let rows = rows(&fixture.bundle);
    let ratios: Vec<Option<f64>> = rows
        .iter()
        .filter(|row| row.model == TERNARY_125M.id)
        .map(|row| row.baseline_ratio)
        .collect();
    assert_eq!(ratios, [Some(0.5), Some(0.5)]);
}

#[test]
fn a_failed_job_is_a_row_with_its_reason() {
    let mut fixture = Fixture::one_pair();
    fixture.failed(TERNARY_2B, Some(0), 1, "killed by signal 9");
    let rows = rows(&fixture.bundle);
    let failed = rows
        .iter()
        .find(|row| row.status == Status::Failed)
        .unwrap();
    assert_eq!(failed.model, TERNARY_2B.id);
    assert_eq!((failed.metric.as_deref(), failed.value), (None, None));
    assert_eq!(failed.reason.as_deref(), Some("killed by signal 9"));
    assert_eq!(failed.suite, "latency");
    assert_eq!(failed.n_prompt, Some(WORKLOAD.n_prompt));
}

#[test]
fn what_a_failed_job_had_measured_is_not_summarised() {
    let mut fixture = Fixture::one_pair();
    fixture.bundle.manifest.jobs[0].state = JobState::Cancelled;
    let rows = rows(&fixture.bundle);
    assert!(!rows.iter().any(|row| {
        row.model == TERNARY_125M.id && row.metric.as_deref() == Some("decode_tok_per_s")
    }));
    let cancelled = rows
        .iter()
        .find(|row| row.status == Status::Cancelled)
        .unwrap();
    assert_eq!(cancelled.reason.as_deref(), Some("the job is cancelled"));
}

#[test]
fn a_baseline_that_failed_is_named_where_the_ratio_would_stand() {
    let mut fixture = Fixture::new("no baseline", vec![machine("m")]);
    fixture.latency(TERNARY_2B, 0, 1);
    fixture.failed(DENSE_2B, Some(0), 1, "out of memory");
    let rows = rows(&fixture.bundle);
    let note = find(&rows, TERNARY_2B.id, "decode_tok_per_s", 1)
        .baseline_note
        .clone()
        .unwrap();
    assert!(note.contains("did not succeed"), "{note}");
}

#[test]
fn more_processes_widen_the_scope_of_an_interval() {
    let mut fixture = Fixture::one_pair();
    fixture.latency(TERNARY_125M, 0, 1);
    fixture.latency(DENSE_125M, 0, 1);
    let rows = rows(&fixture.bundle);
    let ternary = find(&rows, TERNARY_125M.id, "decode_tok_per_s", 1);
    assert_eq!((ternary.n, ternary.n_jobs), (20, 2));
    assert_eq!(
        ternary.ci_scope.as_deref(),
        Some("across 2 and 2 process runs")
    );
}

#[test]
fn a_baseline_on_several_kernels_is_compared_by_what_was_asked_for() {
    let mut fixture = Fixture::new("kernels", vec![machine("m")]);
    for kernel in ["reference", "auto"] {
        for model in [TERNARY_125M, DENSE_125M] {
            fixture.latency(model, 0, 1);
            let outcome = fixture.bundle.manifest.jobs.last_mut().unwrap();
            outcome.job.kernel = kernel.to_owned();
            outcome.facts.as_mut().unwrap().kernel = format!("{kernel}-{}", model.format);
        }
    }
    let rows = rows(&fixture.bundle);
    let of = |model: &str, kernel: &str| {
        rows.iter()
            .find(|row| {
                row.model == model
                    && row.kernel.starts_with(kernel)
                    && row.is_value_of("decode_tok_per_s")
            })
            .unwrap()
    };
    for kernel in ["reference", "auto"] {
        let ratio =
            of(TERNARY_125M.id, kernel).value.unwrap() / of(DENSE_125M.id, kernel).value.unwrap();
        let found = of(TERNARY_125M.id, kernel).baseline_ratio.unwrap();
        assert!((found - ratio).abs() < 1e-12);
    }
}

#[test]
fn token_times_leave_the_first_token_out() {
    let rows = rows(&Fixture::one_pair().bundle);
    let times = find(&rows, TERNARY_125M.id, "itl_ns", 1);
    assert_eq!(times.n, 10 * 63);
    assert_eq!((times.p99, times.ci95_low), (None, None));
    assert!(times.p5 < times.median && times.median < times.p95);
}

#[test]
fn roles_follow_from_names_and_bits() {
    let mut fixture = Fixture::new("roles", vec![machine("m")]);
    let dense_candidate = crate::testing::Sketch {
        id: "q8",
        format: "q8_0",
        bits: 8.5,
        ..TERNARY_125M
    };
    let alone = crate::testing::Sketch {
        id: "alone",
        baseline: None,
        ..TERNARY_2B
    };
    for model in [TERNARY_125M, DENSE_125M, dense_candidate, alone, DENSE_2B] {
        fixture.memory(model, 0, 1);
    }
    let rows = rows(&fixture.bundle);
    let role = |model: &str| find(&rows, model, "file_bytes", 1).role;
    assert_eq!(role(TERNARY_125M.id), Role::Ternary);
    assert_eq!(role(DENSE_125M.id), Role::Baseline);
    assert_eq!(role("q8"), Role::Candidate);
    assert_eq!(role("alone"), Role::Ternary);
    assert_eq!(role(DENSE_2B.id), Role::Single);
}

#[test]
fn an_empty_run_has_no_rows() {
    assert_eq!(rows(&Fixture::new("empty", Vec::new()).bundle), []);
}
