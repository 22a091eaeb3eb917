//! What rows a run gives.

use std::num::NonZeroU32;

use tritmark_proto::{
    bundle::JobState,
    job::{ChatSpec, EnergySpec, Shard, SuiteSpec},
    record::{
        Answer, GeneratedAnswer, Grade, ItemEnergy, ItemOrigin, ItemScore, Metric, Outcome, Phase,
        Reading, RollingAnswer,
    },
    roofline::Bounds,
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
fn speeds_are_shares_of_what_their_own_process_measured_and_have_none_otherwise() {
    const SHARES: [&str; 3] = [DECODE_READ_SHARE, PREFILL_INT8_SHARE, PREFILL_F32_SHARE];
    let bounds = Bounds {
        memory_read_bytes_per_s: 2e10,
        int8_ops_per_s: 4e11,
        f32_ops_per_s: 1e11,
    };
    let mut fixture = Fixture::one_pair();
    let is_share = |row: &SummaryRow| SHARES.contains(&row.metric.as_deref().unwrap_or_default());
    assert!(!rows(&fixture.bundle).iter().any(is_share));
    fixture.probed(bounds);
    let rows = rows(&fixture.bundle);
    for (model, share, peak) in [
        (TERNARY_125M, PREFILL_INT8_SHARE, bounds.int8_ops_per_s),
        (DENSE_125M, PREFILL_F32_SHARE, bounds.f32_ops_per_s),
    ] {
        let value = |metric: &str| find(&rows, model.id, metric, 1).value.unwrap();
        let facts = crate::testing::facts(model);
        let bound = bounds.memory_read_bytes_per_s / facts.weight_bytes as f64;
        let expected = value("decode_tok_per_s") / bound;
        assert!((value(DECODE_READ_SHARE) / expected - 1.0).abs() < 1e-9);
        let expected = value("prefill_tok_per_s") / (peak / facts.n_linear_params as f64);
        assert!((value(share) / expected - 1.0).abs() < 1e-9);
        let shares = rows
            .iter()
            .filter(|row| row.model == model.id && row.threads == 1);
        let shares: Vec<&SummaryRow> = shares.filter(|row| is_share(row)).collect();
        assert_eq!(shares.len(), 2);
        for row in shares {
            assert_eq!((row.n, row.unit.as_deref()), (10, Some("1")));
            assert_eq!((row.baseline_ratio, &row.baseline_note), (None, &None));
            assert!(!row.is_score() && !row.is_main_share());
        }
        let read = find(&rows, model.id, "memory_read_bytes_per_s", 1);
        assert_eq!(
            (read.value, read.n, read.baseline_ratio),
            (Some(2e10), 1, None)
        );
    }
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

/// Cuts the only accuracy job of `model` into `count` shards, each on the machine given.
fn cut(fixture: &mut Fixture, job: u32, machines: &[usize]) {
    let count = NonZeroU32::new(machines.len() as u32).unwrap();
    let whole = fixture.bundle.manifest.jobs[job as usize].clone();
    let n_jobs = fixture.bundle.manifest.jobs.len() as u32;
    for (shard, machine) in (0..).zip(machines) {
        let index = if shard == 0 { job } else { n_jobs + shard - 1 };
        let mut outcome = whole.clone();
        outcome.job.id.index = index;
        outcome.machine_id = Some(fixture.bundle.manifest.machines[*machine].id.clone());
        if *machine > 0 {
            outcome.facts.as_mut().unwrap().kernel = "aarch64-i2_s-dotprod".to_owned();
        }
        match fixture.bundle.manifest.jobs.get_mut(index as usize) {
            Some(known) => *known = outcome,
            None => fixture.bundle.manifest.jobs.push(outcome),
        }
        fixture.accuracy_spec(index).shard = Some(Shard {
            index: shard,
            count,
        });
    }
    for row in &mut fixture.bundle.items {
        if row.job_index == job {
            let shard = row.item.index % count;
            row.job_index = if shard == 0 { job } else { n_jobs + shard - 1 };
        }
    }
}

fn answers(row: &SummaryRow) -> (usize, Option<f64>, Option<f64>, Status) {
    (row.n, row.value, row.stderr, row.status)
}

#[test]
fn shards_are_one_row_equal_to_the_whole() {
    let mut fixture = Fixture::new("shards", vec![machine("m"), machine("n")]);
    for model in [TERNARY_125M, DENSE_125M] {
        fixture.accuracy(model, 0, "arc_easy", 80);
    }
    let whole = rows(&fixture.bundle);
    cut(&mut fixture, 0, &[0, 1, 0]);
    let cut_rows = rows(&fixture.bundle);
    for metric in ["acc", "acc_norm"] {
        let before = find(&whole, TERNARY_125M.id, metric, 2);
        let found: Vec<&SummaryRow> = cut_rows
            .iter()
            .filter(|row| row.model == TERNARY_125M.id && row.metric.as_deref() == Some(metric))
            .collect();
        let [after] = found.as_slice() else {
            panic!("{} rows", found.len());
        };
        assert_eq!(answers(after), answers(before));
        assert_eq!((after.n_jobs, after.reason.as_deref()), (3, None));
        assert_eq!(after.machine.as_deref(), Some("m"));
        assert_eq!(
            after.kernel, "x86_64-i2_s-avx2 + aarch64-i2_s-dotprod",
            "kernels of all shards are named"
        );
        assert_eq!(after.source.as_deref(), Some("items on m and n"));
    }
}

#[test]
fn shards_on_several_machines_are_compared_with_shards_of_the_baseline() {
    let mut fixture = Fixture::new("shards", vec![machine("m"), machine("n")]);
    for model in [TERNARY_125M, DENSE_125M] {
        fixture.accuracy(model, 0, "arc_easy", 80);
    }
    let whole = rows(&fixture.bundle);
    cut(&mut fixture, 0, &[0, 1]);
    cut(&mut fixture, 1, &[1, 0]);
    let cut_rows = rows(&fixture.bundle);
    let before = find(&whole, TERNARY_125M.id, "acc", 2);
    let after = find(&cut_rows, TERNARY_125M.id, "acc", 2);
    assert!(before.baseline_difference.is_some());
    assert_eq!(after.baseline_difference, before.baseline_difference);
    assert_eq!(after.mcnemar_p, before.mcnemar_p);
}

#[test]
fn items_of_two_jobs_of_a_shard_count_once() {
    let mut fixture = Fixture::new("twice", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "arc_easy", 80);
    let whole = rows(&fixture.bundle);
    cut(&mut fixture, 0, &[0, 0]);
    // The second shard once more.
    let mut again = fixture.bundle.manifest.jobs[1].clone();
    again.job.id.index = 2;
    fixture.bundle.manifest.jobs.push(again);
    let items: Vec<_> = fixture.bundle.items.clone();
    fixture.bundle.items.extend(
        items
            .into_iter()
            .filter(|row| row.job_index == 1)
            .map(|row| crate::frame::ItemRow {
                job_index: 2,
                ..row
            }),
    );
    let twice = rows(&fixture.bundle);
    assert_eq!(
        answers(find(&twice, TERNARY_125M.id, "acc", 2)),
        answers(find(&whole, TERNARY_125M.id, "acc", 2))
    );
}

#[test]
fn a_missing_shard_marks_the_figure() {
    let mut fixture = Fixture::new("missing", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "arc_easy", 80);
    cut(&mut fixture, 0, &[0, 0, 0, 0]);
    for job in [1, 3] {
        fixture.bundle.manifest.jobs[job].state = JobState::Failed;
    }
    let rows = rows(&fixture.bundle);
    let row = rows.iter().find(|row| row.is_value_of("acc")).unwrap();
    assert_eq!((row.n, row.status), (40, Status::Incomplete));
    assert_eq!(
        row.reason.as_deref(),
        Some("40 of 80 items, shards 2, 4 of 4 missing")
    );
}

#[test]
fn shards_of_other_weights_are_no_part() {
    let mut fixture = Fixture::new("weights", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "arc_easy", 80);
    cut(&mut fixture, 0, &[0, 0]);
    let facts = fixture.bundle.manifest.jobs[1].facts.as_mut().unwrap();
    facts.weights_hash = "another".to_owned();
    let rows = rows(&fixture.bundle);
    let n: Vec<(usize, Status)> = rows
        .iter()
        .filter(|row| row.is_value_of("acc"))
        .map(|row| (row.n, row.status))
        .collect();
    assert!(
        n.iter().all(|row| *row == (40, Status::Incomplete)),
        "{n:?}"
    );
}

#[test]
fn groups_have_rows_and_the_whole_weighs_them_by_size() {
    let mut fixture = Fixture::new("groups", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "arc_easy", 90);
    for row in &mut fixture.bundle.items {
        // 10, 20 and 60 items.
        let group = match row.item.index {
            0..10 => "anatomy",
            10..30 => "law",
            _ => "virology",
        };
        row.item.group = Some(group.to_owned());
    }
    let rows = rows(&fixture.bundle);
    let acc: Vec<&SummaryRow> = rows.iter().filter(|row| row.is_value_of("acc")).collect();
    let whole = acc.iter().find(|row| row.group.is_none()).unwrap();
    let groups: Vec<&&SummaryRow> = acc.iter().filter(|row| row.group.is_some()).collect();
    let sizes: Vec<(Option<&str>, usize)> = groups
        .iter()
        .map(|row| (row.group.as_deref(), row.n))
        .collect();
    assert_eq!(
        sizes,
        [
            (Some("anatomy"), 10),
            (Some("law"), 20),
            (Some("virology"), 60)
        ]
    );
    let weighted: f64 = groups
        .iter()
        .map(|row| row.value.unwrap() * row.n as f64 / 90.0)
        .sum();
    assert!((whole.value.unwrap() - weighted).abs() < 1e-12);
    let right = fixture
        .bundle
        .items
        .iter()
        .filter(|row| row.item.scores[0].value == Some(1.0))
        .count();
    assert!((whole.value.unwrap() - right as f64 / 90.0).abs() < 1e-12);
    // lm-eval's pooled_sample_stderr of the three.
    let squares: f64 = groups
        .iter()
        .map(|row| (row.n as f64 - 1.0) * row.stderr.unwrap().powi(2) * row.n as f64)
        .sum();
    let pooled = (squares / 87.0 / 90.0).sqrt();
    assert!((whole.stderr.unwrap() - pooled).abs() < 1e-12);
    assert!(whole.is_main && whole.status == Status::Ok);
}

#[test]
fn what_is_undecided_is_counted_and_no_part_of_the_mean() {
    let mut fixture = Fixture::new("undecided", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "boolq", 40);
    let mut right = 0;
    for (at, row) in fixture.bundle.items.iter_mut().enumerate() {
        let score = &mut row.item.scores[0];
        match at % 4 {
            0 => {
                score.value = None;
                score.reason = Some("the program ran out of time".to_owned());
            }
            _ => right += usize::from(score.value == Some(1.0)),
        }
    }
    let row = rows(&fixture.bundle);
    let row = find(&row, TERNARY_125M.id, "acc", 2);
    assert_eq!((row.n, row.n_undecided), (30, Some(10)));
    assert!((row.value.unwrap() - right as f64 / 30.0).abs() < 1e-12);
    assert_eq!(row.status, Status::Ok);
    assert_eq!(
        row.reason.as_deref(),
        Some("10 undecided (the program ran out of time)")
    );

    for row in &mut fixture.bundle.items {
        row.item.scores[0].value = None;
    }
    let rows = rows(&fixture.bundle);
    let row = find(&rows, TERNARY_125M.id, "acc", 2);
    assert_eq!((row.value, row.n, row.n_undecided), (None, 0, Some(40)));
    assert_eq!(row.status, Status::Unmeasurable);
}

#[test]
fn what_is_pending_or_from_a_cache_is_counted_apart() {
    let mut fixture = Fixture::new("pending", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "boolq", 40);
    for (at, row) in fixture.bundle.items.iter_mut().enumerate() {
        let score = &mut row.item.scores[0];
        match at % 4 {
            0 => *score = ItemScore::pending(&score.metric, &score.filter),
            1 => {
                row.item.elapsed_ns = None;
                row.item.from_cache = Some(ItemOrigin {
                    job: fixture.bundle.manifest.jobs[0].job.id,
                    attempt: NonZeroU32::MIN,
                });
            }
            _ => {}
        }
    }
    let all = rows(&fixture.bundle);
    let row = find(&all, TERNARY_125M.id, "acc", 2);
    assert_eq!((row.n, row.n_undecided), (30, Some(0)));
    assert_eq!((row.n_pending, row.n_cached), (Some(10), Some(10)));
    assert_eq!(row.status, Status::Incomplete);
    assert_eq!(row.reason.as_deref(), Some("10 wait for their scores"));

    // A job that was not scored to its end says so, and its items are no result.
    fixture.bundle.manifest.jobs[0].state = JobState::Running;
    let all = rows(&fixture.bundle);
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].value, all[0].n_pending), (None, Some(10)));
    assert_eq!(all[0].status, Status::Unfinished);
    assert_eq!(
        all[0].reason.as_deref(),
        Some("the job is running; 10 answers wait for their scores")
    );
}

