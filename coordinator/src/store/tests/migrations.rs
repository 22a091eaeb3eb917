//! Stores of every version are opened by this one.

use sqlx::{
    AssertSqlSafe, PgPool, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tritmark_proto::record::RecordBody;

use super::*;
use crate::store::migrations;

/// What each version's store was filled with beside what was there, as it was then, with the version;
/// files are added and never changed.
const SQLITE: [(i64, &str); 4] = [
    (1, include_str!("../../../tests/data/stores/sqlite_v1.sql")),
    (2, include_str!("../../../tests/data/stores/sqlite_v2.sql")),
    (3, include_str!("../../../tests/data/stores/sqlite_v3.sql")),
    (5, include_str!("../../../tests/data/stores/sqlite_v5.sql")),
];
const POSTGRES: [(i64, &str); 4] = [
    (
        1,
        include_str!("../../../tests/data/stores/postgres_v1.sql"),
    ),
    (
        2,
        include_str!("../../../tests/data/stores/postgres_v2.sql"),
    ),
    (
        3,
        include_str!("../../../tests/data/stores/postgres_v3.sql"),
    ),
    (
        5,
        include_str!("../../../tests/data/stores/postgres_v5.sql"),
    ),
];

/// Makes a store of an earlier version, which went through those before it.
async fn make(bed: &Bed, version: i64) {
    match bed.location() {
        Location::Sqlite(path) => {
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true);
            // One connection: another would not see at once that a table has become wider.
            let pool = SqlitePoolOptions::new().max_connections(1);
            let pool = pool.connect_with(options).await.unwrap();
            let earlier = SQLITE.iter().filter(|(target, _)| *target <= version);
            for &(target, rows) in earlier {
                migrations::sqlite().run_to(target, &pool).await.unwrap();
                sqlx::raw_sql(rows).execute(&pool).await.unwrap();
            }
            pool.close().await;
        }
        Location::Postgres(url) => {
            let pool = PgPool::connect(&url).await.unwrap();
            let earlier = POSTGRES.iter().filter(|(target, _)| *target <= version);
            for &(target, rows) in earlier {
                migrations::postgres().run_to(target, &pool).await.unwrap();
                sqlx::raw_sql(rows).execute(&pool).await.unwrap();
            }
            pool.close().await;
        }
    }
}

/// Runs a statement beside the store.
async fn execute(bed: &Bed, sql: &'static str) {
    match bed.location() {
        Location::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path);
            let pool = SqlitePool::connect_with(options).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&pool)
                .await
                .unwrap();
            pool.close().await;
        }
        Location::Postgres(url) => {
            let pool = PgPool::connect(&url).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&pool)
                .await
                .unwrap();
            pool.close().await;
        }
    }
}

/// Reads all of a store that [`make`] has made, and goes on with it.
async fn check_all(store: &dyn Store) {
    let runs = store.open_runs().await.unwrap();
    let [run] = &runs[..] else {
        panic!("{runs:?}");
    };
    assert_eq!((&*run.name, run.submitted_unix_ns), ("quickstart", 1000));
    let jobs = store.jobs(run.id).await.unwrap();
    let states: Vec<&str> = jobs.iter().map(|job| job.state.name()).collect();
    assert_eq!(
        states,
        [
            "succeeded",
            "failed",
            "running",
            "queued",
            "cancelled",
            "queued"
        ]
    );
    let failure = jobs[1].attempts[0].failure.as_ref().unwrap();
    assert_eq!((&*failure.message, &*failure.stderr), ("it broke", "trace"));
    assert_eq!(jobs[2].attempts.len(), 2);
    assert!(jobs[2].attempts[0].is_void && !jobs[2].attempts[1].is_void);
    assert!(!jobs[5].attempts[0].counts);
    let mut kinds = BTreeMap::new();
    for job in &jobs {
        for (_, record) in store.records(job.job.id).await.unwrap() {
            let kind = match record.body {
                RecordBody::Facts(_) => "facts",
                RecordBody::Measurement(_) => "measurement",
                RecordBody::Tokens(_) => "tokens",
                RecordBody::Item(_) => "item",
                RecordBody::Cell(_) => "cell",
            };
            *kinds.entry(kind).or_insert(0) += 1;
        }
    }
    let kinds: Vec<(&str, i32)> = kinds.into_iter().collect();
    assert_eq!(
        kinds,
        [("facts", 4), ("item", 5), ("measurement", 8), ("tokens", 1)]
    );
    assert_eq!(store.items_done(jobs[2].job.id).await.unwrap(), 4);
    assert_eq!(store.facts(jobs[2].job.id).await.unwrap().len(), 2);
    let agents = store.agents().await.unwrap();
    assert_eq!(agents[0].labels["room"], "2");
    assert_eq!(agents[0].machine.hostname, "machine-1.example");

    let running = jobs[2].attempts[1].id;
    let done = end(AttemptState::Succeeded, JobState::Succeeded);
    store.end_attempt(running, &done).await.unwrap();
    let next = start(store, jobs[5].job.id, 1).await;
    assert_eq!((next.attempt.get(), next.fence), (2, 6));
    let appended = store.add_records(next, &readings(0..3)).await.unwrap();
    assert_eq!(appended.stored_below, 3);
}

