//! Whole jobs through the worker's border: one request in, events out.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tritmark_engine::synth::{self, Format};
use tritmark_proto::{
    bundle::FailureClass,
    job::{
        AccuracySpec, AgreementSpec, EnergySpec, Head, Job, JobId, KvType, LatencySpec, MemorySpec,
        Model, ModelSource, Numerics, RunId, Selector, SuiteSpec, Synth, Workload,
    },
    record::{
        AgreementCell, Answer, Grade, Item, Measurement, Metric, ModelFacts, Outcome, Phase,
        RecordBody,
    },
    roofline::Arithmetic,
};
use tritmark_suites::worker::{WorkerEvent, WorkerFailed, WorkerRequest, worker_main};

const WORKLOAD: Workload = Workload {
    n_prompt: 6,
    n_gen: 3,
    n_depth: 2,
    n_batch: 4,
};

/// Returns a job on a model that is bundled with the repository.
fn job(suite: SuiteSpec) -> Job {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bitnet-tiny.i2_s.gguf");
    Job {
        id: JobId {
            run: RunId::generate(),
            index: 0,
        },
        model: Model {
            id: "bitnet-tiny".to_owned(),
            source: ModelSource::Path(model),
            adapter: None,
            baseline: None,
        },
        kernel: "auto".to_owned(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: NonZeroU32::MIN,
        suite,
        selector: Selector::default(),
    }
}

/// Runs a worker as its process would, and returns its last event and the records before.
fn work(job: Job, items_done: u64, root: &Path) -> (Vec<RecordBody>, Result<(), WorkerFailed>) {
    let request = WorkerRequest {
        items_done,
        sysfs_root: root.to_owned(),
        ..WorkerRequest::new(job, root.join("cache"))
    };
    let mut input = serde_json::to_vec(&request).unwrap();
    input.extend(b"\nmore is not read\n");
    let mut output = Vec::new();
    let code = worker_main(input.as_slice(), &mut output);
    let mut bodies = Vec::new();
    let mut end = None;
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        assert_eq!(end, None, "nothing follows the last event");
        match serde_json::from_slice(line).unwrap() {
            WorkerEvent::Record(record) => {
                assert_eq!(record.sequence, bodies.len() as u64);
                assert!(record.at_unix_ns > 1_600_000_000_000_000_000);
                bodies.push(record.body);
            }
            WorkerEvent::Warning(text) => panic!("{text}"),
            WorkerEvent::Progress(progress) => assert!(progress.done <= progress.total),
            WorkerEvent::Finished(finished) => {
                assert_eq!(finished.n_records, bodies.len() as u64);
                end = Some(Ok(()));
            }
            WorkerEvent::Failed(failed) => end = Some(Err(failed)),
        }
    }
    let end = end.expect("a worker that ends says how");
    let expected = if end.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    assert_eq!(format!("{code:?}"), format!("{expected:?}"));
    (bodies, end)
}

fn facts(bodies: &[RecordBody]) -> &ModelFacts {
    let RecordBody::Facts(facts) = &bodies[0] else {
        panic!("the first record is {:?}", bodies[0]);
    };
    facts
}

fn measurements(bodies: &[RecordBody], metric: Metric) -> Vec<&Measurement> {
    bodies
        .iter()
        .filter_map(|body| match body {
            RecordBody::Measurement(found) if found.metric == metric => Some(found),
            _ => None,
        })
        .collect()
}

fn values(bodies: &[RecordBody], metric: Metric) -> Vec<f64> {
    measurements(bodies, metric)
        .into_iter()
        .map(|measurement| match &measurement.outcome {
            Outcome::Reading(reading) => reading.value,
            Outcome::Skipped { reason } => panic!("{metric}: {reason}"),
        })
        .collect()
}

fn reasons(bodies: &[RecordBody], metric: Metric) -> Vec<(Option<Phase>, &str)> {
    measurements(bodies, metric)
        .into_iter()
        .map(|measurement| match &measurement.outcome {
            Outcome::Skipped { reason } => (measurement.phase, reason.as_str()),
            Outcome::Reading(reading) => panic!("{metric}: {reading:?}"),
        })
        .collect()
}