#[test]
fn what_items_took_is_given_in_all_and_each_by_source_and_never_compared() {
    let mut fixture = Fixture::new("energy of items", vec![machine("m")]);
    for model in [TERNARY_125M, DENSE_125M] {
        fixture.accuracy(model, 0, "boolq", 10);
    }
    let energy = |source: &str, joules| ItemEnergy {
        source: source.to_owned(),
        joules,
    };
    for row in &mut fixture.bundle.items {
        // The last window of the first job was too short.
        if row.job_index > 0 || row.item.index < 8 {
            row.item.energy = vec![
                energy("powercap:package-0", f64::from(row.item.index)),
                energy("powercap:dram-0", 0.5),
            ];
        }
    }
    let rows = rows(&fixture.bundle);
    let of = |model: &str, metric: &str| -> Vec<(&str, f64, Option<&str>)> {
        rows.iter()
            .filter(|row| row.model == model && row.is_value_of(metric))
            .map(|row| {
                assert_eq!((row.task.as_deref(), row.n_jobs), (Some("boolq"), 1));
                assert_eq!(row.grade.as_deref(), Some("counted"));
                assert_eq!((row.baseline_ratio, &row.baseline_note), (None, &None));
                assert!(row.is_cost_of_accuracy());
                let source = row.source.as_deref().unwrap();
                (source, row.value.unwrap(), row.reason.as_deref())
            })
            .collect()
    };
    let (package, dram) = ("powercap:package-0", "powercap:dram-0");
    let some = Some("of 8 of 10 items");
    let ternary = TERNARY_125M.id;
    assert_eq!(
        of(ternary, "energy_j"),
        [(dram, 4.0, some), (package, 28.0, some)]
    );
    assert_eq!(
        of(ternary, "energy_per_item_j"),
        [(dram, 0.5, some), (package, 3.5, some)]
    );
    let dense = DENSE_125M.id;
    assert_eq!(
        of(dense, "energy_j"),
        [(dram, 5.0, None), (package, 45.0, None)]
    );
    assert_eq!(
        of(dense, "energy_per_item_j"),
        [(dram, 0.5, None), (package, 4.5, None)]
    );
    // They stand in the CSV, beside the job's speed, and in no table of scores.
    assert!(rows.iter().any(|row| row.is_value_of("items_per_s")));
    let scores = rows.iter().filter(|row| !row.is_cost_of_accuracy());
    assert!(scores.into_iter().all(|row| row.filter.is_some()));
}

