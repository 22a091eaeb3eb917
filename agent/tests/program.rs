//! The program `tritmark-agent` as its user sees it.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The program; through `TRITMARK_LAUNCHER` where these tests run in an emulator.
fn program() -> Command {
    let program = env!("CARGO_BIN_EXE_tritmark-agent");
    let launcher = std::env::var("TRITMARK_LAUNCHER").unwrap_or_default();
    let mut words = launcher.split_whitespace().chain([program]);
    let mut command = Command::new(words.next().expect("the program at least"));
    command.args(words).env_remove("TRITMARK_LAUNCHER");
    command
}

fn agent(state: &Path, args: &[&str]) -> Output {
    program()
        .args(args)
        .arg("--state")
        .arg(state)
        .env_remove("TRITMARK_COORDINATOR")
        .env_remove("TRITMARK_STATE")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn check_refusal(args: &[&str], code: i32, said: &str) {
    let folder = TempDir::new().expect("a folder");
    let output = agent(folder.path(), args);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(stderr.contains(said), "{stderr}");
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_missing_coordinator_is_a_usage_error() {
    check_refusal(&[], 2, "--coordinator <URL>");
}

#[test]
fn a_coordinator_that_is_no_address_is_named() {
    check_refusal(&["--coordinator", "somewhere"], 2, "`somewhere`");
}

#[test]
fn plain_text_to_another_machine_is_refused() {
    check_refusal(&["--coordinator", "http://10.0.0.1:7411"], 2, "plain text");
}

#[test]
fn a_label_needs_a_key_and_a_value() {
    let args = ["--coordinator", "http://127.0.0.1:1", "--label", "fast"];
    check_refusal(&args, 2, "KEY=VALUE");
}

#[test]
fn a_state_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = agent(
        &file.join("state"),
        &["--coordinator", "http://127.0.0.1:1"],
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("file/state"), "{stderr}");
    assert_eq!(output.status.code(), Some(70));
}

#[test]
fn a_worker_without_a_request_fails() {
    let output = program()
        .arg("worker")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn an_agent_is_told_to_leave_by_its_state_folder() {
    let folder = TempDir::new().expect("a folder");
    let none = agent(folder.path(), &["drain"]);
    assert_eq!(none.status.code(), Some(4), "{none:?}");
    let stderr = String::from_utf8(none.stderr).expect("text");
    assert!(
        stderr.contains("no agent uses the state folder"),
        "{stderr}"
    );

    // Nobody listens there, so it dials for ever.
    let mut running = program()
        .args(["--coordinator", "http://127.0.0.1:1", "--state"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let since = Instant::now();
    let told = loop {
        let told = agent(folder.path(), &["drain"]);
        if told.status.success() {
            break told;
        }
        assert!(since.elapsed() < Duration::from_mins(1), "{told:?}");
        thread::sleep(Duration::from_millis(20));
    };
    assert!(told.stdout.is_empty());
    assert_eq!(running.wait().expect("it has left").code(), Some(0));
}

#[test]
fn a_machine_is_measured_by_a_process_of_its_own() {
    let output = program()
        .args(["calibrate", "67108864"])
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let found: tritmark_suites::calibration::Calibration =
        serde_json::from_slice(&output.stdout).expect("a calibration");
    assert!(found.memory_read_bytes_per_s > 0.0 && found.int8_ops_per_s > 0.0);
}