fn items(bodies: &[RecordBody]) -> Vec<&Item> {
    bodies
        .iter()
        .filter_map(|body| match body {
            RecordBody::Item(item) => Some(item),
            _ => None,
        })
        .collect()
}

#[test]
fn latency_keeps_every_repetition_and_every_token() {
    let root = tempfile::tempdir().unwrap();
    let suite = SuiteSpec::Latency(LatencySpec {
        workload: WORKLOAD,
        warm_ups: 1,
        repetitions: NonZeroU32::new(3).unwrap(),
        probe: true,
    });
    let (bodies, end) = work(job(suite), 0, root.path());
    assert_eq!(end, Ok(()));
    assert_eq!(facts(&bodies).weights_hash.len(), 64);
    assert_eq!(facts(&bodies).logits_fingerprint.len(), 32);
    for metric in [
        Metric::MemoryReadBytesPerS,
        Metric::Int8OpsPerS,
        Metric::F32OpsPerS,
    ] {
        let bounds = values(&bodies, metric);
        assert!(bounds.len() == 1 && bounds[0] > 0.0, "{metric}: {bounds:?}");
    }
    let demand = facts(&bodies).demand.unwrap();
    assert_eq!(demand.arithmetic, Some(Arithmetic::Int8));
    assert_eq!(demand.linear_ops, facts(&bodies).n_linear_params);
    assert!(demand.token_bytes > facts(&bodies).linear_weight_bytes);
    assert!(demand.token_bytes < facts(&bodies).weight_bytes);
    assert_eq!(values(&bodies, Metric::LoadNs).len(), 3);
    for (metric, phase) in [
        (Metric::PrefillTokPerS, Phase::Prefill),
        (Metric::TtftNs, Phase::Prefill),
        (Metric::DecodeTokPerS, Phase::Decode),
        (Metric::TpotNs, Phase::Decode),
    ] {
        let found = measurements(&bodies, metric);
        let repetitions: Vec<_> = found.iter().map(|found| found.repetition).collect();
        assert_eq!(repetitions, [Some(0), Some(1), Some(2)], "{metric}");
        assert!(
            found.iter().all(|found| found.phase == Some(phase)),
            "{metric}"
        );
        assert!(
            values(&bodies, metric).iter().all(|value| *value > 0.0),
            "{metric}"
        );
    }
    let tokens: Vec<_> = bodies
        .iter()
        .filter_map(|body| match body {
            RecordBody::Tokens(tokens) => Some(tokens),
            _ => None,
        })
        .collect();
    assert_eq!(tokens.len(), 3);
    assert!(
        tokens
            .iter()
            .all(|other| other.token_ids == tokens[0].token_ids)
    );
    for (tokens, ttft_ns) in tokens.iter().zip(values(&bodies, Metric::TtftNs)) {
        assert_eq!(tokens.token_ids.len(), 3);
        assert_eq!(tokens.elapsed_ns.len(), 3);
        assert!((tokens.elapsed_ns[0] as f64 - ttft_ns).abs() < 1.0);
    }
}

#[test]
fn a_record_says_fast_only_of_a_model_with_matrices_in_block_formats() {
    let root = tempfile::tempdir().unwrap();
    let facts_of = |format: Option<&str>, numerics| {
        let mut job = job(SuiteSpec::Memory(MemorySpec { workload: WORKLOAD }));
        if let Some(format) = format {
            job.model.source = ModelSource::Synth(Synth {
                shape: "125m".to_owned(),
                format: format.to_owned(),
                seed: 1,
            });
        }
        job.numerics = numerics;
        let (bodies, end) = work(job, 0, root.path());
        assert_eq!(end, Ok(()));
        facts(&bodies).clone()
    };
    let ternary = [Numerics::Exact, Numerics::Fast].map(|numerics| facts_of(None, numerics));
    assert_eq!(ternary[0], ternary[1]);
    assert_eq!(ternary[1].numerics, Numerics::Exact);
    let q4_0 = [Numerics::Exact, Numerics::Fast].map(|how| facts_of(Some("q4_0"), how));
    assert_eq!(q4_0[0].numerics, Numerics::Exact);
    assert_eq!(q4_0[1].numerics, Numerics::Fast);
    assert_ne!(q4_0[0].logits_fingerprint, q4_0[1].logits_fingerprint);
}

