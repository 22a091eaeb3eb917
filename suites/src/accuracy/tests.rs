//! Whole jobs on a bundled model, on machines whose counters are made up.

use std::{
    cell::Cell,
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use tritmark_proto::{
    job::{JobId, KvType, Model, ModelSource, Numerics, RunId, ScoreOn, Selector, SuiteSpec},
    record::{Item, ItemOrigin},
};

use super::{cache::ItemCache, *};
use crate::{
    clock::Clock,
    meter::fake::{FakeFile, FakeTree},
};

const PACKAGE: &str = "powercap:package-0";
const ENERGY: &str = "sys/class/powercap/intel-rapl:0/energy_uj";

/// What a counter gains from one reading to the next.
const STEP_J: f64 = 0.005;

/// A counter, which wraps before long.
fn counting() -> FakeFile {
    FakeFile::Counter {
        value: 930_000,
        step: 5000,
        range: 1_000_000,
    }
}

/// A machine and its clock. A look at the clock takes a millisecond where counters have been read
/// since the last one, so that they seem to move that often, and `look_ns` otherwise.
struct Machine {
    tree: FakeTree,
    look_ns: u64,
    now_ns: Cell<u64>,
    reads: Cell<u64>,
}

impl Machine {
    fn new(tree: FakeTree, look_ms: u64) -> Self {
        Self {
            tree,
            look_ns: look_ms * 1_000_000,
            now_ns: Cell::new(0),
            reads: Cell::new(0),
        }
    }

    fn with_counter(look_ms: u64) -> Self {
        let tree = FakeTree::default().zone("intel-rapl:0", "package-0", counting());
        Self::new(tree, look_ms)
    }
}

impl Clock for Machine {
    fn now_ns(&self) -> u64 {
        let reads = self.tree.reads();
        let took_ns = if reads == self.reads.replace(reads) {
            self.look_ns
        } else {
            1_000_000
        };
        self.now_ns.update(|now_ns| now_ns + took_ns);
        self.now_ns.get()
    }

    fn sleep(&self, time: Duration) {
        self.now_ns.update(|now_ns| now_ns + time.as_nanos() as u64);
    }

    fn unix_ns(&self) -> i64 {
        0
    }
}

#[derive(Default)]
struct Heard<'m> {
    items: Vec<Item>,
    /// Why energy is not known.
    reasons: Vec<String>,
    /// A machine whose counter vanishes with the first item.
    breaks: Option<&'m Machine>,
}

impl Sink for Heard<'_> {
    fn record(&mut self, body: RecordBody) -> io::Result<()> {
        match body {
            RecordBody::Item(item) => {
                if let Some(machine) = self.breaks {
                    machine.tree.remove(ENERGY);
                }
                self.items.push(item);
            }
            RecordBody::Measurement(found) if found.metric == Metric::EnergyJ => {
                let Outcome::Skipped { reason } = found.outcome else {
                    panic!("{found:?}");
                };
                self.reasons.push(reason);
            }
            _ => {}
        }
        Ok(())
    }

    fn progress(&mut self, _: &str, done: u64, total: u64) -> io::Result<()> {
        assert!(done <= total);
        Ok(())
    }

    fn warn(&mut self, text: &str) -> io::Result<()> {
        panic!("{text}");
    }
}

impl Heard<'_> {
    /// The joules of each item, which have one source at most.
    fn joules(&self) -> Vec<Option<f64>> {
        let indexes: Vec<u32> = self.items.iter().map(|item| item.index).collect();
        assert!(indexes.is_sorted(), "{indexes:?}");
        let joules = |item: &Item| match item.energy.as_slice() {
            [] => None,
            [energy] => {
                assert_eq!(energy.source, PACKAGE);
                Some(energy.joules)
            }
            more => panic!("{more:?}"),
        };
        self.items.iter().map(joules).collect()
    }

    /// How often the counter has been read for what the items have.
    fn windows(&self) -> f64 {
        let n_windows = self.joules().into_iter().flatten().sum::<f64>() / STEP_J;
        assert!((n_windows - n_windows.round()).abs() < 1e-9, "{n_windows}");
        n_windows.round()
    }
}

