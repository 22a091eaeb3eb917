//! What a user sees first: help, version, completions.

mod support;

use support::Lab;

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = Lab::new().run(["--help"]).expect(0);
    for command in [
        "run",
        "coordinator",
        "agent",
        "login",
        "submit",
        "watch",
        "ls",
        "cancel",
        "pause",
        "resume",
        "agents",
        "report",
        "verify",
        "compare",
        "export",
        "import",
        "doctor",
        "model",
        "data",
        "generate",
        "bench",
        "plan",
        "completions",
    ] {
        let is_listed = help
            .stdout
            .lines()
            .any(|line| line.trim_start().starts_with(&format!("{command} ")));
        assert!(is_listed, "{command} in\n{}", help.stdout);
    }
    assert!(
        help.stdout.contains("Exit codes: 0 done"),
        "{}",
        help.stdout
    );
    assert!(!help.stdout.contains("worker"), "{}", help.stdout);
    assert!(!help.stdout.contains("calibrate "), "{}", help.stdout);
    assert_eq!(help.stderr, "");
}

#[test]
fn run_says_how_an_interrupted_run_goes_on() {
    let help = Lab::new().run(["run", "--help"]).expect(0).stdout;
    for part in ["<PLAN>", "--resume", "--fresh", "--out", "TRITMARK_OUT"] {
        assert!(help.contains(part), "{part} in\n{help}");
    }
}

#[test]
fn the_version_is_that_of_the_workspace() {
    let version = Lab::new().run(["--version"]).expect(0).stdout;
    assert_eq!(version, format!("tritmark {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Lab::new().run(["completions", shell]).expect(0).stdout;
        assert!(script.contains("coordinator"), "{shell}");
    }
}

#[test]
fn the_example_plan_is_printed_as_it_may_be_stored() {
    let example = Lab::new().run(["plan", "--example"]).expect(0).stdout;
    assert_eq!(example, tritmark_coordinator::plan::EXAMPLE);
}

#[test]
fn flags_have_their_mirror_in_the_environment() {
    let lab = Lab::new();
    let model = support::repository().join("models/llama-tiny");
    let output = lab
        .tritmark(["model", "inspect"])
        .arg(&model)
        .env("TRITMARK_JSON", "1")
        .output()
        .expect("the binary can be started");
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert!(text.starts_with('{'), "{text}");
}