#[test]
fn keys_and_values_in_f16_take_half_and_a_head_is_screened_where_a_plan_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let suite = || SuiteSpec::Memory(MemorySpec { workload: WORKLOAD });
    let done = |kv, head| {
        let job = Job {
            kv,
            head,
            ..job(suite())
        };
        let (bodies, end) = work(job, 0, folder.path());
        end.unwrap();
        (facts(&bodies).clone(), values(&bodies, Metric::KvBytes)[0])
    };
    let (usual, wide) = done(KvType::F32, None);
    let (half, narrow) = done(KvType::F16, None);
    assert_eq!((usual.kv, half.kv), (KvType::F32, KvType::F16));
    assert!((wide - 2.0 * narrow).abs() < 0.5);
    assert_ne!(usual.logits_fingerprint, half.logits_fingerprint);
    let (full, _) = done(KvType::F32, Some(Head::Full));
    let (screened, _) = done(KvType::F32, Some(Head::Screened));
    assert!(!full.head_format.contains("screened"));
    assert!(screened.head_format.contains("screened"));
    assert_eq!(screened.head_format, usual.head_format);
    assert_eq!(full.logits_fingerprint, screened.logits_fingerprint);
}

#[test]
fn memory_counts_bytes_and_says_why_the_peak_is_unknown() {
    let root = tempfile::tempdir().unwrap();
    let suite = || SuiteSpec::Memory(MemorySpec { workload: WORKLOAD });
    // A root without /proc.
    let (bodies, end) = work(job(suite()), 0, root.path());
    assert_eq!(end, Ok(()));
    let facts = facts(&bodies);
    let one = |metric| values(&bodies, metric)[0];
    assert!((one(Metric::FileBytes) - facts.file_bytes as f64).abs() < 1.0);
    assert!(one(Metric::LinearWeightBytes) < one(Metric::WeightBytes));
    assert!(one(Metric::LinearWeightBytes) > facts.n_linear_params as f64 / 4.0 - 1.0);
    // Keys and values of 11 positions in f32: 4 layers, 2 heads of 32.
    assert!((one(Metric::KvBytes) - f64::from(2 * 4 * 11 * 4 * 2 * 32)).abs() < 1.0);
    let expected = [(None, "the system has no /proc/self/status")];
    assert_eq!(reasons(&bodies, Metric::PeakRssBytes), expected);
}

#[test]
#[cfg(target_os = "linux")]
fn memory_reads_the_peak_of_this_process() {
    let suite = SuiteSpec::Memory(MemorySpec { workload: WORKLOAD });
    let (bodies, end) = work(job(suite), 0, Path::new("/"));
    assert_eq!(end, Ok(()));
    let peak = measurements(&bodies, Metric::PeakRssBytes)[0];
    let Outcome::Reading(reading) = &peak.outcome else {
        panic!("{peak:?}");
    };
    assert_eq!(
        (reading.grade, reading.source.as_str()),
        (Grade::Counted, "procfs:VmHWM")
    );
    assert!(reading.value > values(&bodies, Metric::KvBytes)[0]);
}

fn energy() -> SuiteSpec {
    SuiteSpec::Energy(EnergySpec {
        workload: WORKLOAD,
        repetitions: NonZeroU32::MIN,
        idle_seconds: 0.1,
        window_seconds: 0.1,
    })
}

