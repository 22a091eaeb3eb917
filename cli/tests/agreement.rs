//! Agreement as a suite of a plan: from the plan to the report, and what a report says of a fleet that
//! does not agree.

mod support;

use std::{fs, path::Path};

use support::{Lab, bundle, bundled_models};
use tritmark_proto::{bundle::JobState, record::Parted};

fn plan() -> String {
    format!(
        r#"
name = "agree"
{}
[suites.agreement]
n_prompts = 3
max_len = 12
n_gen = 2
threads = [1, 2]
n_batch = [1, 8]
"#,
        bundled_models(),
    )
}

fn report(lab: &Lab, folder: &Path) -> (String, String) {
    let out = lab.path("again");
    lab.run([
        "report".as_ref(),
        folder.as_os_str(),
        "--out".as_ref(),
        out.as_os_str(),
    ])
    .expect(0);
    let text = |name: &str| fs::read_to_string(out.join(name)).expect("the report has it");
    (text("report.html"), text("summary.md"))
}

#[test]
fn a_run_proves_its_kernels_and_a_report_tells_of_a_fleet_that_disagrees() {
    let lab = Lab::new();
    let plan = lab.plan("any-name.toml", &plan());
    let said = lab.run(["run".as_ref(), plan.as_os_str()]).expect(0).stdout;
    assert!(said.contains("2 of 2 jobs done"), "{said}");
    assert!(
        said.contains("bitnet-tiny: All ") && said.contains("bit for bit."),
        "{said}"
    );
    let folder = lab.path("out/agree");
    let page = fs::read_to_string(folder.join("report.html")).expect("there is a report");
    assert!(page.contains("kernels and machines agree"));
    let cells = fs::read_to_string(folder.join("agreement.csv")).expect("there are cells");

    let mut found = bundle(&folder.join("bundle"));
    assert_eq!(found.manifest.jobs.len(), 2);
    let jobs = &found.manifest.jobs;
    assert!(jobs.iter().all(|job| job.state == JobState::Succeeded));
    assert_eq!(cells.lines().count(), 1 + found.cells.len());
    // Each kernel with two numbers of threads, two batches and a reused prefix; two models.
    assert!(!found.cells.is_empty() && found.cells.len().is_multiple_of(2 * 2 * 3));
    for row in &found.cells {
        assert!(row.cell.agrees(), "{row:?}");
        assert_eq!(row.cell.reference, row.cell.fingerprint);
    }

    // What agents signed is what the bundle says, and it goes into one file and comes back.
    lab.run(["verify".as_ref(), folder.as_os_str()]).expect(0);
    lab.run([
        "export",
        "out/agree",
        "--format",
        "bundle",
        "-o",
        "agree.tar",
    ])
    .expect(0);
    lab.run(["import", "bundle", "agree.tar", "-o", "back"])
        .expect(0);
    assert_eq!(bundle(&lab.path("back")), found);

    // One cell that parts, and another machine whose reference is another.
    let cell = &mut found.cells[1].cell;
    cell.equal -= 1;
    cell.fingerprint = "ffeeddccbbaa99887766554433221100".to_owned();
    cell.parted = Some(Parted {
        prompt: 2,
        position: 3,
        max_abs: 0.5,
        kl: 0.125,
        margin: 0.25,
        expected: 7,
        found: 9,
    });
    let mut machine = found.manifest.machines[0].clone();
    "another".clone_into(&mut machine.id);
    "board-07".clone_into(&mut machine.hostname);
    found.manifest.machines.push(machine);
    let mut job = found.manifest.jobs[0].clone();
    job.job.id.index = 2;
    job.machine_id = Some("another".to_owned());
    found.manifest.jobs.push(job);
    let mut others = found.cells.clone();
    others.retain(|row| row.job_index == 0 && row.cell.agrees());
    for row in &mut others {
        row.job_index = 2;
        "0123456789abcdef0123456789abcdef".clone_into(&mut row.cell.reference);
        "0123456789abcdef0123456789abcdef".clone_into(&mut row.cell.fingerprint);
    }
    found.cells.extend(others);
    let planted = lab.path("planted");
    found.write(&planted).expect("the bundle can be written");
    let (page, markdown) = report(&lab, &planted);
    assert!(page.contains("<li class=\"chip bad\">kernels or machines disagree</li>"));
    for said in [
        "Kernels disagree: 1 of ",
        "Machines disagree: the same weights and prompts gave the reference \
         0123456789abcdef0123456789abcdef on board-07; ",
        "first at prompt 2, position 3: logits differ by 5.00e-1 where the reference",
        "margin is 2.50e-1, KL 1.2e-1, token 9 in place of 7",
    ] {
        assert!(page.contains(said) && markdown.contains(said), "{said}");
    }
}
