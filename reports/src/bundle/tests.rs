//! Good bundles are read whole; bad ones are refused by name.

use polars::prelude::*;
use proptest::prelude::*;
use tempfile::TempDir;
use tritmark_proto::{
    job::{JobId, RunId},
    record::{Answer, GeneratedAnswer, ItemEnergy, ItemScore, RollingAnswer},
};

use super::*;
use crate::testing::{DENSE_125M, Fixture, TERNARY_125M, machine, tables};

fn small() -> Fixture {
    let mut fixture = Fixture::new("small", vec![machine("m")]);
    fixture.latency(TERNARY_125M, 0, 1);
    fixture.energy(DENSE_125M, 0, 1);
    fixture.accuracy(TERNARY_125M, 0, "arc_easy", 12);
    fixture
}

/// One item of each kind of answer.
fn every_answer() -> Fixture {
    let mut fixture = small();
    let job = fixture.bundle.items[0].job_index;
    let generated = Answer::Generated(GeneratedAnswer {
        text: "so #### 42".to_owned(),
        target: "42".to_owned(),
        n_prompt_tokens: 9,
        n_tokens: 3,
        end: "stop".to_owned(),
    });
    let strict = ItemScore {
        metric: "exact_match".to_owned(),
        filter: "strict-match".to_owned(),
        value: None,
        extracted: Some("42".to_owned()),
        reason: Some("no verdict".to_owned()),
        pending: false,
    };
    let flexible = ItemScore {
        filter: "flexible-extract".to_owned(),
        value: Some(1.0),
        reason: None,
        ..strict.clone()
    };
    let item = fixture.item(job, "arc_easy", 100, generated, vec![strict, flexible]);
    item.group = Some("algebra".to_owned());
    let rolling = Answer::Rolling(RollingAnswer {
        loglikelihood: -12.5,
        n_tokens: 7,
        n_words: 4,
        n_bytes: 20,
    });
    let scores = vec![ItemScore::plain("word_perplexity", 0.0)];
    fixture.item(job, "arc_easy", 101, rolling, scores);
    fixture
}

/// Agreements on two machines, with a cell that parts.
fn agreeing() -> Fixture {
    let mut fixture = Fixture::new("agreement", vec![machine("m"), machine("n")]);
    fixture.agreement(TERNARY_125M, 0);
    fixture.agreement(TERNARY_125M, 1);
    fixture.part(1, 2);
    fixture
}

fn written(fixture: &Fixture) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fixture.write(dir.path());
    dir
}