fn spec(limit: u32, batch: u32) -> AccuracySpec {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mini");
    AccuracySpec {
        limit: NonZeroU32::new(limit),
        batch: NonZeroU32::new(batch),
        ..AccuracySpec::new("arc_easy", data)
    }
}

fn done<'m>(
    machine: &Machine,
    spec: &AccuracySpec,
    item_cache: Option<ItemCache>,
    mut heard: Heard<'m>,
) -> (Heard<'m>, Result<(), SuiteError>) {
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/bitnet-tiny.i2_s.gguf"
    );
    let job = Job {
        id: JobId {
            run: RunId::generate(),
            index: 0,
        },
        model: Model {
            id: "bitnet-tiny".to_owned(),
            source: ModelSource::Path(model.into()),
            adapter: None,
            baseline: None,
        },
        kernel: "auto".to_owned(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: NonZeroU32::MIN,
        suite: SuiteSpec::Accuracy(spec.clone()),
        selector: Selector::default(),
    };
    let context = Context {
        origin: Some(ItemOrigin {
            job: job.id,
            attempt: NonZeroU32::MIN,
        }),
        machine_id: None,
        item_cache,
        cache_dir: PathBuf::new(),
        sysfs_root: PathBuf::new(),
        items_done: 0,
        sandbox: crate::sandbox::Options::default(),
        clock: machine,
    };
    let end = run_on(&machine.tree, &job, spec, &context, &mut heard);
    (heard, end)
}

fn measured(machine: &Machine, spec: &AccuracySpec) -> Heard<'static> {
    let (heard, end) = done(machine, spec, None, Heard::default());
    end.unwrap();
    heard
}

#[test]
fn a_window_holds_whole_batches_and_its_items_add_up_to_it() {
    // Three looks a batch: four batches until a second is over, and the fifth is left.
    let heard = measured(&Machine::with_counter(100), &spec(20, 4));
    let joules = heard.joules();
    assert_eq!(joules.len(), 20);
    for joules in &joules[..16] {
        let share = joules.unwrap() - STEP_J / 16.0;
        assert!(share.abs() < 1e-12, "{share}");
    }
    assert_eq!(joules[16..], [None; 4], "the last window is too short");
    assert!(heard.items.iter().all(|item| item.elapsed_ns.is_some()));
    assert_eq!(heard.reasons, [] as [&str; 0]);
}

#[test]
fn a_batch_that_is_long_enough_has_a_window_of_its_own() {
    let heard = measured(&Machine::with_counter(600), &spec(20, 5));
    assert!(heard.joules().iter().all(Option::is_some));
    assert!((heard.windows() - 4.0).abs() < f64::EPSILON);
}

#[test]
fn a_job_that_is_too_short_has_no_energy_and_all_its_items() {
    let heard = measured(&Machine::with_counter(1), &spec(20, 4));
    assert_eq!(heard.joules(), [None; 20]);
    assert_eq!(heard.reasons, [] as [&str; 0]);
}

#[test]
fn answers_that_decode_together_add_up_to_their_windows() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("humaneval");
    fs::create_dir_all(&data).unwrap();
    let lines: Vec<String> = (0..9)
        .map(|n| {
            format!(
                r#"{{"task_id": "HumanEval/{n}", "prompt": "def f{n}():\n", "entry_point": "f{n}", "canonical_solution": "", "test": ""}}"#
            )
        })
        .collect();
    fs::write(data.join("test.jsonl"), lines.join("\n")).unwrap();
    let spec = AccuracySpec {
        batch: NonZeroU32::new(3),
        max_new: NonZeroU32::new(3),
        // Whoever scores them does it later.
        score_on: ScoreOn::Coordinator,
        ..AccuracySpec::new("humaneval", folder.path().to_owned())
    };
    // Two looks an answer.
    let heard = measured(&Machine::with_counter(300), &spec);
    let joules = heard.joules();
    assert_eq!(joules.len(), 9);
    // Those that ended in the last window are missing.
    let n_measured = joules.iter().flatten().count();
    assert!((6..=9).contains(&n_measured), "{joules:?}");
    assert!(heard.windows() >= 3.0, "{joules:?}");
}

