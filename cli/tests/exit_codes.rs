//! Every documented exit code, as a script sees it.

mod support;

use std::{fs, io::Read as _, process::Stdio};

use support::{Lab, bundled_accuracy, bundled_models};

const NOWHERE: &str = "http://127.0.0.1:9";

#[test]
fn zero_what_was_asked_for_is_done() {
    let kernels = Lab::new().run(["ls", "kernels"]).expect(0).stdout;
    assert!(kernels.contains("reference"), "{kernels}");
}

#[test]
fn zero_a_reader_that_went_away_is_no_fault() {
    let lab = Lab::new();
    let mut child = lab
        .tritmark(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    drop(child.stdout.take());
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("it was piped")
        .read_to_string(&mut said)
        .expect("it is text");
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn one_the_doctor_found_what_stops_measuring() {
    let lab = Lab::new();
    let output = lab
        .tritmark(["doctor"])
        .env("TRITMARK_LOCK", "/nowhere/machine.lock")
        .output()
        .expect("the binary can be started");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("/nowhere/machine.lock"), "{said}");
    lab.run(["doctor"]).expect(0);
}

#[test]
fn two_a_flag_that_does_not_exist() {
    let said = Lab::new().run(["run", "--frobnicate"]).expect(2);
    assert_eq!(said.stdout, "");
    assert!(said.stderr.contains("--frobnicate"), "{}", said.stderr);
}

#[test]
fn two_a_file_that_cannot_be_read() {
    let lab = Lab::new();
    let said = lab.run(["run", "absent.toml"]).expect(2);
    assert!(said.stderr.contains("absent.toml"), "{}", said.stderr);
    let said = lab.run(["model", "inspect", "absent.gguf"]).expect(2);
    assert!(said.stderr.contains("absent.gguf"), "{}", said.stderr);
    let said = lab.run(["report", "absent"]).expect(2);
    assert!(said.stderr.contains("absent"), "{}", said.stderr);
}

#[test]
fn four_a_bundle_without_a_value_and_five_a_run_without_one() {
    let lab = Lab::new();
    // It passes the plan's check, which asks only whether the file is there.
    fs::write(lab.path("broken.gguf"), b"GGUF and then nothing").expect("it can be written");
    let plan = lab.plan(
        "broken.toml",
        &format!(
            "[[models]]\nid = \"broken\"\npath = \"broken.gguf\"\n{}",
            bundled_accuracy(&["boolq"])
        ),
    );
    let said = lab.run(["run".as_ref(), plan.as_os_str()]).expect(5);
    assert!(said.stdout.contains("0 of 1 jobs done"), "{}", said.stdout);
    lab.run(["report", "out/broken"]).expect(4);
}

#[test]
fn seventy_a_store_that_is_none() {
    let lab = Lab::new();
    let plan = lab.plan(
        "p.toml",
        &format!("{}{}", bundled_models(), bundled_accuracy(&["boolq"])),
    );
    fs::create_dir_all(lab.path("out/p/state")).expect("it can be made");
    fs::write(
        lab.path("out/p/state/store.sqlite"),
        b"not a database, and long enough to be taken for a broken one".repeat(100),
    )
    .expect("it can be written");
    let said = lab.run(["run".as_ref(), plan.as_os_str()]).expect(70);
    assert!(said.stderr.contains("store"), "{}", said.stderr);
}

#[test]
fn seventy_five_a_coordinator_that_cannot_be_reached() {
    let lab = Lab::new();
    let said = lab.run(["ls", "runs", "--coordinator", NOWHERE]).expect(75);
    assert!(said.stderr.contains(NOWHERE), "{}", said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
}