#[test]
fn energy_that_cannot_be_read_is_unmeasurable_and_never_zero() {
    let root = tempfile::tempdir().unwrap();
    let (bodies, end) = work(job(energy()), 0, root.path());
    assert_eq!(end, Ok(()));
    let reason = "this machine has no powercap counters (/sys/class/powercap is absent)";
    let expected = [
        (Some(Phase::Prefill), reason),
        (Some(Phase::Decode), reason),
    ];
    assert_eq!(reasons(&bodies, Metric::EnergyJ), expected);
    assert_eq!(
        measurements(&bodies, Metric::EnergyNetJ),
        Vec::<&Measurement>::new()
    );

    // The estimate stands in metrics of its own.
    let estimate = measurements(&bodies, Metric::EnergyEstimateJ)[0];
    let Outcome::Reading(reading) = &estimate.outcome else {
        panic!("{estimate:?}");
    };
    assert_eq!(
        (reading.grade, reading.source.as_str()),
        (Grade::Estimated, "aoe:7nm")
    );
    let per_token = values(&bodies, Metric::EnergyEstimatePerTokenJ)[0];
    assert!((reading.value / 512.0 - per_token).abs() < 1e-15);
}

#[test]
fn a_counter_that_stands_still_is_told_apart_from_none() {
    let root = tempfile::tempdir().unwrap();
    let zone = root.path().join("sys/class/powercap/intel-rapl:0");
    fs::create_dir_all(&zone).unwrap();
    for (file, text) in [
        ("name", "package-0"),
        ("energy_uj", "77"),
        ("max_energy_range_uj", "262143328850"),
    ] {
        fs::write(zone.join(file), text).unwrap();
    }
    let (bodies, end) = work(job(energy()), 0, root.path());
    assert_eq!(end, Ok(()));
    let reason = "powercap:package-0: the counter does not move";
    let expected = [
        (Some(Phase::Prefill), reason),
        (Some(Phase::Decode), reason),
    ];
    assert_eq!(reasons(&bodies, Metric::EnergyJ), expected);
}

fn accuracy(task: &str, data_dir: PathBuf, limit: u32) -> SuiteSpec {
    SuiteSpec::Accuracy(AccuracySpec {
        limit: NonZeroU32::new(limit),
        ..AccuracySpec::new(task, data_dir)
    })
}

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mini")
}

#[test]
fn an_accuracy_job_goes_on_where_an_earlier_attempt_stopped() {
    let root = tempfile::tempdir().unwrap();
    let suite = || accuracy("arc_easy", mini(), 5);
    let (whole, end) = work(job(suite()), 0, root.path());
    assert_eq!(end, Ok(()));
    assert_eq!(facts(&whole).n_items, Some(5));
    let hash = facts(&whole).data_hash.clone().unwrap();
    assert_eq!(hash.len(), 64);
    let (rest, end) = work(job(suite()), 3, root.path());
    assert_eq!(end, Ok(()));
    assert_eq!(facts(&rest).data_hash.as_ref(), Some(&hash));
    let without_time = |items: Vec<&Item>| -> Vec<Item> {
        let items = items.into_iter().cloned();
        items
            .map(|item| Item {
                elapsed_ns: None,
                energy: Vec::new(),
                ..item
            })
            .collect()
    };
    let (whole, rest) = (without_time(items(&whole)), without_time(items(&rest)));
    assert_eq!(whole.len(), 5);
    assert_eq!(whole[3..], rest);
    for (i, item) in whole.iter().enumerate() {
        assert_eq!(item.index as usize, i);
        assert!(item.score("acc_norm", "none").is_some());
        assert!(
            item.choices()
                .iter()
                .all(|choice| choice.loglikelihood < 0.0)
        );
    }
    let (none, end) = work(job(suite()), 5, root.path());
    assert_eq!(end, Ok(()));
    assert_eq!(none.len(), 1, "nothing is left but the facts");
}

#[test]
fn scores_do_not_depend_on_the_batch() {
    let root = tempfile::tempdir().unwrap();
    for task in ["arc_challenge", "winogrande"] {
        let [one, many] = [1, 64].map(|batch| {
            let mut suite = accuracy(task, mini(), 1000);
            if let SuiteSpec::Accuracy(spec) = &mut suite {
                spec.batch = NonZeroU32::new(batch);
                spec.num_fewshot = 0;
            }
            let (bodies, end) = work(job(suite), 0, root.path());
            assert_eq!(end, Ok(()));
            let items = items(&bodies).into_iter();
            items
                .map(|item| {
                    let bits = item.choices().iter().map(|c| c.loglikelihood.to_bits());
                    (item.index, bits.collect::<Vec<u64>>())
                })
                .collect::<Vec<_>>()
        });
        assert_eq!(one, many, "{task}");
    }
}

