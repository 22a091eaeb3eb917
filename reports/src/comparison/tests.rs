//! What a comparison says, and that each verdict needs what it claims.

use tritmark_proto::record::{Answer, GeneratedAnswer, ItemScore, RollingAnswer};

use super::*;
use crate::testing::{DENSE_125M, Fixture, TERNARY_125M, machine};

const A: Option<&str> = Some(DENSE_125M.id);
const B: Option<&str> = Some(TERNARY_125M.id);

/// Two models that answer `n` items: both right, only A, only B, none, in these shares.
fn answered(both: u32, only_a: u32, only_b: u32, none: u32) -> Fixture {
    let mut fixture = Fixture::new("duel", vec![machine("m")]);
    let n = both + only_a + only_b + none;
    for (model, is_b) in [(DENSE_125M, false), (TERNARY_125M, true)] {
        fixture.accuracy(model, 0, "boolq", 0);
        let job = fixture.bundle.manifest.jobs.last().unwrap().job.id.index;
        let facts = fixture.bundle.manifest.jobs[job as usize].facts.as_mut();
        facts.unwrap().n_items = Some(u64::from(n));
        for index in 0..n {
            let is_right = if index < both {
                true
            } else if index < both + only_a {
                !is_b
            } else if index < both + only_a + only_b {
                is_b
            } else {
                false
            };
            let answer = Answer::Generated(GeneratedAnswer {
                text: format!("<b>{index}</b>"),
                target: "42".to_owned(),
                n_prompt_tokens: 9,
                n_tokens: 3,
                end: "stop".to_owned(),
            });
            let score = ItemScore::plain("exact_match", f64::from(u8::from(is_right)));
            fixture.item(job, "boolq", index, answer, vec![score]);
        }
    }
    fixture
}

fn compared(fixture: &Fixture, margin: f64) -> Comparison {
    let options = Options {
        margin,
        tasks: Vec::new(),
    };
    compare((&fixture.bundle, A), (&fixture.bundle, B), &options).unwrap()
}

fn verdict(fixture: &Fixture, margin: f64) -> (Verdict, Overall) {
    let comparison = compared(fixture, margin);
    assert_eq!(comparison.rows.len(), 1);
    (comparison.rows[0].verdict, comparison.overall)
}

#[test]
fn each_verdict_rests_on_its_test() {
    let worse = answered(400, 60, 10, 30);
    assert_eq!(verdict(&worse, 0.01), (Verdict::Worse, Overall::Worse));
    let better = answered(400, 10, 60, 30);
    assert_eq!(verdict(&better, 0.01), (Verdict::Better, Overall::Pass));
    // 4 discordant of 2000, even: the error is 0.1 points.
    let same = answered(1500, 2, 2, 496);
    assert_eq!(verdict(&same, 0.01), (Verdict::Equivalent, Overall::Pass));
    // Ten points more or less may be either way.
    let few = answered(20, 3, 3, 14);
    assert_eq!(
        verdict(&few, 0.01),
        (Verdict::Inconclusive, Overall::Inconclusive)
    );
    // Not better by more than chance, and surely not worse by five points.
    let up = answered(800, 40, 57, 103);
    assert_eq!(verdict(&up, 0.03), (Verdict::NotWorse, Overall::Pass));
    // A real difference within the margin is none that was asked about.
    assert_eq!(verdict(&worse, 0.2), (Verdict::Equivalent, Overall::Pass));
}

#[test]
fn a_row_has_every_number() {
    let comparison = compared(&answered(400, 60, 10, 30), 0.01);
    let row = &comparison.rows[0];
    assert_eq!((row.n, row.a_better, row.b_better), (500, 60, 10));
    assert!((row.a.value - 0.92).abs() < 1e-12 && (row.b.value - 0.82).abs() < 1e-12);
    assert!((row.difference + 0.1).abs() < 1e-12);
    let (low, high) = (row.ci95_low.unwrap(), row.ci95_high.unwrap());
    assert!(low < -0.1 && -0.1 < high && high < -0.06, "{low} {high}");
    assert_eq!(row.p, Some(stats::exact_mcnemar(10, 60)));
    assert_eq!((row.q, row.test), (row.p, Some("exact McNemar")));
    assert_eq!(row.wilcoxon_p, None, "a text has no margin");
    assert_eq!(row.different_prompts, Some(0));
    assert_eq!(row.incomplete, None);
    assert!(row.min_detectable.unwrap() > 0.0);
    assert_eq!(comparison.a.model, DENSE_125M.id);
}

