use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use tritmark_proto::job::{JobId, RunId};

use super::*;
use crate::{
    artefacts::{ArtefactsConfig, register::describe},
    objects::Objects,
    plan::Plan,
    store::{self, StoredRun, plan_hash},
};

const DAY: Duration = Duration::from_hours(24);

const PLAN: &str = r#"
[[models]]
id = "m"
path = "m.gguf"

[suites.latency]
n_gen = [4]
"#;

/// A coordinator's store and files, without the coordinator.
struct Bench {
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    shelf: Arc<Shelf>,
}

impl Bench {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(ArtefactsConfig {
            objects: Objects::folder(&dir.path().join("objects")).unwrap(),
            staging: dir.path().join("staging"),
            readable: vec![dir.path().to_owned()],
            keep: None,
        });
        let location = dir.path().join("store.sqlite").into();
        Self {
            store: store::open(&location).await.unwrap(),
            shelf: Arc::new(shelf.unwrap()),
            dir,
        }
    }

    /// Puts a file among the objects that was written so long ago.
    async fn put(&self, contents: &str, age: Duration) -> ContentHash {
        let put = self.shelf.objects.put(contents.to_owned().into()).await;
        let hash = put.unwrap();
        self.make_old(hash, age);
        hash
    }

    fn make_old(&self, hash: ContentHash, age: Duration) {
        let name = hash.to_string();
        let blobs = self.dir.path().join("objects/blobs");
        let file = fs::File::options()
            .write(true)
            .open(blobs.join(&name[..2]).join(name));
        file.unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    async fn has(&self, hash: ContentHash) -> bool {
        self.shelf.objects.size_bytes(hash).await.unwrap().is_some()
    }

    /// Stores a run that names a model of these contents, submitted so long ago.
    async fn run(&self, contents: &str, age: Duration) -> (RunId, ContentHash) {
        let base = self.dir.path();
        fs::write(base.join("m.gguf"), contents).unwrap();
        let plan = Plan::parse(PLAN, "p", base).unwrap();
        let registered = self.shelf.register(plan.paths(), BTreeMap::new(), true);
        let plan = plan.with_files(&registered.await.unwrap().files);
        let run = StoredRun {
            id: RunId::generate(),
            name: "p".to_owned(),
            plan_hash: plan_hash(PLAN, "/"),
            plan_toml: PLAN.to_owned(),
            submitted_unix_ns: now_unix_ns() - i64::try_from(age.as_nanos()).unwrap(),
            ended_unix_ns: None,
            tritmark_version: "0".to_owned(),
            priority: 0,
            expires_unix_ns: None,
            paused_unix_ns: None,
        };
        self.store.add_run(&run, &plan.jobs(run.id)).await.unwrap();
        let hash = describe(Path::new(&base.join("m.gguf"))).unwrap();
        (run.id, hash.files.files()[0].hash)
    }

    async fn end(&self, run: RunId) {
        self.store.cancel_run(run, now_unix_ns()).await.unwrap();
    }

    async fn pass(&self) -> Option<usize> {
        let passed = pass(&*self.store, &self.shelf, 30 * DAY).await;
        passed.unwrap()
    }
}

#[tokio::test]
async fn what_no_run_has_named_for_long_goes() {
    let bench = Bench::open().await;
    let old = bench.put("nobody's", 31 * DAY).await;
    let young = bench.put("nobody's yet", 29 * DAY).await;
    let (open, of_open) = bench.run("of an open run", 90 * DAY).await;
    let (recent, of_recent) = bench.run("of a recent run", DAY).await;
    let (ended, of_ended) = bench.run("of a run long ago", 90 * DAY).await;
    bench.end(recent).await;
    bench.end(ended).await;
    for hash in [of_open, of_recent, of_ended] {
        bench.make_old(hash, 90 * DAY);
    }
    // What somebody else has put there.
    let foreign = bench.dir.path().join("objects/blobs/notes.txt");
    fs::write(&foreign, "ours").unwrap();
    let handle = fs::File::options().write(true).open(&foreign).unwrap();
    handle.set_modified(SystemTime::UNIX_EPOCH).unwrap();

    assert_eq!(bench.pass().await, Some(2));
    assert!(!bench.has(old).await && !bench.has(of_ended).await);
    assert!(bench.has(young).await && bench.has(of_open).await && bench.has(of_recent).await);
    assert!(foreign.exists());
    assert_eq!(bench.pass().await, Some(0));

    bench.end(open).await;
    assert_eq!(bench.pass().await, Some(1));
    assert!(!bench.has(of_open).await);
    // What is needed again is taken again, and stays.
    let (_, again) = bench.run("of an open run", Duration::ZERO).await;
    assert_eq!(again, of_open);
    assert_eq!(bench.pass().await, Some(0));
    assert!(bench.has(of_open).await);
}

#[tokio::test]
async fn bundles_stay_and_what_cannot_be_read_lets_nothing_go() {
    let bench = Bench::open().await;
    let (run, _) = bench.run("a model", 90 * DAY).await;
    let model = bench.store.jobs(run).await.unwrap().swap_remove(0).job.id;
    assert_eq!(model, JobId { run, index: 0 });
    bench.end(run).await;
    let stored = bench.store.run(run).await.unwrap().unwrap();
    let objects = &bench.shelf.objects;
    let files = archive::files(&*bench.store, Some(objects), stored).await;
    let in_bundle: Vec<ContentHash> = files
        .unwrap()
        .iter()
        .map(|file| ContentHash::of(&file.bytes))
        .collect();
    let kept = objects.written_before(i64::MAX).await.unwrap();
    for hash in &kept {
        bench.make_old(*hash, 90 * DAY);
    }
    // A description that is not understood may name anything.
    let newer = RunId::generate();
    let text = format!(r#"{{ "version": 99, "run": "{newer}", "files": [] }}"#);
    objects.put_run_text(newer, text.into()).await.unwrap();
    let refusal = pass(&*bench.store, &bench.shelf, 30 * DAY).await;
    assert!(refusal.unwrap_err().to_string().contains("version 99"));
    objects.put_run_text(newer, b"{".to_vec()).await.unwrap();
    let refusal = pass(&*bench.store, &bench.shelf, 30 * DAY).await;
    assert!(matches!(refusal, Err(CollectError::Archive(_))));
    assert_eq!(
        objects.written_before(i64::MAX).await.unwrap().len(),
        kept.len()
    );

    let runs = bench.dir.path().join("objects/runs");
    fs::remove_file(runs.join(format!("{newer}.json"))).unwrap();
    assert_eq!(bench.pass().await, Some(1), "the model alone goes");
    for hash in in_bundle {
        assert!(bench.has(hash).await);
    }
}

#[tokio::test]
async fn nothing_goes_while_a_plan_is_being_submitted() {
    let bench = Bench::open().await;
    let old = bench.put("m", 31 * DAY).await;
    fs::write(bench.dir.path().join("m.gguf"), "m").unwrap();
    let plan = Plan::parse(PLAN, "p", bench.dir.path()).unwrap();
    let registered = bench.shelf.register(plan.paths(), BTreeMap::new(), true);
    let registered = registered.await.unwrap();
    assert_eq!(bench.pass().await, None);
    assert!(bench.has(old).await);
    drop(registered);
    assert_eq!(bench.pass().await, Some(1));
}