#[test]
fn every_bundled_item_can_be_scored() {
    let root = tempfile::tempdir().unwrap();
    for task in ["arc_challenge", "arc_easy", "boolq", "winogrande"] {
        let (bodies, end) = work(job(accuracy(task, mini(), 1000)), 0, root.path());
        assert_eq!(end, Ok(()), "{task}");
        let items = items(&bodies);
        assert_eq!(Some(items.len() as u64), facts(&bodies).n_items);
        assert!(values(&bodies, Metric::ItemsPerS)[0] > 0.0);
        let norms = items
            .iter()
            .filter(|item| item.score("acc_norm", "none").is_some());
        let expected = if task.starts_with("arc") {
            items.len()
        } else {
            0
        };
        assert_eq!(norms.count(), expected, "{task}");
        // No answer can be had by always taking one position.
        let gold_of = |item: &&&Item| match &item.answer {
            Answer::Choice(answer) => answer.gold,
            other => panic!("{other:?}"),
        };
        let golds: Vec<usize> = (0..items[0].choices().len() as u32)
            .map(|gold| items.iter().filter(|item| gold_of(item) == gold).count())
            .collect();
        let share = items.len() / golds.len();
        assert!(
            golds.iter().all(|&n| n.abs_diff(share) <= share / 2),
            "{task} {golds:?}"
        );
        let mut docs: Vec<&str> = items.iter().map(|item| item.doc_hash.as_str()).collect();
        docs.sort_unstable();
        docs.dedup();
        assert_eq!(docs.len(), items.len(), "{task} has an item twice");
    }
}

#[test]
fn a_synthetic_model_is_made_once() {
    let root = tempfile::tempdir().unwrap();
    let mut job = job(SuiteSpec::Memory(MemorySpec {
        workload: Workload {
            n_prompt: 1,
            n_gen: 1,
            ..WORKLOAD
        },
    }));
    job.model.source = ModelSource::Synth(Synth {
        shape: "125m".to_owned(),
        format: "i2_s".to_owned(),
        seed: 3,
    });
    let file = root.path().join("cache/125m-i2_s-3.gguf");
    // What a process that was killed may have left under that name is made anew.
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "torn").unwrap();
    let (bodies, end) = work(job.clone(), 0, root.path());
    assert_eq!(end, Ok(()));
    let shape = synth::shape("125m").unwrap();
    assert_eq!(facts(&bodies).n_linear_params, shape.n_linear_params());
    assert_eq!(
        facts(&bodies).file_bytes,
        synth::file_bytes(shape, Format::I2S).unwrap()
    );
    let made = fs::metadata(&file).unwrap().modified().unwrap();
    let (again, end) = work(job.clone(), 0, root.path());
    assert_eq!(end, Ok(()));
    assert_eq!(facts(&again), facts(&bodies));
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), made);
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);

    // Random weights have no words.
    job.suite = accuracy("boolq", mini(), 1);
    let (_, end) = work(job, 0, root.path());
    let failed = end.unwrap_err();
    assert_eq!(failed.class, FailureClass::Permanent);
    assert_eq!(
        failed.message,
        "cannot use the model's tokenizer: the model has no vocabulary"
    );
}

fn agreement(max_len: u32) -> SuiteSpec {
    let numbers = |list: &[u32]| list.iter().copied().filter_map(NonZeroU32::new).collect();
    SuiteSpec::Agreement(AgreementSpec {
        n_prompts: NonZeroU32::new(3).unwrap(),
        max_len: NonZeroU32::new(max_len).unwrap(),
        n_gen: 2,
        seed: 1,
        threads: numbers(&[1, 2]),
        n_batch: numbers(&[1, 8]),
    })
}

