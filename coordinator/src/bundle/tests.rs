//! What a bundle holds, read back with polars.

use std::io::Cursor;

use polars::prelude::{AnyValue, DataFrame, DataType, ParquetReader, SerReader as _};
use tritmark_proto::{
    bundle::{
        AGREEMENT, AGREEMENT_COLUMNS, Failure, FailureClass, ITEM_COLUMNS, ITEMS, JobState,
        MEASUREMENT_COLUMNS, MEASUREMENTS, SCORE_COLUMNS, SCORES, TOKEN_COLUMNS, TOKENS,
    },
    job::Job,
    record::{Answer, GeneratedAnswer, Item, ItemEnergy, ItemScore, RollingAnswer},
};

use super::*;
use crate::{
    store::AttemptEnd,
    testing::{
        accuracy, agreement, cell, facts, item, job, latency, parted, reading, record, run,
        skipped, start, store, tokens,
    },
};

fn end(state: AttemptState, job_state: JobState) -> AttemptEnd {
    AttemptEnd {
        state,
        job_state,
        at_unix_ns: 5_000,
        n_records: None,
        failure: (state == AttemptState::Failed).then(|| Failure {
            class: FailureClass::Transient,
            message: "it broke".into(),
            stderr: String::new(),
        }),
        counts: true,
        voids_earlier: false,
        if_lease_over_by_unix_ns: None,
    }
}

fn bodies(bodies: impl IntoIterator<Item = RecordBody>) -> Vec<Record> {
    (0..).zip(bodies).map(|(n, body)| record(n, body)).collect()
}

async fn read(store: &dyn Store, run: &StoredRun) -> (Manifest, [DataFrame; 5]) {
    let run = store.run(run.id).await.unwrap().unwrap();
    let files = files(store, run).await.unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name).collect();
    assert_eq!(
        names,
        [
            MANIFEST,
            MEASUREMENTS,
            ITEMS,
            SCORES,
            TOKENS,
            AGREEMENT,
            EVIDENCE
        ]
    );
    let manifest = serde_json::from_slice(&files[0].bytes).unwrap();
    let table = |at: usize| {
        ParquetReader::new(Cursor::new(files[at].bytes.clone()))
            .finish()
            .unwrap()
    };
    (manifest, [table(1), table(2), table(3), table(4), table(5)])
}

fn column_names(frame: &DataFrame) -> Vec<&str> {
    frame
        .get_column_names()
        .into_iter()
        .map(polars::prelude::PlSmallStr::as_str)
        .collect()
}

fn u32s(frame: &DataFrame, column: &str) -> Vec<u32> {
    frame
        .column(column)
        .unwrap()
        .u32()
        .unwrap()
        .into_no_null_iter()
        .collect()
}

async fn with_jobs(
    store: &dyn Store,
    jobs: impl FnOnce(RunId) -> Vec<Job>,
) -> (StoredRun, Vec<Job>) {
    let run = run("bundle");
    let jobs = jobs(run.id);
    store.add_run(&run, &jobs).await.unwrap();
    (run, jobs)
}

#[tokio::test]
async fn an_empty_run_has_every_column_with_its_type() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (run, _) = with_jobs(&store, |id| vec![job(id, 0, "m", None, latency())]).await;
    let (manifest, [measurements, items, scores, tokens, cells]) = read(&store, &run).await;
    assert_eq!(manifest.run.ended_at, None);
    assert_eq!(manifest.jobs[0].state, JobState::Queued);
    assert_eq!((manifest.jobs[0].attempt, manifest.machines.len()), (0, 0));
    assert_eq!(column_names(&measurements), MEASUREMENT_COLUMNS);
    assert_eq!(column_names(&items), ITEM_COLUMNS);
    assert_eq!(column_names(&scores), SCORE_COLUMNS);
    assert_eq!(column_names(&tokens), TOKEN_COLUMNS);
    assert_eq!(column_names(&cells), AGREEMENT_COLUMNS);
    let types = |frame: &DataFrame| -> Vec<String> {
        frame.dtypes().iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        types(&measurements),
        [
            "u32", "u32", "u64", "i64", "str", "str", "str", "str", "u32", "u32", "u32", "u32",
            "u32", "f64", "str", "str", "str"
        ]
    );
    assert_eq!(
        types(&items),
        [
            "u32",
            "u32",
            "u64",
            "i64",
            "str",
            "str",
            "u32",
            "str",
            "str",
            "u32",
            "u32",
            "u32",
            "list[f64]",
            "list[bool]",
            "list[u32]",
            "list[u32]",
            "str",
            "str",
            "str",
            "u32",
            "u32",
            "f64",
            "u32",
            "u32",
            "u64",
            "str",
            "str",
            "list[str]",
            "list[f64]"
        ]
    );
    assert_eq!(
        types(&scores),
        [
            "u32", "u32", "u64", "str", "u32", "str", "str", "f64", "str", "str", "bool"
        ]
    );
    assert_eq!(
        types(&tokens),
        [
            "u32", "u32", "u64", "u32", "u32", "u32", "u32", "u32", "u32", "u32", "u64"
        ]
    );
    assert_eq!(
        types(&cells),
        [
            "u32", "u32", "u64", "i64", "str", "u32", "u32", "bool", "u64", "u64", "str", "str",
            "u32", "u32", "f64", "f64", "f64", "u32", "u32"
        ]
    );
}

