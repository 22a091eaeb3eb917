//! A run's bundle among the objects.

use std::path::Path;

use tritmark_proto::bundle::JobState;

use super::*;
use crate::{
    store::{AttemptEnd, AttemptState, SqliteStore},
    testing::{accuracy, facts, item, job, record, run, start, store},
};

async fn with_run(folder: &Path) -> (SqliteStore, StoredRun) {
    let store = store(folder).await;
    let run = run("kept");
    let jobs = [job(run.id, 0, "m", None, accuracy())];
    store.add_run(&run, &jobs).await.unwrap();
    let attempt = start(&store, jobs[0].id, 1).await;
    let records = [record(0, facts(Some(1))), record(1, item(0, -1.0))];
    store.add_records(attempt, &records).await.unwrap();
    let end = AttemptEnd {
        state: AttemptState::Succeeded,
        job_state: JobState::Succeeded,
        at_unix_ns: 5_000,
        n_records: Some(2),
        failure: None,
        counts: true,
        voids_earlier: false,
        if_lease_over_by_unix_ns: None,
    };
    store.end_attempt(attempt, &end).await.unwrap();
    let run = store.run(run.id).await.unwrap().unwrap();
    assert!(run.ended_unix_ns.is_some());
    (store, run)
}

#[tokio::test]
async fn a_run_that_has_ended_is_kept_and_comes_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::folder(&dir.path().join("objects")).unwrap();
    let (store, run) = with_run(dir.path()).await;
    let made = bundle::files(&store, run.clone()).await.unwrap();
    let first = files(&store, Some(&objects), run.clone()).await.unwrap();
    assert_eq!(first, made);
    // From the objects alone: a store that knows nothing of the run does.
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let other = crate::testing::store(&empty).await;
    let kept = files(&other, Some(&objects), run.clone()).await.unwrap();
    assert_eq!(kept, made);
    assert_eq!(kept.len(), FILES.len());
}

#[tokio::test]
async fn a_run_that_goes_on_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::folder(&dir.path().join("objects")).unwrap();
    let store = store(dir.path()).await;
    let run = run("open");
    let jobs = [job(run.id, 0, "m", None, accuracy())];
    store.add_run(&run, &jobs).await.unwrap();
    files(&store, Some(&objects), run.clone()).await.unwrap();
    assert_eq!(objects.run_text(run.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_kept_bundle_that_was_changed_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("objects");
    let objects = Objects::folder(&folder).unwrap();
    let (store, run) = with_run(dir.path()).await;
    let made = files(&store, Some(&objects), run.clone()).await.unwrap();
    let hash = ContentHash::of(&made[0].bytes).to_string();
    let blob = folder.join("blobs").join(&hash[..2]).join(&hash);
    std::fs::write(&blob, "invented").unwrap();
    assert_eq!(
        files(&store, Some(&objects), run.clone()).await.unwrap(),
        made
    );
    // And what was spoilt is mended.
    assert_eq!(std::fs::read(&blob).unwrap(), made[0].bytes);
    // A description that names anything else is not believed.
    let text = objects.run_text(run.id).await.unwrap().unwrap();
    let evil = String::from_utf8_lossy(&text).replace("run.json", "../run.json");
    objects.put_run_text(run.id, evil.into()).await.unwrap();
    assert_eq!(files(&store, Some(&objects), run).await.unwrap(), made);
}

#[tokio::test]
async fn objects_that_cannot_be_used_keep_nobody_from_the_results() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("objects");
    let objects = Objects::folder(&folder).unwrap();
    let (store, run) = with_run(dir.path()).await;
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    let made = bundle::files(&store, run.clone()).await.unwrap();
    assert_eq!(files(&store, Some(&objects), run).await.unwrap(), made);
}