#[test]
fn an_agreement_has_a_record_for_each_cell_and_no_other_results() {
    let root = tempfile::tempdir().unwrap();
    let cells_of = |kv| {
        let job = Job {
            kv,
            ..job(agreement(16))
        };
        let (bodies, end) = work(job, 0, root.path());
        assert_eq!(end, Ok(()));
        assert_eq!(facts(&bodies).kv, kv);
        let cells = bodies[1..].iter().map(|body| match body {
            RecordBody::Cell(cell) => cell.clone(),
            other => panic!("{other:?}"),
        });
        cells.collect::<Vec<AgreementCell>>()
    };
    let cells = cells_of(KvType::F32);
    assert!(cells.iter().any(|cell| cell.kernel == "reference"));
    assert_eq!(cells.len() % 6, 0, "{cells:?}");
    for cell in &cells {
        assert!(cell.agrees() && cell.contradiction().is_none(), "{cell:?}");
        // Lengths 1, 8, 15 and two tokens behind each.
        assert_eq!((cell.equal, cell.positions), (30, 30));
        assert_eq!(cell.reference, cells[0].reference);
    }
    // Keys and values of less width give other logits, to every kernel the same.
    let narrow = cells_of(KvType::F16);
    assert!(narrow.iter().all(AgreementCell::agrees));
    assert_ne!(narrow[0].reference, cells[0].reference);
}

#[test]
fn prompts_that_do_not_fit_the_model_fail_for_good() {
    let root = tempfile::tempdir().unwrap();
    let (bodies, end) = work(job(agreement(4000)), 0, root.path());
    assert!(matches!(bodies[..], [RecordBody::Facts(_)]), "{bodies:?}");
    let failed = end.unwrap_err();
    assert_eq!(failed.class, FailureClass::Permanent);
    let expected = "cannot compare kernels: 4002 tokens do not fit the model's ";
    assert!(failed.message.starts_with(expected), "{}", failed.message);
}

#[test]
fn what_cannot_be_done_fails_for_good_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let check = |job: Job, expected: &str| {
        let (bodies, end) = work(job, 0, root.path());
        let failed = end.unwrap_err();
        assert_eq!(bodies, []);
        assert_eq!(failed.class, FailureClass::Permanent);
        assert!(failed.message.contains(expected), "{}", failed.message);
    };
    let memory = SuiteSpec::Memory(MemorySpec { workload: WORKLOAD });
    let mut missing = job(memory.clone());
    missing.model.source = ModelSource::Path("/no/such/model.gguf".into());
    check(missing, "cannot load the model /no/such/model.gguf: ");
    let mut kernel = job(memory.clone());
    kernel.kernel = "sse9".to_owned();
    check(kernel, "cannot use the kernel `sse9`: no kernel is called");
    let mut shape = job(memory);
    shape.model.source = ModelSource::Synth(Synth {
        shape: "9b".to_owned(),
        format: "i2_s".to_owned(),
        seed: 1,
    });
    check(
        shape,
        "no synthetic model has the shape `9b` (there are 125m",
    );
    check(job(accuracy("arc", mini(), 1)), "unknown task `arc`");
    check(
        job(accuracy("boolq", "/nowhere".into(), 1)),
        "/nowhere/boolq has none of validation",
    );

    let folder = root.path().join("boolq");
    fs::create_dir_all(&folder).unwrap();
    let good = r#"{"question": "q", "passage": "p", "answer": true}"#;
    fs::write(
        folder.join("validation.jsonl"),
        format!("{good}\n{{\"question\": 1}}\n"),
    )
    .unwrap();
    let (bodies, end) = work(
        job(accuracy("boolq", root.path().into(), 9)),
        0,
        root.path(),
    );
    assert_eq!(items(&bodies).len(), 1);
    let message = end.unwrap_err().message;
    assert!(
        message.contains("validation.jsonl: line 2: key `prompt.question` undefined value"),
        "{message}"
    );
}

#[test]
fn a_request_that_cannot_be_read_is_the_agent_s_fault() {
    let mut output = Vec::new();
    worker_main(&b"{\"job\": 1}\n"[..], &mut output);
    let event: WorkerEvent = serde_json::from_slice(&output).unwrap();
    let WorkerEvent::Failed(failed) = event else {
        panic!("{event:?}");
    };
    assert_eq!(failed.class, FailureClass::Infrastructure);
    assert!(
        failed
            .message
            .starts_with("the worker cannot read its request: ")
    );
}