#[tokio::test]
async fn cells_come_from_the_attempt_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (run, jobs) = with_jobs(&store, |id| vec![job(id, 0, "m", None, agreement())]).await;
    let id = jobs[0].id;
    let first = start(&store, id, 1).await;
    let records = bodies([facts(None), cell(Some(parted()))]);
    store.add_records(first, &records).await.unwrap();
    store
        .end_attempt(first, &end(AttemptState::Failed, JobState::Queued))
        .await
        .unwrap();
    let second = start(&store, id, 2).await;
    let records = bodies([facts(None), cell(None), cell(Some(parted()))]);
    store.add_records(second, &records).await.unwrap();
    store
        .end_attempt(second, &end(AttemptState::Succeeded, JobState::Succeeded))
        .await
        .unwrap();
    let (manifest, [measurements, .., table]) = read(&store, &run).await;
    assert_eq!(manifest.jobs[0].job, jobs[0]);
    assert_eq!(measurements.height(), 0);
    assert_eq!(u32s(&table, "attempt"), [2, 2]);
    assert_eq!(cells(&table, "equal"), ["95", "90"]);
    assert_eq!(cells(&table, "reused_prefix"), ["true", "true"]);
    assert_eq!(cells(&table, "position"), ["null", "4"]);
    // Wider, and still what was said in 32 bits.
    let max_abs = table.column("max_abs").unwrap().f64().unwrap().get(1);
    assert_eq!(max_abs, Some(f64::from(0.1_f32)));
}

#[tokio::test]
async fn measurements_and_tokens_come_from_the_last_attempt_that_succeeded() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (run, jobs) = with_jobs(&store, |id| vec![job(id, 0, "m", None, latency())]).await;
    let id = jobs[0].id;
    let first = start(&store, id, 1).await;
    store
        .add_records(first, &bodies([facts(None), reading(1.0), tokens()]))
        .await
        .unwrap();
    store
        .end_attempt(first, &end(AttemptState::Failed, JobState::Queued))
        .await
        .unwrap();
    let (manifest, [measurements, ..]) = read(&store, &run).await;
    assert_eq!((manifest.jobs[0].attempt, measurements.height()), (1, 1));
    assert_eq!(
        manifest.jobs[0].failure.as_ref().unwrap().message,
        "it broke"
    );

    let second = start(&store, id, 2).await;
    let records = bodies([facts(None), reading(2.5), skipped("no counter"), tokens()]);
    store.add_records(second, &records).await.unwrap();
    store
        .end_attempt(second, &end(AttemptState::Succeeded, JobState::Succeeded))
        .await
        .unwrap();
    let (manifest, [measurements, items, _, tokens, _]) = read(&store, &run).await;
    let outcome = &manifest.jobs[0];
    assert_eq!((outcome.state, outcome.attempt), (JobState::Succeeded, 2));
    assert_eq!(outcome.machine_id.as_deref(), Some("machine-2"));
    assert_eq!((&outcome.failure, outcome.facts.is_some()), (&None, true));
    assert!(manifest.run.ended_at.is_some());
    assert_eq!(manifest.machines.len(), 1);
    assert_eq!(u32s(&measurements, "attempt"), [2, 2]);
    let cell = |column: &str, row: usize| measurements.column(column).unwrap().get(row).unwrap();
    assert_eq!(cell("value", 0), AnyValue::Float64(2.5));
    assert_eq!(cell("value", 1), AnyValue::Null);
    assert_eq!(cell("skipped_reason", 0), AnyValue::Null);
    assert_eq!(cell("skipped_reason", 1).get_str(), Some("no counter"));
    assert_eq!(cell("metric", 0).get_str(), Some("decode_tok_per_s"));
    assert_eq!(cell("unit", 0).get_str(), Some("tok/s"));
    assert_eq!(cell("phase", 0).get_str(), Some("decode"));
    assert_eq!(cell("grade", 0).get_str(), Some("counted"));
    assert_eq!(cell("n_gen", 0), AnyValue::UInt32(3));
    assert_eq!(cell("n_gen", 1), AnyValue::Null);
    assert_eq!(items.height(), 0);
    assert_eq!(u32s(&tokens, "token_index"), [0, 1, 2]);
    assert_eq!(u32s(&tokens, "token_id"), [7, 8, 9]);
}