#[test]
fn rolling_answers_have_three_figures_of_all_texts_together() {
    let mut fixture = Fixture::new("wikitext", vec![machine("m")]);
    for (model, factor) in [(TERNARY_125M, 1.5), (DENSE_125M, 1.0)] {
        fixture.accuracy(model, 0, "wikitext", 0);
        let job = fixture.bundle.manifest.jobs.last().unwrap().job.id.index;
        let facts = fixture.bundle.manifest.jobs[job as usize].facts.as_mut();
        facts.unwrap().n_items = Some(2);
        for (index, (loglikelihood, n_words, n_bytes)) in
            (0..).zip([(-30.0, 10, 50), (-50.0, 15, 90)])
        {
            let answer = Answer::Rolling(RollingAnswer {
                loglikelihood: factor * loglikelihood,
                n_tokens: 20,
                n_words,
                n_bytes,
            });
            let scores = vec![ItemScore::plain("word_perplexity", 0.0)];
            fixture.item(job, "wikitext", index, answer, scores);
        }
    }
    let rows = rows(&fixture.bundle);
    // lm-eval 0.4: exp(80 / 25), exp(80 / 140), 80 / 140 / ln 2.
    for (metric, expected) in [
        ("word_perplexity", (80.0_f64 / 25.0).exp()),
        ("byte_perplexity", (80.0_f64 / 140.0).exp()),
        ("bits_per_byte", 80.0 / 140.0 / std::f64::consts::LN_2),
    ] {
        let row = find(&rows, DENSE_125M.id, metric, 2);
        assert!((row.value.unwrap() - expected).abs() < 1e-12, "{metric}");
        assert_eq!((row.n, row.stderr, row.status), (2, None, Status::Ok));
    }
    let ternary = find(&rows, TERNARY_125M.id, "word_perplexity", 2);
    let ratio = (40.0_f64 / 25.0).exp();
    assert!((ternary.baseline_ratio.unwrap() - ratio).abs() < 1e-12);
    assert_eq!(ternary.baseline_n, Some(2));
    assert!(!rows.iter().any(SummaryRow::is_main_share));
}

