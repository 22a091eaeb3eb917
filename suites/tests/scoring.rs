//! Programs scored where they are written, and elsewhere: the verdicts are the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod common;

use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use tritmark_proto::{
    job::{
        AccuracySpec, ChatSpec, Job, JobId, KvType, Model, ModelSource, Numerics, RunId, ScoreOn,
        Selector, SuiteSpec,
    },
    record::{Answer, Item, ItemEnergy, RecordBody},
};
use tritmark_suites::{
    Context, Sink, SuiteError, accuracy::score, clock::SystemClock, run, sandbox,
};

/// Problems of no published set, as `HumanEval` writes them.
const HUMANEVAL: [&str; 3] = [
    r#"{"task_id": "HumanEval/9000", "prompt": "def add(a, b):\n", "entry_point": "add", "canonical_solution": "    return a + b\n", "test": "def check(f):\n    assert f(1, 2) == 3\n"}"#,
    r#"{"task_id": "HumanEval/9001", "prompt": "def twice(a):\n", "entry_point": "twice", "canonical_solution": "    return 2 * a\n", "test": "def check(f):\n    assert f(4) == 8\n"}"#,
    r#"{"task_id": "HumanEval/9002", "prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n", "test": "def check(f):\n    assert f() == 1\n"}"#,
];

/// As `EvalPlus` does.
const EVALPLUS: [&str; 2] = [
    r#"{"task_id": "HumanEval/9000", "prompt": "def add(a, b):\n", "entry_point": "add", "canonical_solution": "    return a + b\n", "atol": 0, "contract": "", "base_input": [[1, 2]], "plus_input": [[0, -1], [5, 5]]}"#,
    r#"{"task_id": "HumanEval/9001", "prompt": "def half(a):\n", "entry_point": "half", "canonical_solution": "    return a / 2\n", "atol": 0, "contract": "", "base_input": [[4]], "plus_input": [[5], [0]]}"#,
];

#[derive(Default)]
struct Items(Vec<Item>);

impl Sink for Items {
    fn record(&mut self, body: RecordBody) -> io::Result<()> {
        if let RecordBody::Item(item) = body {
            self.0.push(item);
        }
        Ok(())
    }

    fn progress(&mut self, _: &str, done: u64, total: u64) -> io::Result<()> {
        assert!(done <= total);
        Ok(())
    }
}

fn data(folder: &Path) -> PathBuf {
    let root = folder.join("data");
    for (task, lines) in [("humaneval", &HUMANEVAL[..]), ("humaneval_plus", &EVALPLUS)] {
        fs::create_dir_all(root.join(task)).unwrap();
        fs::write(root.join(task).join("test.jsonl"), lines.join("\n")).unwrap();
    }
    root
}

fn job(folder: &Path, task: &str, score_on: ScoreOn) -> Job {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bitnet-tiny.i2_s.gguf");
    Job {
        id: JobId {
            run: RunId::generate(),
            index: 0,
        },
        model: Model {
            id: "m".to_owned(),
            source: ModelSource::Path(model),
            adapter: None,
            baseline: None,
        },
        kernel: "auto".to_owned(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: NonZeroU32::MIN,
        suite: SuiteSpec::Accuracy(AccuracySpec {
            score_on,
            max_new: NonZeroU32::new(4),
            ..AccuracySpec::new(task, data(folder))
        }),
        selector: Selector::default(),
    }
}

fn context<'a>(folder: &Path, clock: &'a SystemClock) -> Context<'a> {
    Context {
        cache_dir: folder.join("cache"),
        sysfs_root: PathBuf::from("/"),
        items_done: 0,
        origin: None,
        machine_id: Some("here".to_owned()),
        item_cache: None,
        sandbox: sandbox::Options {
            entry: Some(common::entry()),
            cpu_factor: Some(1.0),
            ..sandbox::Options::default()
        },
        clock,
    }
}

fn written(folder: &Path, task: &str, score_on: ScoreOn) -> Vec<Item> {
    let clock = SystemClock::default();
    let mut items = Items::default();
    let job = job(folder, task, score_on);
    run(&job, &context(folder, &clock), &mut items).unwrap();
    items.0
}

fn scored(folder: &Path, job: &Job, items: Vec<Item>) -> Result<Vec<Item>, SuiteError> {
    let clock = SystemClock::default();
    let mut scored = Items::default();
    score(job, items, &context(folder, &clock), &mut scored)?;
    Ok(scored.0)
}

/// Puts another answer in the place of what the model wrote.
fn with_answer(item: &Item, text: &str) -> Item {
    let mut item = item.clone();
    let Answer::Generated(answer) = &mut item.answer else {
        panic!("a program is a text");
    };
    text.clone_into(&mut answer.text);
    item
}