#[tokio::test]
async fn items_are_put_together_from_all_attempts_and_the_first_stored_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (run, jobs) = with_jobs(&store, |id| vec![job(id, 0, "m", None, accuracy())]).await;
    let id = jobs[0].id;
    let first = start(&store, id, 1).await;
    let records = bodies([facts(Some(3)), item(0, -1.0), item(1, -1.5), item(1, -9.0)]);
    store.add_records(first, &records).await.unwrap();
    store
        .end_attempt(first, &end(AttemptState::Lost, JobState::Queued))
        .await
        .unwrap();
    let second = start(&store, id, 2).await;
    let records = bodies([facts(Some(3)), item(2, -2.0), item(1, -8.0), reading(4.0)]);
    store.add_records(second, &records).await.unwrap();
    let (manifest, [measurements, items, scores, ..]) = read(&store, &run).await;
    assert_eq!(manifest.jobs[0].state, JobState::Running);
    assert_eq!(measurements.height(), 1);
    assert_eq!(u32s(&items, "item_index"), [0, 1, 2]);
    assert_eq!(u32s(&items, "attempt"), [1, 1, 2]);
    assert_eq!(u32s(&scores, "item_index"), [0, 1, 2]);
    assert_eq!(u32s(&scores, "attempt"), [1, 1, 2]);
    let lists = items
        .column("loglikelihoods")
        .unwrap()
        .list()
        .unwrap()
        .clone();
    let row: Vec<f64> = lists
        .get_as_series(1)
        .unwrap()
        .f64()
        .unwrap()
        .into_no_null_iter()
        .collect();
    assert_eq!(row, [-1.5, -0.5]);
    assert_eq!(lists.dtype(), &DataType::List(Box::new(DataType::Float64)));
    let greedy = items
        .column("is_greedy")
        .unwrap()
        .list()
        .unwrap()
        .get_as_series(2)
        .unwrap();
    let greedy: Vec<Option<bool>> = greedy.bool().unwrap().iter().collect();
    assert_eq!(greedy, [Some(false), Some(true)]);

    store
        .end_attempt(
            second,
            &AttemptEnd {
                voids_earlier: true,
                ..end(AttemptState::Failed, JobState::Queued)
            },
        )
        .await
        .unwrap();
    let (_, [_, items, ..]) = read(&store, &run).await;
    assert_eq!(
        u32s(&items, "item_index"),
        [1, 2],
        "void items are left out"
    );
}

#[tokio::test]
async fn a_bundle_is_written_whole_and_over_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (run, jobs) = with_jobs(&store, |id| vec![job(id, 0, "m", None, latency())]).await;
    let folder = dir.path().join("out/bundle");
    write(&store, run.id, &folder).await.unwrap();
    let attempt = start(&store, jobs[0].id, 1).await;
    store
        .add_records(attempt, &bodies([reading(1.0)]))
        .await
        .unwrap();
    write(&store, run.id, &folder).await.unwrap();
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            AGREEMENT,
            EVIDENCE,
            ITEMS,
            MEASUREMENTS,
            MANIFEST,
            SCORES,
            TOKENS
        ]
    );
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(folder.join(MANIFEST)).unwrap()).unwrap();
    assert_eq!(manifest.jobs[0].job, jobs[0]);
    assert_eq!(manifest.run.plan_toml, run.plan_toml);
    let unknown = write(&store, RunId::generate(), &folder).await.unwrap_err();
    assert!(matches!(unknown, BundleError::NoRun(_)), "{unknown}");
}

fn cells(frame: &DataFrame, column: &str) -> Vec<String> {
    let column = frame.column(column).unwrap();
    (0..frame.height())
        .map(|row| column.get(row).unwrap().str_value().into_owned())
        .collect()
}