#[test]
fn every_score_of_a_task_has_its_row() {
    let mut fixture = Fixture::new("gsm8k", vec![machine("m")]);
    fixture.accuracy(TERNARY_125M, 0, "gsm8k", 0);
    let spec = fixture.accuracy_spec(0);
    spec.num_fewshot = 5;
    spec.chat = Some(ChatSpec::default());
    fixture.bundle.manifest.jobs[0]
        .facts
        .as_mut()
        .unwrap()
        .n_items = Some(4);
    for index in 0..4 {
        let score = |filter: &str, value| ItemScore {
            metric: "exact_match".to_owned(),
            filter: filter.to_owned(),
            value: Some(value),
            extracted: None,
            reason: None,
            pending: false,
        };
        let answer = Answer::Generated(GeneratedAnswer {
            text: "so #### 42".to_owned(),
            target: "42".to_owned(),
            n_prompt_tokens: 9,
            n_tokens: 3,
            end: "stop".to_owned(),
        });
        let strict = f64::from(u8::from(index == 0));
        let scores = vec![
            score("strict-match", strict),
            score("flexible-extract", 1.0),
        ];
        fixture.item(0, "gsm8k", index, answer, scores);
    }
    let rows = rows(&fixture.bundle);
    let found: Vec<_> = rows
        .iter()
        .filter(|row| row.metric.as_deref() == Some("exact_match"))
        .map(|row| (row.filter.as_deref(), row.value, row.is_main))
        .collect();
    assert_eq!(
        found,
        [
            (Some("strict-match"), Some(0.25), true),
            (Some("flexible-extract"), Some(1.0), false)
        ]
    );
    assert_eq!(rows[0].variant.as_deref(), Some("chat"));
    assert_eq!(
        crate::labels::figure("exact_match", Some("strict-match")),
        "Exact match, strict"
    );
}