#[test]
fn models_that_agree_everywhere_have_no_surprise() {
    let comparison = compared(&answered(300, 0, 0, 100), 0.01);
    let row = &comparison.rows[0];
    assert_eq!((row.p, row.difference), (Some(1.0), 0.0));
    assert_eq!((row.ci95_low, row.ci95_high), (Some(0.0), Some(0.0)));
    assert_eq!(row.verdict, Verdict::Equivalent);
    // Forty items alike do not show that a thousand would be.
    let few = compared(&answered(30, 0, 0, 10), 0.01);
    assert_eq!(few.rows[0].verdict, Verdict::Inconclusive);
}

#[test]
fn choices_have_margins() {
    let comparison = compared(&Fixture::one_pair(), 0.01);
    let labels: Vec<&str> = comparison
        .rows
        .iter()
        .map(|row| row.label.as_str())
        .collect();
    assert_eq!(labels, ["arc_easy", "arc_easy, length-normalised"]);
    for row in &comparison.rows {
        assert!(row.wilcoxon_p.is_some());
        assert!(row.q >= row.p);
    }
}

#[test]
fn a_side_must_be_named_where_there_are_several() {
    let fixture = Fixture::one_pair();
    let bundle = &fixture.bundle;
    let none = compare((bundle, None), (bundle, B), &Options::default()).unwrap_err();
    assert!(none.to_string().contains("RUN#MODEL"), "{none}");
    let wrong = compare((bundle, Some("x")), (bundle, B), &Options::default()).unwrap_err();
    assert!(wrong.to_string().contains("no model `x`"), "{wrong}");
    let empty = Fixture::lonely();
    let none = compare((&empty.bundle, None), (bundle, B), &Options::default()).unwrap_err();
    assert!(none.to_string().contains("no accuracy items"), "{none}");
}

#[test]
fn tasks_of_one_side_are_named_and_tasks_asked_for_must_be_there() {
    let mut left = Fixture::new("left", vec![machine("m")]);
    left.accuracy(DENSE_125M, 0, "arc_easy", 40);
    left.accuracy(DENSE_125M, 0, "boolq", 40);
    let mut right = Fixture::new("right", vec![machine("m")]);
    right.accuracy(TERNARY_125M, 0, "arc_easy", 40);
    right.accuracy(TERNARY_125M, 0, "winogrande", 40);
    let (left, right) = ((&left.bundle, None), (&right.bundle, None));
    let found = compare(left, right, &Options::default()).unwrap();
    assert_eq!(found.rows.len(), 2);
    assert_eq!(
        (found.only_a, found.only_b),
        (vec!["boolq".into()], vec!["winogrande".into()])
    );
    let tasks = vec!["piqa".to_owned()];
    let options = Options {
        tasks,
        ..Options::default()
    };
    assert_eq!(
        compare(left, right, &options).unwrap().overall,
        Overall::Nothing
    );
}

#[test]
fn other_hashes_are_paired_by_position_and_said_to_be() {
    let left = answered(40, 5, 3, 2);
    let mut right = answered(40, 5, 3, 2);
    for row in &mut right.bundle.items {
        row.item.doc_hash = format!("sha256 of {}", row.item.doc_hash);
    }
    let found = compare((&left.bundle, A), (&right.bundle, B), &Options::default()).unwrap();
    let row = &found.rows[0];
    assert_eq!((row.n, row.paired_by), (50, PairedBy::Position));
    assert_eq!(row.different_prompts, None);
    assert!(row.notes[0].contains("paired by position"));
}

#[test]
fn other_settings_are_compared_where_nothing_else_can_be_meant() {
    let left = answered(40, 5, 3, 2);
    let mut right = answered(40, 5, 3, 2);
    right.accuracy_spec(1).num_fewshot = 5;
    for row in &mut right.bundle.items {
        row.item.prompt_hash.push_str(" with examples");
    }
    let found = compare((&left.bundle, A), (&right.bundle, B), &Options::default()).unwrap();
    let row = &found.rows[0];
    assert_eq!((row.n, row.different_prompts), (50, Some(50)));
    assert!(
        row.notes[0].contains("0 examples, B with 5"),
        "{:?}",
        row.notes
    );
}

#[test]
fn undecided_and_missing_items_are_said() {
    let mut fixture = answered(40, 5, 3, 2);
    fixture.bundle.items[0].item.scores[0].value = None;
    let job = fixture.bundle.items[0].job_index;
    let at = fixture
        .bundle
        .items
        .iter()
        .rposition(|row| row.job_index == job);
    fixture.bundle.items.remove(at.unwrap());
    let found = compared(&fixture, 0.01);
    let row = &found.rows[0];
    assert_eq!((row.n, row.n_undecided, row.n_only_b), (48, 1, 1));
    assert_eq!(row.incomplete.as_deref(), Some("A has 49 of 50 items"));
    assert!(found.is_incomplete());
}

