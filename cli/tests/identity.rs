//! Who may speak to a coordinator, through the binary: from a token to a signed bundle, and out.

mod support;

use std::{fs, time::Duration};

use support::{Lab, Running, bundled_accuracy, bundled_models, wait_until};

const LIMIT: Duration = Duration::from_mins(2);

/// A coordinator with an authority, and where it serves.
fn coordinator(lab: &Lab) -> (Running, String) {
    lab.run(["coordinator", "init", "--name", "localhost"])
        .expect(0);
    let args = ["coordinator", "up", "--listen", "127.0.0.1:0"];
    let running = lab.start("coordinator.log", args);
    let mut url = String::new();
    wait_until(LIMIT, "the coordinator serves", || {
        let said = lab.read("coordinator.log");
        let line = said.lines().find(|line| line.starts_with("https://"));
        url = line.unwrap_or_default().replace("127.0.0.1", "localhost");
        !url.is_empty()
    });
    (running, url)
}

fn token(lab: &Lab, role: &str) -> String {
    let said = lab
        .run(["coordinator", "enroll", "--role", role, "--expires", "5m"])
        .expect(0);
    said.stdout.trim().to_owned()
}

fn login(lab: &Lab, url: &str, role: &str) -> String {
    let folder = lab.path(role);
    let folder = folder.to_str().expect("it is text").to_owned();
    let token = token(lab, role);
    let args = ["login", "--coordinator", url, "--token", &token];
    let name = format!("{role}-1");
    let more = ["--name", &name, "--identity", &folder];
    lab.run(args.iter().chain(&more)).expect(0);
    folder
}

#[test]
fn an_enrolled_agent_measures_signs_and_is_locked_out() {
    let lab = Lab::new();
    let (_coordinator, url) = coordinator(&lab);
    let submitter = login(&lab, &url, "submitter");
    let viewer = login(&lab, &url, "viewer");

    let agent_token = token(&lab, "agent");
    let enroll = ["agent", "enroll", "--coordinator", &url, "--name", "rack-1"];
    let redeem = ["--token", &agent_token];
    lab.run(enroll.iter().chain(&redeem)).expect(0);
    // Once only, and not over what is there.
    let again = ["--token", &agent_token, "--state", "other-agent"];
    let said = lab.run(enroll.iter().chain(&again)).expect(2);
    assert!(
        said.stderr.contains("not known or has served"),
        "{}",
        said.stderr
    );
    let agent = ["agent", "up", "--coordinator", &url];
    let _agent = lab.start("agent.log", agent);

    let plan = lab.plan(
        "secure.toml",
        &format!(
            "{}{}limit = 2\n",
            bundled_models(),
            bundled_accuracy(&["boolq"])
        ),
    );
    let plan = plan.to_str().expect("it is text");
    let as_submitter = ["--coordinator", &url, "--identity", &submitter];
    let as_viewer = ["--coordinator", &url, "--identity", &viewer];
    let refused = lab.run(["submit", plan].iter().chain(&as_viewer)).expect(2);
    assert!(
        refused
            .stderr
            .contains("role viewer may not make this call"),
        "{}",
        refused.stderr
    );
    let run = lab
        .run(["submit", plan].iter().chain(&as_submitter))
        .expect(0)
        .stdout;
    let run = run.trim();
    lab.run(["watch", run].iter().chain(&as_viewer)).expect(0);

    // The run as the coordinator has it, then as a folder.
    let authority = ["--authority", "tritmark-coordinator/identity/ca.pem"];
    let verified = lab
        .run(["verify", run].iter().chain(&as_viewer).chain(&authority))
        .expect(0);
    assert!(
        verified.stdout.contains("by rack-1 of authority"),
        "{}",
        verified.stdout
    );
    lab.run(["report", run, "--out", "out"].iter().chain(&as_viewer))
        .expect(0);
    lab.run(["verify", "out"].iter().chain(&authority))
        .expect(0);
    let evidence = lab.path("out/bundle/evidence.pb");
    let mut bytes = fs::read(&evidence).expect("the evidence is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&evidence, bytes).expect("it can be written");
    let said = lab.run(["verify", "out"]).expect(1);
    assert!(said.stdout.contains("WRONG"), "{}", said.stdout);

    lab.run(["coordinator", "revoke", "rack-1", "--reason", "sold"])
        .expect(0);
    wait_until(LIMIT, "the agent is cut", || {
        lab.read("agent.log")
            .contains("the stream to the coordinator ended")
    });
    let log = lab
        .run(["coordinator", "audit", "--last", "1000"])
        .expect(0)
        .stdout;
    for part in [
        "call submitter-1",
        "/tritmark.v1.Control/SubmitPlan done: run",
        "denied viewer-1",
        "/tritmark.v1.Enrollment/Enroll PermissionDenied",
        "coordinator revoke by command",
    ] {
        assert!(log.contains(part), "{part} in\n{log}");
    }
    assert!(!log.contains(&agent_token));
}

#[test]
fn a_token_of_another_authority_is_not_sent() {
    let lab = Lab::new();
    let (_coordinator, url) = coordinator(&lab);
    let other = [
        "coordinator",
        "init",
        "--name",
        "localhost",
        "--state",
        "other",
    ];
    lab.run(other).expect(0);
    let enroll = [
        "coordinator",
        "enroll",
        "--role",
        "viewer",
        "--state",
        "other",
    ];
    let token = lab.run(enroll).expect(0).stdout;
    let login = [
        "login",
        "--coordinator",
        &url,
        "--identity",
        "me",
        "--token",
    ];
    let said = lab.run(login.iter().chain(&[token.trim()])).expect(2);
    assert!(said.stderr.contains("UnknownIssuer"), "{}", said.stderr);
    let log = lab.run(["coordinator", "audit"]).expect(0).stdout;
    assert!(!log.contains("Enrollment"), "{log}");
}