/// Writes `small`, changes it, and returns the refusal with its sources.
fn refusal(change: impl FnOnce(&Path)) -> String {
    let dir = written(&small());
    change(dir.path());
    let error = Bundle::read(dir.path()).expect_err("a refusal");
    chain(&error)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn check(change: impl FnOnce(&Path), parts: &[&str]) {
    let text = refusal(change);
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// Replaces a table by itself with something changed.
fn rewrite(dir: &Path, name: &str, change: impl FnOnce(DataFrame) -> DataFrame) {
    let bundle = &small().bundle;
    let frame = match name {
        MEASUREMENTS => tables::measurements(bundle),
        ITEMS => tables::items(bundle),
        SCORES => tables::scores(bundle),
        _ => tables::tokens(bundle),
    };
    tables::save(&mut change(frame), &dir.join(name));
}

fn edit_manifest(dir: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.join(MANIFEST);
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn what_was_written_is_read() {
    for fixture in [
        small(),
        every_answer(),
        agreeing(),
        Fixture::full(),
        Fixture::failures(),
    ] {
        let dir = written(&fixture);
        assert_eq!(Bundle::read(dir.path()).unwrap(), fixture.bundle);
    }
}

#[test]
fn a_newer_bundle_is_refused_whatever_its_shape() {
    check(
        |dir| fs::write(dir.join(MANIFEST), r#"{"format_version": 6, "runs": []}"#).unwrap(),
        &["run.json", "format version 6", "reads 5", "update"],
    );
}

#[test]
fn an_older_bundle_is_refused() {
    check(
        |dir| edit_manifest(dir, |manifest| manifest["format_version"] = 0.into()),
        &["run.json", "format version 0"],
    );
}

#[test]
fn what_a_newer_writer_adds_is_left_alone() {
    let fixture = small();
    let dir = written(&fixture);
    edit_manifest(dir.path(), |manifest| {
        manifest["run"]["colour"] = "green".into();
        manifest["machines"][0]["altitude_m"] = 440.into();
    });
    rewrite(dir.path(), MEASUREMENTS, |mut frame| {
        let extra = Column::new("humidity".into(), vec![0.5_f64; frame.height()]);
        frame.with_column(extra).unwrap();
        frame
    });
    assert_eq!(Bundle::read(dir.path()).unwrap(), fixture.bundle);
}

#[test]
fn a_metric_of_a_newer_writer_is_kept() {
    let mut fixture = small();
    fixture.bundle.measurements[0].metric = "joy_per_s".to_owned();
    let dir = written(&fixture);
    let bundle = Bundle::read(dir.path()).unwrap();
    assert_eq!(bundle.measurements[0].metric, "joy_per_s");
}

#[test]
fn a_missing_file_is_named() {
    for name in [MANIFEST, MEASUREMENTS, ITEMS, SCORES, TOKENS, AGREEMENT] {
        check(
            |dir| fs::remove_file(dir.join(name)).unwrap(),
            &["cannot read", name],
        );
    }
}

#[test]
fn a_manifest_that_is_not_json_is_named_with_its_line() {
    check(
        |dir| fs::write(dir.join(MANIFEST), "{\"format_version\": 1,\n oops").unwrap(),
        &["run.json", "line 2"],
    );
    check(
        |dir| fs::write(dir.join(MANIFEST), "[".repeat(100_000)).unwrap(),
        &["run.json"],
    );
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    check(
        |dir| {
            edit_manifest(dir, |manifest| {
                manifest["jobs"][1]["job"]["id"]["index"] = 0.into();
            });
        },
        &["job 0 is there twice"],
    );
    check(
        |dir| {
            edit_manifest(dir, |manifest| {
                manifest["jobs"][0]["machine_id"] = "x".into();
            });
        },
        &["job 0 ran on an unknown machine `x`"],
    );
    check(
        |dir| {
            let other = JobId {
                run: RunId::generate(),
                index: 0,
            };
            edit_manifest(dir, |manifest| {
                manifest["jobs"][0]["job"]["id"] = serde_json::to_value(other).unwrap();
            });
        },
        &["job 0 is of another run"],
    );
}

#[test]
fn a_missing_column_is_named() {
    check(
        |dir| rewrite(dir, MEASUREMENTS, |frame| frame.drop("grade").unwrap()),
        &[MEASUREMENTS, "no column `grade`"],
    );
}

#[test]
fn a_column_of_another_type_is_named() {
    check(
        |dir| {
            rewrite(dir, TOKENS, |mut frame| {
                let column = Column::new("elapsed_ns".into(), vec![1.5_f64; frame.height()]);
                frame.with_column(column).unwrap();
                frame
            });
        },
        &[TOKENS, "`elapsed_ns`", "f64", "u64"],
    );
    check(
        |dir| {
            rewrite(dir, ITEMS, |mut frame| {
                let column = Column::new("is_greedy".into(), vec![true; frame.height()]);
                frame.with_column(column).unwrap();
                frame
            });
        },
        &[ITEMS, "`is_greedy`", "bool", "list"],
    );
}

#[test]
fn a_value_that_cannot_be_is_named_with_its_row() {
    let with = |column: Column| {
        move |dir: &Path| {
            rewrite(dir, MEASUREMENTS, |mut frame| {
                frame.with_column(column).unwrap();
                frame
            });
        }
    };
    let n = small().bundle.measurements.len();
    check(
        with(Column::new("value".into(), vec![None::<f64>; n])),
        &[MEASUREMENTS, "row 0", "neither a value nor a reason"],
    );
    check(
        with(Column::new("value".into(), vec![f64::NAN; n])),
        &[MEASUREMENTS, "row 0", "`value`", "not a finite number"],
    );
    check(
        with(Column::new("grade".into(), vec![Some("guessed"); n])),
        &[MEASUREMENTS, "`grade`", "unknown grade `guessed`"],
    );
    check(
        with(Column::new("phase".into(), vec![Some("warm-up"); n])),
        &[MEASUREMENTS, "`phase`", "unknown phase `warm-up`"],
    );
    check(
        with(Column::new("n_gen".into(), vec![None::<u32>; n])),
        &[MEASUREMENTS, "half a workload"],
    );
    check(
        with(Column::new("job_index".into(), vec![77_u32; n])),
        &[MEASUREMENTS, "row 0", "job 77 is not in the manifest"],
    );
    check(
        with(Column::new("suite".into(), vec![None::<&str>; n])),
        &[MEASUREMENTS, "row 0", "`suite`", "no value"],
    );
}

#[test]
fn an_item_must_choose_among_its_choices() {
    check(
        |dir| {
            rewrite(dir, ITEMS, |mut frame| {
                let column = Column::new("gold".into(), vec![9_u32; frame.height()]);
                frame.with_column(column).unwrap();
                frame
            });
        },
        &[ITEMS, "row 0", "`gold`", "choice 9 of 4"],
    );
}

/// Writes a bundle as version 1 did: no scores, no groups, choices alone.
fn write_version_1(fixture: &Fixture, dir: &Path) {
    fixture.write(dir);
    fs::remove_file(dir.join(SCORES)).unwrap();
    let later = [
        "group",
        "text",
        "target",
        "end",
        "n_prompt_tokens",
        "n_tokens",
        "rolling_loglikelihood",
        "n_words",
        "n_bytes",
        "from_cache",
        "scored_on",
        "energy_sources",
        "energy_j",
    ];
    let mut items = tables::items(&fixture.bundle).drop_many(later);
    tables::save(&mut items, &dir.join(ITEMS));
    edit_manifest(dir, |manifest| {
        manifest["format_version"] = 1.into();
        for outcome in manifest["jobs"].as_array_mut().unwrap() {
            let suite = outcome["job"]["suite"].as_object_mut().unwrap();
            suite.remove("evalplus_compat");
        }
    });
}

#[test]
fn a_bundle_of_version_1_has_scores_from_its_choices() {
    let fixture = small();
    let dir = tempfile::tempdir().unwrap();
    write_version_1(&fixture, dir.path());
    let read = Bundle::read(dir.path()).unwrap();
    let mut expected = fixture.bundle.clone();
    expected.manifest.format_version = 1;
    assert_eq!(read, expected);
    let scores = &read.items[0].item.scores;
    let names: Vec<&str> = scores.iter().map(|score| score.metric.as_str()).collect();
    assert_eq!(names, ["acc", "acc_norm"]);
    // What follows from the two is the same.
    let rows = |bundle| crate::summary::rows(bundle);
    assert_eq!(rows(&read), rows(&fixture.bundle));
}

#[test]
fn a_bundle_of_version_2_knows_no_caches_and_nothing_pending() {
    let fixture = every_answer();
    let dir = written(&fixture);
    let later = ["from_cache", "scored_on", "energy_sources", "energy_j"];
    let mut items = tables::items(&fixture.bundle).drop_many(later);
    tables::save(&mut items, &dir.path().join(ITEMS));
    let mut scores = tables::scores(&fixture.bundle).drop_many(["pending"]);
    tables::save(&mut scores, &dir.path().join(SCORES));
    // Of this version the columns are missing.
    let error = chain(&Bundle::read(dir.path()).unwrap_err());
    assert!(error.contains("from_cache"), "{error}");
    edit_manifest(dir.path(), |manifest| {
        manifest["format_version"] = 2.into();
        for outcome in manifest["jobs"].as_array_mut().unwrap() {
            let suite = outcome["job"]["suite"].as_object_mut().unwrap();
            suite.remove("score_on");
            suite.remove("cache");
        }
    });
    let mut expected = fixture.bundle.clone();
    expected.manifest.format_version = 2;
    assert_eq!(Bundle::read(dir.path()).unwrap(), expected);
}

#[test]
fn a_bundle_of_version_4_knows_no_agreement() {
    let fixture = every_answer();
    let dir = written(&fixture);
    fs::remove_file(dir.path().join(AGREEMENT)).unwrap();
    let error = chain(&Bundle::read(dir.path()).unwrap_err());
    assert!(error.contains(AGREEMENT), "{error}");
    edit_manifest(dir.path(), |manifest| manifest["format_version"] = 4.into());
    let mut expected = fixture.bundle.clone();
    expected.manifest.format_version = 4;
    assert_eq!(Bundle::read(dir.path()).unwrap(), expected);
}

#[test]
fn a_cell_that_contradicts_itself_is_refused() {
    let fixture = agreeing();
    let n = fixture.bundle.cells.len();
    let refused = |column: Column| {
        let dir = written(&fixture);
        let mut cells = tables::cells(&fixture.bundle);
        cells.with_column(column).unwrap();
        tables::save(&mut cells, &dir.path().join(AGREEMENT));
        chain(&Bundle::read(dir.path()).unwrap_err())
    };
    for (column, expected) in [
        (
            Column::new("equal".into(), vec![951_u64; n]),
            "951 of 950 positions",
        ),
        (
            Column::new("equal".into(), vec![949_u64; n]),
            "contradict each other",
        ),
        (
            Column::new("reference".into(), vec!["a"; n]),
            "32 hexadecimal digits",
        ),
        (
            Column::new("kl".into(), vec![None::<f64>; n]),
            "half a difference",
        ),
        (
            Column::new("margin".into(), vec![Some(1.0); n]),
            "half a difference",
        ),
        (
            Column::new("threads".into(), vec![0_u32; n]),
            "must be at least 1",
        ),
        (
            Column::new("job_index".into(), vec![7_u32; n]),
            "job 7 is not in the manifest",
        ),
    ] {
        let error = refused(column);
        assert!(
            error.contains(AGREEMENT) && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn items_from_a_cache_and_pending_scores_come_back() {
    let mut fixture = every_answer();
    let origin = tritmark_proto::record::ItemOrigin {
        job: JobId {
            run: RunId::generate(),
            index: 3,
        },
        attempt: std::num::NonZeroU32::MIN,
    };
    let item = &mut fixture.bundle.items[1].item;
    item.from_cache = Some(origin);
    item.elapsed_ns = None;
    let item = &mut fixture.bundle.items[12].item;
    item.scored_on = Some("m".to_owned());
    item.scores = vec![ItemScore::pending("pass@1", "none")];
    let dir = written(&fixture);
    assert_eq!(Bundle::read(dir.path()).unwrap(), fixture.bundle);

    // A time of what was not timed, an origin that is none, and a value of what is pending.
    let refused = |fixture: &Fixture| chain(&Bundle::read(written(fixture).path()).unwrap_err());
    fixture.bundle.items[1].item.elapsed_ns = Some(1);
    let error = refused(&fixture);
    assert!(error.contains("`elapsed_ns`"), "{error}");
    fixture.bundle.items[1].item.elapsed_ns = None;
    fixture.bundle.items[12].item.scores[0].value = Some(1.0);
    let error = refused(&fixture);
    assert!(error.contains("`value`"), "{error}");
    let mut items = tables::items(&fixture.bundle);
    let none = Column::new("from_cache".into(), vec![Some("a/b/c"); items.height()]);
    items.with_column(none).unwrap();
    tables::save(&mut items, &dir.path().join(ITEMS));
    let error = chain(&Bundle::read(dir.path()).unwrap_err());
    assert!(error.contains("unknown attempt `a/b/c`"), "{error}");
}

#[test]
fn energy_of_items_comes_back_and_what_is_none_is_refused() {
    let mut fixture = every_answer();
    let energy = |source: &str, joules| ItemEnergy {
        source: source.to_owned(),
        joules,
    };
    let both = vec![
        energy("powercap:package-0", 1.5),
        energy("powercap:dram-0", 0.0),
    ];
    fixture.bundle.items[0].item.energy = both.clone();
    fixture.bundle.items[2].item.energy = both[1..].to_vec();
    let dir = written(&fixture);
    assert_eq!(Bundle::read(dir.path()).unwrap(), fixture.bundle);

    let refused = |energy: Vec<ItemEnergy>, from_cache: bool| {
        let mut fixture = every_answer();
        let item = &mut fixture.bundle.items[0].item;
        item.energy = energy;
        if from_cache {
            item.elapsed_ns = None;
            item.from_cache = Some(tritmark_proto::record::ItemOrigin {
                job: JobId {
                    run: RunId::generate(),
                    index: 3,
                },
                attempt: std::num::NonZeroU32::MIN,
            });
        }
        chain(&Bundle::read(written(&fixture).path()).unwrap_err())
    };
    for (energy, from_cache, expected) in [
        (vec![energy("a", -1.0)], false, "-1 J"),
        (vec![energy("a", f64::NAN)], false, "NaN J"),
        (vec![energy("a", 1.0); 2], false, "there twice, `a`"),
        (vec![energy("", 1.0)], false, "there twice, ``"),
        (both, true, "an item that is from a cache"),
    ] {
        let error = refused(energy, from_cache);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_bundle_of_version_4_knows_no_energy_of_items() {
    let fixture = every_answer();
    let dir = written(&fixture);
    let later = ["energy_sources", "energy_j"];
    let mut items = tables::items(&fixture.bundle).drop_many(later);
    tables::save(&mut items, &dir.path().join(ITEMS));
    // Of this version the columns are missing.
    let error = chain(&Bundle::read(dir.path()).unwrap_err());
    assert!(error.contains("energy_sources"), "{error}");
    edit_manifest(dir.path(), |manifest| manifest["format_version"] = 4.into());
    let mut expected = fixture.bundle.clone();
    expected.manifest.format_version = 4;
    assert_eq!(Bundle::read(dir.path()).unwrap(), expected);
}

#[test]
fn a_bundle_of_version_1_with_a_hole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_version_1(&small(), dir.path());
    let mut items = tables::items(&small().bundle);
    let gold = Column::new("gold".into(), vec![None::<u32>; items.height()]);
    items.with_column(gold).unwrap();
    tables::save(&mut items, &dir.path().join(ITEMS));
    let error = chain(&Bundle::read(dir.path()).unwrap_err());
    assert!(error.contains(ITEMS) && error.contains("row 0"), "{error}");
}

#[test]
fn an_answer_is_of_one_kind() {
    let with = |changes: Vec<(&'static str, bool)>| {
        move |dir: &Path| {
            let fixture = every_answer();
            fixture.write(dir);
            let mut items = tables::items(&fixture.bundle);
            for (column, is_text) in changes {
                let n = items.height();
                let column = if is_text {
                    Column::new(column.into(), vec![Some("x"); n])
                } else {
                    Column::new(column.into(), vec![None::<u32>; n])
                };
                items.with_column(column).unwrap();
            }
            tables::save(&mut items, &dir.join(ITEMS));
        }
    };
    check(
        with(vec![("text", true)]),
        &[ITEMS, "row 0", "`target`", "no value where `text` has one"],
    );
    check(
        with(vec![("gold", false)]),
        &[ITEMS, "row 0", "a value where `gold` has none"],
    );
    check(
        with(vec![("n_words", false)]),
        &[ITEMS, "row 13", "`n_words`", "no value"],
    );
}

#[test]
fn scores_belong_to_items_and_items_have_scores() {
    let with = |column: Column| {
        move |dir: &Path| {
            rewrite(dir, SCORES, |mut frame| {
                frame.with_column(column).unwrap();
                frame
            });
        }
    };
    let n = tables::scores(&small().bundle).height();
    check(
        with(Column::new("sequence".into(), vec![9999_u64; n])),
        &[SCORES, "row 0", "no item at sequence 9999"],
    );
    check(
        with(Column::new("item_index".into(), vec![77_u32; n])),
        &[SCORES, "item 77 of `arc_easy` where the items have item 0"],
    );
    check(
        with(Column::new("metric".into(), vec!["acc"; n])),
        &[SCORES, "row 1", "item 0 has `acc` with filter `none` twice"],
    );
    check(
        with(Column::new("value".into(), vec![f64::INFINITY; n])),
        &[SCORES, "row 0", "`value`", "not a finite number"],
    );
    check(
        |dir| rewrite(dir, SCORES, |frame| frame.slice(2, n - 2)),
        &[ITEMS, "row 0", "item 0 of job 2 has no score"],
    );
}

#[test]
fn rows_of_superseded_attempts_are_left_out() {
    let mut fixture = small();
    let whole = fixture.bundle.measurements.len();
    fixture.bundle.measurements[0].attempt = 7;
    let dir = written(&fixture);
    assert_eq!(
        Bundle::read(dir.path()).unwrap().measurements.len(),
        whole - 1
    );
}

#[test]
fn items_of_all_attempts_of_a_job_count_once_each() {
    let mut fixture = small();
    let whole = fixture.bundle.items.len();
    let row = &mut fixture.bundle.items[0];
    row.attempt += 1;
    let dir = written(&fixture);
    assert_eq!(Bundle::read(dir.path()).unwrap().items.len(), whole);

    let twice = fixture.bundle.items[0].clone();
    fixture.bundle.items.push(twice);
    let dir = written(&fixture);
    let error = Bundle::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
}

#[test]
fn rows_are_put_in_order() {
    let fixture = small();
    let mut shuffled = small();
    shuffled.bundle.measurements.reverse();
    shuffled.bundle.items.reverse();
    shuffled.bundle.tokens.reverse();
    let dir = written(&shuffled);
    assert_eq!(Bundle::read(dir.path()).unwrap(), fixture.bundle);
}

#[test]
fn a_table_that_is_no_parquet_is_named() {
    for name in [MEASUREMENTS, ITEMS, SCORES, TOKENS] {
        check(
            |dir| fs::write(dir.join(name), b"PAR1 not really PAR1").unwrap(),
            &[name],
        );
        check(|dir| fs::write(dir.join(name), b"").unwrap(), &[name]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Damage is an error or harmless; it is never a panic, and never a different shape of bundle.
    #[test]
    fn a_damaged_bundle_never_panics(
        file in 0..5_usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let fixture = small();
        let dir = written(&fixture);
        let path = dir.path().join([MANIFEST, MEASUREMENTS, ITEMS, SCORES, TOKENS][file]);
        let mut bytes = fs::read(&path).unwrap();
        for (place, flip) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, bytes).unwrap();
        match Bundle::read(dir.path()) {
            Ok(bundle) => prop_assert_eq!(bundle.manifest.jobs.len(), 3),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