#[test]
fn groups_widen_the_error() {
    let mut fixture = answered(40, 20, 20, 20);
    for row in &mut fixture.bundle.items {
        row.item.group = Some(format!("group {}", row.item.index / 20));
    }
    let grouped = compared(&fixture, 0.01);
    let plain = compared(&answered(40, 20, 20, 20), 0.01);
    assert_eq!(grouped.rows[0].n_groups, Some(5));
    assert!(grouped.rows[0].stderr > plain.rows[0].stderr);
}

#[test]
fn texts_are_held_to_the_margin_as_a_share() {
    let mut fixture = Fixture::new("wikitext", vec![machine("m")]);
    for (model, factor) in [(DENSE_125M, 1.0), (TERNARY_125M, 1.02)] {
        fixture.accuracy(model, 0, "wikitext", 0);
        let job = fixture.bundle.manifest.jobs.last().unwrap().job.id.index;
        fixture.bundle.manifest.jobs[job as usize]
            .facts
            .as_mut()
            .unwrap()
            .n_items = Some(30);
        for index in 0..30 {
            let answer = Answer::Rolling(RollingAnswer {
                loglikelihood: -factor * f64::from(200 + index * 7 % 30),
                n_tokens: 20,
                n_words: 50,
                n_bytes: 260,
            });
            let scores = vec![ItemScore::plain("word_perplexity", 0.0)];
            fixture.item(job, "wikitext", index, answer, scores);
        }
    }
    let row = |margin| {
        let comparison = compared(&fixture, margin);
        let names: Vec<&str> = comparison
            .rows
            .iter()
            .map(|row| row.metric.as_str())
            .collect();
        assert_eq!(
            names,
            ["word_perplexity", "byte_perplexity", "bits_per_byte"]
        );
        comparison.rows[2].clone()
    };
    let bits = row(0.01);
    assert!((bits.difference / bits.a.value - 0.02).abs() < 1e-9);
    assert_eq!((bits.verdict, bits.a_better), (Verdict::Worse, 30));
    assert_eq!(row(0.05).verdict, Verdict::Equivalent);
}

#[test]
fn every_format_says_the_verdict() {
    let comparison = compared(&answered(400, 60, 10, 30), 0.01);
    insta::assert_snapshot!("compare_text", comparison.text());
    insta::assert_snapshot!("compare_md", comparison.markdown());
    let csv = String::from_utf8(comparison.csv().unwrap()).unwrap();
    assert!(csv.lines().nth(1).unwrap().contains(",worse,"), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&comparison.json().unwrap()).unwrap();
    assert_eq!(json["overall"], "worse");
    assert_eq!(json["rows"][0]["verdict"], "worse");
    assert_eq!(json["rows"][0]["a_better"], 60);
}

#[test]
fn the_page_shows_what_differs_and_needs_nothing_from_outside() {
    let mut fixture = answered(40, 5, 3, 2);
    for row in &mut fixture.bundle.items {
        row.item.group = Some("<script>".to_owned());
    }
    let comparison = compared(&fixture, 0.01);
    let bundle = &fixture.bundle;
    let page = page((bundle, A), (bundle, B), &comparison).unwrap();
    assert_eq!(page.matches("<article class=\"item").count(), 8);
    assert_eq!(page.matches("only A is right").count(), 5);
    assert!(page.contains("&lt;b&gt;40&lt;&#x2f;b&gt;"));
    assert!(page.contains("prompt-boolq-40"));
    for outside in [
        "http:", "https:", "src=", "<script", "<link", "@import", "url(",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
#[ignore = "writes a page to look at into $TRITMARK_REPORTS_OUT"]
fn a_page_to_look_at() {
    let out = std::path::PathBuf::from(std::env::var_os("TRITMARK_REPORTS_OUT").expect("a folder"));
    let mut fixture = Fixture::full();
    let more = answered(400, 60, 10, 30);
    let mut jobs = more.bundle.manifest.jobs;
    let next = fixture.bundle.manifest.jobs.len() as u32;
    for outcome in &mut jobs {
        outcome.job.id.index += next;
        if let tritmark_proto::job::SuiteSpec::Accuracy(spec) = &mut outcome.job.suite {
            spec.task = "gsm8k".to_owned();
            spec.num_fewshot = 5;
        }
    }
    fixture.bundle.manifest.jobs.extend(jobs);
    fixture
        .bundle
        .items
        .extend(more.bundle.items.into_iter().map(|mut row| {
            row.job_index += next;
            row
        }));
    let comparison = compared(&fixture, 0.01);
    let bundle = &fixture.bundle;
    let page = page((bundle, A), (bundle, B), &comparison).unwrap();
    std::fs::write(out.join("compare.html"), page).unwrap();
}