#[tokio::test]
async fn energy_of_items_is_a_list_of_counters_and_one_of_joules() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (run, jobs) = with_jobs(&store, |id| vec![job(id, 0, "m", None, accuracy())]).await;
    let attempt = start(&store, jobs[0].id, 1).await;
    let all = [("powercap:package-0", 2.5), ("powercap:dram-0", 0.5)];
    let with_energy = |index: u32| {
        let RecordBody::Item(item) = item(index, -1.0) else {
            unreachable!("an item is one");
        };
        let energy = all[..index as usize].iter();
        let energy = energy.map(|(source, joules)| ItemEnergy {
            source: (*source).to_owned(),
            joules: *joules,
        });
        RecordBody::Item(Item {
            energy: energy.collect(),
            ..item
        })
    };
    let records = bodies([
        facts(Some(3)),
        with_energy(0),
        with_energy(1),
        with_energy(2),
    ]);
    store.add_records(attempt, &records).await.unwrap();
    let (_, [_, items, ..]) = read(&store, &run).await;
    let lists = |column: &str| -> Vec<Vec<String>> {
        let lists = items.column(column).unwrap().list().unwrap();
        (0..3)
            .map(|row| {
                let list = lists.get_as_series(row).unwrap();
                let cells = list.iter().map(|cell| cell.str_value().into_owned());
                cells.collect()
            })
            .collect()
    };
    let [(package, _), (dram, _)] = all;
    assert_eq!(
        lists("energy_sources"),
        [vec![], vec![package], vec![package, dram]]
    );
    assert_eq!(lists("energy_j"), [vec![], vec!["2.5"], vec!["2.5", "0.5"]]);
}

#[tokio::test]
async fn each_kind_of_answer_has_its_columns_and_its_scores() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (run, jobs) = with_jobs(&store, |id| vec![job(id, 0, "m", None, accuracy())]).await;
    let attempt = start(&store, jobs[0].id, 1).await;
    let other = |index, group: Option<&str>, answer, scores| {
        RecordBody::Item(Item {
            task: "t".into(),
            group: group.map(Into::into),
            index,
            doc_hash: "d".into(),
            prompt_hash: "p".into(),
            answer,
            scores,
            elapsed_ns: Some(5),
            energy: Vec::new(),
            from_cache: None,
            scored_on: None,
        })
    };
    let generated = Answer::Generated(GeneratedAnswer {
        text: "so 4\u{0}2".into(),
        target: "42".into(),
        n_prompt_tokens: 9,
        n_tokens: 3,
        end: "stop".into(),
    });
    let strict = ItemScore {
        metric: "exact_match".into(),
        filter: "strict-match".into(),
        value: None,
        extracted: Some("42".into()),
        reason: Some("no verdict".into()),
        pending: false,
    };
    let flexible = ItemScore {
        filter: "flexible-extract".into(),
        value: Some(1.0),
        reason: None,
        ..strict.clone()
    };
    let rolling = Answer::Rolling(RollingAnswer {
        loglikelihood: -12.5,
        n_tokens: 7,
        n_words: 4,
        n_bytes: 20,
    });
    let records = bodies([
        facts(Some(3)),
        item(0, -1.0),
        other(1, Some("algebra"), generated, vec![strict, flexible]),
        other(
            2,
            None,
            rolling,
            vec![ItemScore::plain("word_perplexity", 0.0)],
        ),
    ]);
    store.add_records(attempt, &records).await.unwrap();
    let (_, [_, items, scores, ..]) = read(&store, &run).await;
    assert_eq!(cells(&items, "group"), ["null", "algebra", "null"]);
    assert_eq!(cells(&items, "gold"), ["1", "null", "null"]);
    assert_eq!(cells(&items, "text"), ["null", "so 4\u{0}2", "null"]);
    assert_eq!(cells(&items, "end"), ["null", "stop", "null"]);
    assert_eq!(cells(&items, "n_tokens"), ["null", "3", "7"]);
    assert_eq!(
        cells(&items, "rolling_loglikelihood"),
        ["null", "null", "-12.5"]
    );
    assert_eq!(cells(&items, "n_bytes"), ["null", "null", "20"]);
    let choices = items
        .column("choice_chars")
        .unwrap()
        .list()
        .unwrap()
        .clone();
    let lens: Vec<usize> = (0..3)
        .map(|row| choices.get_as_series(row).unwrap().len())
        .collect();
    assert_eq!(lens, [2, 0, 0]);
    assert_eq!(u32s(&scores, "item_index"), [0, 1, 1, 2]);
    assert_eq!(
        cells(&scores, "filter"),
        ["none", "strict-match", "flexible-extract", "none"]
    );
    assert_eq!(cells(&scores, "value"), ["1.0", "null", "1.0", "0.0"]);
    assert_eq!(
        cells(&scores, "reason"),
        ["null", "no verdict", "null", "null"]
    );
}