#[test]
fn items_from_the_cache_have_no_energy_and_those_between_them_have() {
    let folder = tempfile::tempdir().unwrap();
    let cached = |limit, batch| {
        let spec = AccuracySpec {
            cache: true,
            ..spec(limit, batch)
        };
        let cache = ItemCache {
            folder: folder.path().to_owned(),
            max_bytes: 1 << 20,
        };
        let machine = Machine::with_counter(600);
        let (heard, end) = done(&machine, &spec, Some(cache), Heard::default());
        end.unwrap();
        let from_cache = heard.items.iter().map(|item| item.from_cache.is_some());
        let from_cache: Vec<bool> = from_cache.collect();
        (heard.joules(), from_cache, heard.windows())
    };
    let (joules, from_cache, n_windows) = cached(6, 3);
    assert!(joules.iter().all(Option::is_some) && !from_cache.contains(&true));
    assert!((n_windows - 2.0).abs() < f64::EPSILON);

    let (joules, from_cache, n_windows) = cached(12, 3);
    for (index, (joules, from_cache)) in joules.iter().zip(from_cache).enumerate() {
        assert_eq!((joules.is_none(), from_cache), (index < 6, index < 6));
    }
    assert!((n_windows - 2.0).abs() < f64::EPSILON);
    let (joules, ..) = cached(12, 3);
    assert_eq!(joules, [None; 12]);
}

#[test]
fn a_machine_without_counters_is_no_news() {
    let heard = measured(&Machine::new(FakeTree::default(), 600), &spec(8, 4));
    assert_eq!(heard.joules(), [None; 8]);
    assert_eq!(heard.reasons, [] as [&str; 0]);
}

#[test]
fn a_counter_that_may_not_be_read_is_told_once() {
    let denied = FakeFile::Error(io::ErrorKind::PermissionDenied);
    let tree = FakeTree::default()
        .zone("intel-rapl:0", "package-0", denied)
        .zone("intel-rapl:0:0", "dram", counting());
    let heard = measured(&Machine::new(tree, 600), &spec(8, 4));
    let [reason] = heard.reasons.as_slice() else {
        panic!("{:?}", heard.reasons);
    };
    let expected = format!("{PACKAGE}: permission denied for /{ENERGY}");
    assert!(reason.starts_with(&expected), "{reason}");
    for item in &heard.items {
        let sources: Vec<&str> = item.energy.iter().map(|e| e.source.as_str()).collect();
        assert_eq!(sources, ["powercap:dram-0"]);
    }
}

#[test]
fn a_counter_that_vanishes_is_told_once_and_gives_nothing_from_then_on() {
    let machine = Machine::with_counter(600);
    let heard = Heard {
        breaks: Some(&machine),
        ..Heard::default()
    };
    let (heard, end) = done(&machine, &spec(20, 4), None, heard);
    end.unwrap();
    let joules = heard.joules();
    assert!(joules[..4].iter().all(Option::is_some), "{joules:?}");
    assert_eq!(joules[4..], [None; 16]);
    let expected = format!("{PACKAGE}: /{ENERGY} has vanished");
    assert_eq!(heard.reasons, [expected]);
}

#[test]
fn what_waits_for_its_window_is_recorded_where_a_later_item_fails() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("arc_easy");
    fs::create_dir_all(&data).unwrap();
    let good = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mini/arc_easy/test.jsonl"),
    )
    .unwrap();
    let lines: Vec<&str> = good.lines().take(3).chain([r#"{"id": "bad"}"#]).collect();
    fs::write(data.join("test.jsonl"), lines.join("\n")).unwrap();
    let machine = Machine::with_counter(1);
    let spec = AccuracySpec {
        batch: NonZeroU32::new(2),
        ..AccuracySpec::new("arc_easy", folder.path().to_owned())
    };
    let (heard, end) = done(&machine, &spec, None, Heard::default());
    assert!(matches!(end, Err(SuiteError::Data { .. })), "{end:?}");
    assert_eq!(heard.joules(), [None; 3]);
}