fn values(items: &[Item]) -> Vec<Vec<Option<f64>>> {
    let of = |item: &Item| item.scores.iter().map(|score| score.value).collect();
    items.iter().map(of).collect()
}

#[test]
fn a_program_is_pending_until_it_is_scored_and_then_as_if_scored_at_once() {
    if common::sandbox(sandbox::Options::default()).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (task, n, n_scores) in [("humaneval", 3, 1), ("humaneval_plus", 2, 2)] {
        let at_once = written(folder.path(), task, ScoreOn::Agent);
        assert_eq!(at_once.len(), n);
        assert!(at_once.iter().all(|item| !item.is_pending()));
        let mut pending = written(folder.path(), task, ScoreOn::Coordinator);
        let energy = vec![ItemEnergy {
            source: "powercap:psys".to_owned(),
            joules: 0.1 + 0.2,
        }];
        pending[1].energy.clone_from(&energy);
        for item in &pending {
            assert_eq!(item.scores.len(), n_scores);
            assert!(item.scores.iter().all(|score| score.pending));
            assert_eq!(item.scored_on, None);
        }
        let job = job(folder.path(), task, ScoreOn::Coordinator);
        let later = scored(folder.path(), &job, pending).unwrap();
        assert_eq!(later[1].energy, energy, "what writing took stays");
        let told = |items: &[Item]| -> Vec<Item> {
            let items = items.iter().cloned();
            items
                .map(|item| Item {
                    elapsed_ns: None,
                    energy: Vec::new(),
                    ..item
                })
                .collect()
        };
        assert_eq!(told(&later), told(&at_once), "{task}");
        assert!(
            later
                .iter()
                .all(|item| item.scored_on.as_deref() == Some("here"))
        );
    }
}

#[test]
fn right_and_wrong_programs_are_told_apart_wherever_they_were_written() {
    if common::sandbox(sandbox::Options::default()).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pending = written(folder.path(), "humaneval", ScoreOn::Coordinator);
    // Two of three, as after a scorer that died.
    let items = vec![
        with_answer(&pending[2], "    return 1\n"),
        with_answer(&pending[1], "    return a + 3\n"),
    ];
    let humaneval = job(folder.path(), "humaneval", ScoreOn::Coordinator);
    let found = scored(folder.path(), &humaneval, items).unwrap();
    let indexes: Vec<u32> = found.iter().map(|item| item.index).collect();
    assert_eq!(indexes, [1, 2]);
    assert_eq!(values(&found), [[Some(0.0)], [Some(1.0)]]);

    let pending = written(folder.path(), "humaneval_plus", ScoreOn::Coordinator);
    let mut plus = job(folder.path(), "humaneval_plus", ScoreOn::Coordinator);
    let items = vec![
        with_answer(&pending[0], "    return a + b\n"),
        // Right for 4 and not for 5.
        with_answer(&pending[1], "    return a // 2\n"),
    ];
    let found = scored(folder.path(), &plus, items).unwrap();
    assert_eq!(
        values(&found),
        [[Some(1.0), Some(1.0)], [Some(1.0), Some(0.0)]]
    );
    // Of a chat the whole program is in the answer.
    if let SuiteSpec::Accuracy(spec) = &mut plus.suite {
        spec.chat = Some(ChatSpec::default());
    }
    let items = vec![with_answer(
        &pending[0],
        "def add(a, b):\n    return a + b\n```\n",
    )];
    let found = scored(folder.path(), &plus, items).unwrap();
    assert_eq!(values(&found), [[Some(1.0), Some(1.0)]]);
}

#[test]
fn answers_to_other_data_are_not_scored() {
    if common::sandbox(sandbox::Options::default()).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pending = written(folder.path(), "humaneval", ScoreOn::Coordinator);
    let job = job(folder.path(), "humaneval", ScoreOn::Coordinator);
    let refused = |item: Item| {
        let error = scored(folder.path(), &job, vec![item]).unwrap_err();
        error.to_string()
    };
    let other = Item {
        doc_hash: "other".to_owned(),
        ..pending[0].clone()
    };
    assert!(refused(other).contains("item 0 was asked of other data"));
    let missing = Item {
        index: 7,
        ..pending[0].clone()
    };
    assert!(refused(missing).contains("no item 7"));
}

#[test]
fn without_a_sandbox_nothing_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    // Pending programs need no sandbox where they are written.
    let pending = written(folder.path(), "humaneval", ScoreOn::Coordinator);
    let job = job(folder.path(), "humaneval", ScoreOn::Coordinator);
    let clock = SystemClock::default();
    let mut nowhere = context(folder.path(), &clock);
    nowhere.sandbox.python = Some("/nonexistent/python3".into());
    let mut items = Items::default();
    let error = score(&job, pending, &nowhere, &mut items).unwrap_err();
    assert!(matches!(error, SuiteError::Sandbox(_)), "{error}");
    assert!(items.0.is_empty());
}