/// Reads what version 3 has added, and that what is older is as if nobody had said anything.
async fn check_scheduling(store: &dyn Store, is_there: bool) {
    let runs = store.runs().await.unwrap();
    let agent = store.agents().await.unwrap().swap_remove(0);
    let calibrations = store.calibrations(&agent.machine.id, 10).await.unwrap();
    if !is_there {
        assert_eq!(
            (
                runs[0].priority,
                runs[0].expires_unix_ns,
                runs[0].paused_unix_ns
            ),
            (0, None, None)
        );
        assert_eq!((agent.quarantine, agent.drain_unix_ns), (None, None));
        assert_eq!(calibrations, []);
        return;
    }
    let other = &runs[1];
    assert_eq!(
        (other.priority, other.expires_unix_ns, other.paused_unix_ns),
        (-5, Some(2_500), Some(2_200))
    );
    let jobs = store.jobs(other.id).await.unwrap();
    assert_eq!(jobs[0].failure, Some(expiry()));
    assert!(jobs[0].is_expired());
    assert_eq!(store.job_counts(other.id).await.unwrap().expired, 1);
    assert_eq!(
        agent.quarantine,
        Some(Quarantine {
            since_unix_ns: 2_700,
            reason: "int8 peak is low".to_owned(),
        })
    );
    assert_eq!(agent.drain_unix_ns, Some(2_600));
    let [calibration] = &calibrations[..] else {
        panic!("{calibrations:?}");
    };
    assert!(calibration.counts && calibration.boot_id == "a-boot");
    assert_eq!(calibration.calibration.threads, 4);
}

/// Reads the cells that version 5 has added, and keeps one more in every store.
async fn check_agreement(store: &dyn Store, is_there: bool) {
    let is_cell = |record: &Record| matches!(record.body, RecordBody::Cell(_));
    if is_there {
        let run = store.runs().await.unwrap()[1].id;
        let jobs = store.jobs(run).await.unwrap();
        let records = stored(store, jobs[1].job.id).await;
        assert!(
            records.len() == 2 && records.iter().all(is_cell),
            "{records:?}"
        );
        let SuiteSpec::Agreement(spec) = &jobs[1].job.suite else {
            panic!("{jobs:?}");
        };
        assert_eq!((spec.n_prompts.get(), spec.threads.len()), (6, 2));
    }
    let run = store.open_runs().await.unwrap()[0].id;
    let running = store.jobs(run).await.unwrap().swap_remove(5);
    let attempt = running.attempts.last().unwrap().id;
    let record = record(3, cell(None));
    store
        .add_records(attempt, std::slice::from_ref(&record))
        .await
        .unwrap();
    assert_eq!(stored(store, running.job.id).await.last(), Some(&record));
}

on_both! {
async fn stores_of_every_version_are_gone_on_with(bed: &Bed) {
    let (is_sqlite, versions) = match bed {
        Bed::Sqlite(_) => (true, SQLITE.map(|(version, _)| version)),
        Bed::Postgres(_) => (false, POSTGRES.map(|(version, _)| version)),
    };
    for version in versions {
        let bed = if is_sqlite {
            Bed::sqlite()
        } else {
            Bed::postgres().await.unwrap()
        };
        make(&bed, version).await;
        let store = bed.open().await;
        check_all(&*store).await;
        let run = store.open_runs().await.unwrap()[0].id;
        let signatures = store.signatures(run).await.unwrap();
        let signed = vec![(0, 1, vec![1, 2])];
        assert_eq!(signatures, if version < 2 { Vec::new() } else { signed });
        check_scheduling(&*store, version >= 3).await;
        check_agreement(&*store, version >= 5).await;
    }
}

async fn a_store_of_a_newer_version_is_refused(bed: &Bed) {
    drop(bed.open().await);
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
               SELECT 99, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";
    execute(bed, sql).await;
    let refusal = open(&bed.location()).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Migrate { .. }), "{refusal}");
}
}

#[test]
fn what_was_released_is_not_changed() {
    let released = |migrator: &sqlx::migrate::Migrator| {
        let migrations = migrator.iter().map(|migration| {
            let sum = migration.checksum.iter().take(8);
            let sum: Vec<String> = sum.map(|byte| format!("{byte:02x}")).collect();
            (migration.version, sum.concat())
        });
        migrations.collect::<Vec<_>>()
    };
    assert_eq!(
        released(&migrations::sqlite()),
        [
            (1, "fd8eaa36fd248adb".to_owned()),
            (2, "82875bc291201730".to_owned()),
            (3, "0dd56ae88dd15c52".to_owned()),
            (5, "cd9d79a01729fdf2".to_owned())
        ]
    );
    assert_eq!(
        released(&migrations::postgres()),
        [
            (1, "e7fb18c98fd96fff".to_owned()),
            (2, "0259ac0edce55e0b".to_owned()),
            (3, "3af6f50283f7fc13".to_owned()),
            (4, "bc580527afb0080a".to_owned()),
            (5, "492135b4d36f347c".to_owned()),
            (6, "78851dceb781c032".to_owned())
        ]
    );
}
