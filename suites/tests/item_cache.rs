//! Items that are kept between runs, through whole jobs on a bundled model.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use tritmark_proto::{
    job::{
        AccuracySpec, Job, JobId, KvType, Model, ModelSource, Numerics, RunId, Selector, SuiteSpec,
    },
    record::{Item, ItemOrigin, Metric, Outcome, RecordBody},
};
use tritmark_suites::{
    Context, Sink, accuracy::cache::ItemCache, clock::SystemClock, run, sandbox,
};

#[derive(Default)]
struct Heard {
    items: Vec<Item>,
    speed: Option<Outcome>,
    warnings: Vec<String>,
}

impl Sink for Heard {
    fn record(&mut self, body: RecordBody) -> io::Result<()> {
        match body {
            RecordBody::Item(item) => self.items.push(item),
            RecordBody::Measurement(found) if found.metric == Metric::ItemsPerS => {
                self.speed = Some(found.outcome);
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
        self.warnings.push(text.to_owned());
        Ok(())
    }
}

fn spec(limit: u32) -> AccuracySpec {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mini");
    AccuracySpec {
        limit: NonZeroU32::new(limit),
        cache: true,
        ..AccuracySpec::new("arc_easy", data)
    }
}

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bitnet-tiny.i2_s.gguf")
}

fn job(spec: AccuracySpec) -> Job {
    Job {
        id: JobId {
            run: RunId::generate(),
            index: 4,
        },
        model: Model {
            id: "m".to_owned(),
            source: ModelSource::Path(bundled()),
            adapter: None,
            baseline: None,
        },
        kernel: "auto".to_owned(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: NonZeroU32::MIN,
        suite: SuiteSpec::Accuracy(spec),
        selector: Selector::default(),
    }
}

fn done(job: &Job, folder: &Path, items_done: u64) -> Heard {
    let mut heard = Heard::default();
    let context = Context {
        cache_dir: folder.join("cache"),
        sysfs_root: PathBuf::from("/"),
        items_done,
        origin: Some(ItemOrigin {
            job: job.id,
            attempt: NonZeroU32::MIN,
        }),
        machine_id: Some("here".to_owned()),
        item_cache: Some(ItemCache {
            folder: folder.join("items"),
            max_bytes: 1 << 20,
        }),
        sandbox: sandbox::Options::default(),
        clock: &SystemClock::default(),
    };
    run(job, &context, &mut heard).unwrap();
    heard
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join("items"))
        .unwrap()
        .flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// What is the same wherever an item comes from.
fn told(items: &[Item]) -> Vec<Item> {
    let items = items.iter().cloned();
    items
        .map(|item| Item {
            elapsed_ns: None,
            energy: Vec::new(),
            from_cache: None,
            ..item
        })
        .collect()
}

#[test]
fn a_second_run_takes_all_items_and_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let first_job = job(spec(7));
    let first = done(&first_job, folder.path(), 0);
    assert!(first.items.iter().all(|item| item.from_cache.is_none()));
    assert!(first.items.iter().all(|item| item.elapsed_ns.is_some()));
    assert!(matches!(first.speed, Some(Outcome::Reading(_))));
    assert_eq!(files(folder.path()).len(), 7);

    let second = done(&job(spec(7)), folder.path(), 0);
    assert_eq!(told(&second.items), told(&first.items));
    let origin = ItemOrigin {
        job: first_job.id,
        attempt: NonZeroU32::MIN,
    };
    for item in &second.items {
        assert_eq!((item.elapsed_ns, item.from_cache), (None, Some(origin)));
    }
    let reason = "7 of 7 items are from the cache".to_owned();
    assert_eq!(second.speed, Some(Outcome::Skipped { reason }));
    assert!(second.warnings.is_empty());

    // More items, other threads and another lossless kernel: what is kept is taken, in its place.
    let mut more = job(spec(9));
    more.kernel = "scalar".to_owned();
    more.threads = NonZeroU32::new(2).unwrap();
    let third = done(&more, folder.path(), 2);
    let indexes: Vec<u32> = third.items.iter().map(|item| item.index).collect();
    assert_eq!(indexes, [2, 3, 4, 5, 6, 7, 8]);
    let n_kept = third.items.iter().filter(|item| item.from_cache.is_some());
    assert_eq!(n_kept.count(), 5);
}

#[test]
fn nothing_is_kept_or_taken_unless_the_plan_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let without = AccuracySpec {
        cache: false,
        ..spec(3)
    };
    done(&job(without.clone()), folder.path(), 0);
    assert!(!folder.path().join("items").exists());
    done(&job(spec(3)), folder.path(), 0);
    let again = done(&job(without), folder.path(), 0);
    assert!(again.items.iter().all(|item| item.from_cache.is_none()));
}

#[test]
fn a_run_that_asks_otherwise_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    done(&job(spec(3)), folder.path(), 0);
    let n_kept = |job: &Job| {
        let heard = done(job, folder.path(), 0);
        let kept = heard.items.iter().filter(|item| item.from_cache.is_some());
        kept.count()
    };
    assert_eq!(n_kept(&job(spec(3))), 3);
    let without_bos = AccuracySpec {
        add_bos: false,
        ..spec(3)
    };
    assert_eq!(n_kept(&job(without_bos)), 0);
    // The data without its end, which none of the three items is in.
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("arc_easy")).unwrap();
    let lines = fs::read_to_string(spec(3).data_dir.join("arc_easy/test.jsonl")).unwrap();
    let shorter: Vec<&str> = lines.lines().take(20).collect();
    fs::write(data.join("arc_easy/test.jsonl"), shorter.join("\n")).unwrap();
    let other_data = AccuracySpec {
        data_dir: data,
        ..spec(3)
    };
    assert_eq!(n_kept(&job(other_data)), 0);
    // The same weights behind one byte more are another file.
    let padded = folder.path().join("padded.gguf");
    let mut bytes = fs::read(bundled()).unwrap();
    bytes.push(0);
    fs::write(&padded, bytes).unwrap();
    let mut other = job(spec(3));
    other.model.source = ModelSource::Path(padded);
    assert_eq!(n_kept(&other), 0);
    let mut lossy = job(spec(3));
    lossy.kernel = "scalar-tl1-int8".to_owned();
    assert_eq!(n_kept(&lossy), 0);
}

#[test]
fn a_damaged_entry_is_said_and_its_item_evaluated_anew() {
    let folder = tempfile::tempdir().unwrap();
    let first = done(&job(spec(5)), folder.path(), 0);
    let damaged = &files(folder.path())[2];
    let whole = fs::read(damaged).unwrap();
    fs::write(damaged, &whole[..whole.len() / 2]).unwrap();
    let again = done(&job(spec(5)), folder.path(), 0);
    assert_eq!(told(&again.items), told(&first.items));
    let n_kept = again.items.iter().filter(|item| item.from_cache.is_some());
    assert_eq!(n_kept.count(), 4);
    assert_eq!(again.warnings.len(), 1, "{:?}", again.warnings);
    let third = done(&job(spec(5)), folder.path(), 0);
    assert!(third.items.iter().all(|item| item.from_cache.is_some()));
}
