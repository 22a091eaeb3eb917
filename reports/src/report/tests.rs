//! The files of a report, as a reader finds them.

use std::collections::BTreeMap;

use polars::prelude::*;
use tempfile::TempDir;
use tritmark_proto::roofline::Bounds;

use super::*;
use crate::testing::{DENSE_125M, Fixture, TERNARY_125M, machine};

fn report(fixture: &Fixture) -> (TempDir, ReportFiles) {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    fixture.write(&bundle);
    let files = write_report(&bundle, &dir.path().join("out")).unwrap();
    (dir, files)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn one_pair_and_a_failure() -> Fixture {
    let mut fixture = Fixture::one_pair();
    fixture.failed(DENSE_125M, Some(0), 2, "killed by signal 9");
    fixture
}

#[test]
fn the_summary_has_every_row() {
    let (_dir, files) = report(&one_pair_and_a_failure());
    insta::assert_snapshot!("summary_csv", text(&files.csv));
}

#[test]
fn the_markdown_reads_well() {
    let (_dir, files) = report(&one_pair_and_a_failure());
    insta::assert_snapshot!("summary_md", text(&files.markdown));
}

#[test]
fn the_page_opens_with_the_comparison() {
    let (_dir, files) = report(&one_pair_and_a_failure());
    let page = text(&files.html);
    let start = page.find("<section id=\"glance\">").unwrap();
    let end = page.find("<div class=\"charts\">").unwrap();
    insta::assert_snapshot!("glance_html", &page[start..end]);
    let start = page.find("<section id=\"side-by-side\">").unwrap();
    let end = page.find("<section id=\"suites\">").unwrap();
    insta::assert_snapshot!("side_by_side_html", &page[start..end]);
}

#[test]
fn shares_of_the_machines_bounds_stand_beside_the_speeds_and_are_empty_where_there_are_none() {
    let titles = [
        "Decode, of the read bandwidth",
        "Prefill, of the int8 peak",
        "Prefill, of the f32 peak",
    ];
    let (_dir, files) = report(&Fixture::one_pair());
    assert!(
        titles
            .iter()
            .all(|title| !text(&files.html).contains(title))
    );

    let mut fixture = Fixture::one_pair();
    fixture.probed(Bounds {
        memory_read_bytes_per_s: 2e10,
        int8_ops_per_s: 4e11,
        f32_ops_per_s: 1e11,
    });
    let (_dir, files) = report(&fixture);
    let (page, markdown) = (text(&files.html), text(&files.markdown));
    for title in titles {
        assert!(page.contains(title) && markdown.contains(title), "{title}");
    }
    for bound in ["Read bandwidth", "int8 peak<", "f32 peak<"] {
        assert!(!page.contains(bound), "{bound} is in the CSV alone");
    }
    assert!(text(&files.csv).contains("memory_read_bytes_per_s"));
    insta::assert_snapshot!("latency_md", latency_table(&markdown));
}

/// Returns the lines of the first table of latencies.
fn latency_table(markdown: &str) -> String {
    let lines = markdown
        .lines()
        .skip_while(|line| !line.starts_with("## Speed on"));
    let lines: Vec<&str> = lines
        .take_while(|line| !line.starts_with("## Memory on"))
        .collect();
    lines.join("\n")
}

#[test]
fn a_bundle_has_one_report() {
    let fixture = Fixture::full();
    let (_first, left) = report(&fixture);
    let (_second, right) = report(&fixture);
    for (left, right) in [
        (&left.html, &right.html),
        (&left.csv, &right.csv),
        (&left.markdown, &right.markdown),
        (&left.samples, &right.samples),
    ] {
        assert!(
            fs::read(left).unwrap() == fs::read(right).unwrap(),
            "{}",
            left.display()
        );
    }
    assert_eq!(left.charts.len(), right.charts.len());
}

#[test]
fn the_page_needs_nothing_from_outside() {
    for fixture in [Fixture::full(), Fixture::lonely(), Fixture::failures()] {
        let (_dir, files) = report(&fixture);
        let page = text(&files.html).replace("http://www.w3.org/2000/svg", "");
        for outside in [
            "http:", "https:", "src=", "<script", "<link", "@import", "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

#[test]
fn names_cannot_break_out_of_the_page() {
    const NASTY: &str = "<script>alert('x')</script>\"&|`";
    let mut fixture = one_pair_and_a_failure();
    let manifest = &mut fixture.bundle.manifest;
    manifest.run.name = NASTY.to_owned();
    manifest.run.plan_toml = format!("# </pre>{NASTY}");
    manifest.run.tritmark_version = NASTY.to_owned();
    manifest.machines[0].hostname = NASTY.to_owned();
    manifest.machines[0].cpu_model = NASTY.to_owned();
    for outcome in &mut manifest.jobs {
        let model = &mut outcome.job.model;
        model.id = format!("{NASTY}{}", model.id);
        model.baseline = model.baseline.as_ref().map(|id| format!("{NASTY}{id}"));
        if let Some(facts) = &mut outcome.facts {
            facts.kernel = NASTY.to_owned();
            facts.weight_format = NASTY.to_owned();
            facts.warnings = vec![NASTY.to_owned()];
        }
        if let Some(failure) = &mut outcome.failure {
            failure.message = NASTY.to_owned();
            failure.stderr = format!("</pre>{NASTY}\u{1b}[31m");
        }
    }
    for measurement in &mut fixture.bundle.measurements {
        if let tritmark_proto::record::Outcome::Skipped { reason } = &mut measurement.outcome {
            *reason = NASTY.to_owned();
        }
    }
    let (_dir, files) = report(&fixture);
    let page = text(&files.html);
    assert!(!page.contains("<script"), "a name became markup");
    assert!(!page.contains("</pre>&lt;script") && page.contains("&lt;script&gt;"));
    assert!(!text(&files.markdown).contains("<script"));
    for chart in &files.charts {
        let chart = text(chart);
        assert!(!chart.contains("<script") && chart.contains("&lt;script&gt;"));
    }
}

#[test]
fn ids_of_the_page_are_its_own() {
    let (_dir, files) = report(&Fixture::full());
    let page = text(&files.html);
    let mut ids: BTreeMap<&str, u32> = BTreeMap::new();
    for (at, _) in page.match_indices(" id=\"") {
        let rest = &page[at + 5..];
        *ids.entry(&rest[..rest.find('"').unwrap()]).or_default() += 1;
    }
    assert!(ids.len() > 20);
    let twice: Vec<_> = ids.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    for (at, _) in page.match_indices("href=\"#") {
        let rest = &page[at + 7..];
        let target = &rest[..rest.find('"').unwrap()];
        assert!(ids.contains_key(target), "{target}");
    }
}

#[test]
fn a_page_of_failures_says_why() {
    let (_dir, files) = report(&Fixture::failures());
    let page = text(&files.html);
    assert!(page.contains("Nothing was measured: all 3 jobs failed."));
    assert!(page.contains("cannot open `models&#x2f;2b.gguf`: no such file"));
    assert!(!page.contains("<section id=\"side-by-side\">"));
    assert_eq!(files.charts, Vec::<PathBuf>::new());
}

#[test]
fn a_model_alone_has_a_page() {
    let (_dir, files) = report(&Fixture::lonely());
    let page = text(&files.html);
    assert!(page.contains("names no full-precision baseline"));
    assert!(!page.contains("<section id=\"side-by-side\">"));
    assert!(!page.contains("as a multiple of its baseline"));
}

#[test]
fn a_candidate_that_failed_is_not_passed_over() {
    let mut fixture = Fixture::new("half", vec![machine("m")]);
    fixture.latency(DENSE_125M, 0, 1);
    fixture.failed(TERNARY_125M, Some(0), 1, "killed by signal 9");
    let (_dir, files) = report(&fixture);
    let page = text(&files.html);
    assert!(page.contains("Nothing of synth-125m-i2_s was measured on this machine."));
    assert!(page.contains("Nothing of this pair could be compared."));
    assert!(page.contains("killed by signal 9"));
}

#[test]
fn a_run_of_nothing_has_a_page_and_a_header() {
    let (_dir, files) = report(&Fixture::new("empty", Vec::new()));
    assert!(text(&files.html).contains("This run has no jobs."));
    let csv = text(&files.csv);
    assert!(csv.starts_with("run,machine_id,machine,model,role,") && csv.lines().count() == 1);
    let samples = fs::File::open(&files.samples).unwrap();
    assert_eq!(ParquetReader::new(samples).finish().unwrap().height(), 0);
}

#[test]
fn every_machine_has_its_tables() {
    let (_dir, files) = report(&Fixture::two_machines());
    let page = text(&files.html);
    for machine in ["bench-01", "board-07"] {
        assert!(page.contains(&format!("and synth-125m-f16, on {machine}")));
    }
}

#[test]
fn samples_hold_every_token_and_item() {
    let mut fixture = one_pair_and_a_failure();
    fixture.bundle.items[0].item.energy = vec![tritmark_proto::record::ItemEnergy {
        source: "powercap:psys".to_owned(),
        joules: 0.25,
    }];
    let (_dir, files) = report(&fixture);
    let samples = fs::File::open(&files.samples).unwrap();
    let frame = ParquetReader::new(samples).finish().unwrap();
    let of = |kind: &str| {
        frame
            .clone()
            .lazy()
            .filter(col("kind").eq(lit(kind)))
            .collect()
            .unwrap()
    };
    let tokens = of("token");
    let items = of("item");
    assert_eq!(tokens.height(), fixture.bundle.tokens.len());
    assert_eq!(items.height(), fixture.bundle.items.len());
    assert_eq!(tokens.column("task").unwrap().null_count(), tokens.height());
    assert_eq!(
        items.column("token_index").unwrap().null_count(),
        items.height()
    );
    assert_eq!(items.column("loglikelihoods").unwrap().null_count(), 0);
    let joules = items.column("energy_j").unwrap().list().unwrap();
    let joules = joules.get_as_series(0).unwrap();
    assert_eq!(joules.f64().unwrap().to_vec(), [Some(0.25)]);
    assert_eq!(
        tokens.column("energy_j").unwrap().null_count(),
        tokens.height()
    );
    let scores = of("score");
    assert_eq!(scores.height(), 2 * items.height());
    assert_eq!(scores.column("doc_hash").unwrap().null_count(), 0);
    assert_eq!(
        scores.column("elapsed_ns").unwrap().null_count(),
        scores.height()
    );
    let right = items.column("acc").unwrap().bool().unwrap().sum().unwrap();
    let expected = fixture
        .bundle
        .items
        .iter()
        .filter(|row| row.item.scores[0].value == Some(1.0))
        .count();
    assert_eq!(right as usize, expected);
    assert_eq!(
        frame.column("model").unwrap().str().unwrap().get(0),
        Some(TERNARY_125M.id)
    );
}

#[test]
fn an_older_report_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    Fixture::full().write(dir.path());
    // The bundle's own folder may hold its report.
    let files = write_report(dir.path(), dir.path()).unwrap();
    let foreign = dir.path().join("charts").join("mine.svg");
    fs::write(&foreign, "<svg/>").unwrap();
    assert!(files.charts.len() > 3);
    Fixture::failures().write(dir.path());
    write_report(dir.path(), dir.path()).unwrap();
    let left: Vec<_> = fs::read_dir(dir.path().join("charts")).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert!(foreign.exists());
    let parts = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension() == Some("part".as_ref()))
        .count();
    assert_eq!(parts, 0);
}

#[test]
fn charts_scale_with_their_page() {
    let (_dir, files) = report(&one_pair_and_a_failure());
    for path in &files.charts {
        let chart = text(path);
        assert!(
            chart.contains("width=\"100%\" viewBox=\"0 0 960 "),
            "{}",
            path.display()
        );
        assert!(chart.contains("role=\"img\"") && chart.contains("<title id="));
        assert!(!chart.contains("#010203"), "ink stays undyed");
    }
}

#[test]
#[ignore = "writes reports to look at into $TRITMARK_REPORTS_OUT"]
fn reports_to_look_at() {
    let out = PathBuf::from(std::env::var_os("TRITMARK_REPORTS_OUT").expect("a folder"));
    for (name, fixture) in [
        ("full", Fixture::full()),
        ("fleet", Fixture::two_machines()),
        ("lonely", Fixture::lonely()),
        ("failures", Fixture::failures()),
        ("agreement", agreements()),
        ("disagreement", disagreement()),
    ] {
        let dir = out.join(name);
        fs::create_dir_all(&dir).unwrap();
        fixture.write(&dir);
        write_report(&dir, &dir).unwrap();
    }
}

fn agreements() -> Fixture {
    let mut fixture = Fixture::new("agreement", vec![machine("bench-01"), machine("board-07")]);
    for machine in [0, 1] {
        fixture.agreement(TERNARY_125M, machine);
    }
    fixture
}

/// A kernel that parts on one machine, and another machine whose reference is another.
fn disagreement() -> Fixture {
    let mut fixture = agreements();
    fixture.part(0, 2);
    fixture.another_reference(1, "0123456789abcdef0123456789abcdef");
    fixture
}

#[test]
fn kernels_and_machines_that_agree_are_said_to() {
    let (_dir, files) = report(&agreements());
    let page = text(&files.html);
    let equal = "All 16 cells on 2 machines give the same logits and tokens, bit for bit.";
    assert!(page.contains(equal) && text(&files.markdown).contains(equal));
    assert!(page.contains("<li class=\"chip good\">kernels and machines agree</li>"));
    assert!(page.contains("<a href=\"#agreement\">Agreement</a>"));
    assert!(!page.contains("disagree"));
    assert!(!page.contains("Nothing has been measured"));
}

#[test]
fn kernels_that_part_and_machines_that_disagree_are_told_loudly() {
    let (_dir, files) = report(&disagreement());
    let page = text(&files.html);
    let markdown = text(&files.markdown);
    assert!(page.contains("<li class=\"chip bad\">kernels or machines disagree</li>"));
    for text in [&page, &markdown] {
        for said in [
            "Kernels disagree: 1 of 16 cells part from the reference of their machine.",
            "Machines disagree: the same weights and prompts gave the reference \
             0123456789abcdef0123456789abcdef on board-07; a24a995b51b5793df48034d01671e101 on bench-01.",
            "first at prompt 3, position 41",
            "margin is 2.50e-1",
        ] {
            assert!(text.contains(said), "{said}");
        }
    }
    assert!(page.contains("910&#x2f;950"));
    let start = markdown.find("## Agreement").unwrap();
    let end = markdown.find("\nMedians").unwrap();
    insta::assert_snapshot!("agreement_md", &markdown[start..end]);

    let table = text(files.agreement.as_ref().unwrap());
    let rows: Vec<BTreeMap<String, String>> = ::csv::Reader::from_reader(table.as_bytes())
        .deserialize()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 16);
    let parted: Vec<_> = rows.iter().filter(|row| row["agrees"] == "false").collect();
    assert_eq!(parted.len(), 1);
    let expected = [
        ("machine", "bench-01"),
        ("model", TERNARY_125M.id),
        ("equal", "910"),
        ("positions", "950"),
        ("prompt", "3"),
        ("max_abs", "0.0012"),
        ("kl", "3.4e-6"),
    ];
    for (column, value) in expected {
        assert_eq!(parted[0][column], value, "{column}");
    }
}

#[test]
fn a_report_without_agreement_leaves_none_behind() {
    let (dir, files) = report(&agreements());
    let earlier = files.agreement.unwrap();
    assert!(earlier.is_file());
    Fixture::one_pair().write(&dir.path().join("bundle"));
    let files = write_report(&dir.path().join("bundle"), &dir.path().join("out")).unwrap();
    assert_eq!(files.agreement, None);
    assert!(!earlier.exists());
    assert!(!text(&files.html).contains("id=\"agreement\""));
}
