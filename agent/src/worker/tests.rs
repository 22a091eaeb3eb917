//! Workers that behave and workers that do not.

use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

use crate::testing::{attempt, fake_worker, latency_job, launched, own_lines};

use super::*;

fn request(script: &str) -> WorkerRequest {
    WorkerRequest::new(latency_job(attempt(0, 1, 1).job, script), "cache")
}

fn start(script: &str) -> (Worker, Receiver<News>) {
    let (heard, news) = channel();
    let worker = Worker::start(fake_worker(), request(script), (), move |news| {
        heard.send(news).is_ok()
    });
    (worker, news)
}

/// Runs a script to its end; returns how many records came, and the outcome.
async fn run_script(script: &str) -> (usize, Result<(), Failure>) {
    let (mut worker, news) = start(script);
    let outcome = worker.outcome().await;
    let n_records = news
        .iter()
        .filter(|news| matches!(news, News::Record(_)))
        .count();
    (n_records, outcome)
}

async fn failure(script: &str) -> Failure {
    run_script(script).await.1.unwrap_err()
}

#[tokio::test]
async fn a_worker_that_finishes_succeeds() {
    let (n_records, outcome) = run_script("record progress record finish").await;
    outcome.unwrap();
    assert_eq!(n_records, 2);
}

#[tokio::test]
async fn a_worker_that_fails_is_quoted_and_its_stderr_kept() {
    let failure = failure("record stderr=why fail").await;
    assert_eq!(failure.class, FailureClass::Permanent);
    assert_eq!(failure.message, "asked to fail");
    assert_eq!(failure.stderr, "why\n");
}

#[tokio::test]
async fn a_panicking_worker_fails_with_its_exit_code_and_stderr() {
    let failure = failure("record panic").await;
    assert_eq!(failure.class, FailureClass::Permanent);
    assert_eq!(
        failure.message,
        "the worker exited with code 101 before the job was done"
    );
    assert!(
        failure.stderr.contains("asked to panic"),
        "{}",
        failure.stderr
    );
}

#[tokio::test]
async fn a_crashing_worker_fails_with_its_signal() {
    let failure = failure("stderr=last-words abort").await;
    assert_eq!(failure.class, FailureClass::Permanent);
    assert_eq!(
        failure.message,
        "the worker was killed by SIGABRT (6) before the job was done"
    );
    assert_eq!(own_lines(&failure.stderr), ["last-words"]);
}

#[tokio::test]
async fn a_killed_worker_may_be_tried_again() {
    let folder = TempDir::new().unwrap();
    let mark = folder.path().join("pid");
    let (mut worker, news) = start(&format!("stderr=here mark={} record hang", mark.display()));
    while !matches!(news.recv().unwrap(), News::Record(_)) {}
    let pid: i32 = std::fs::read_to_string(mark).unwrap().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let failure = worker.outcome().await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Transient);
    assert_eq!(
        failure.message,
        "the worker was killed by SIGKILL (9) before the job was done"
    );
    assert_eq!(failure.stderr, "here\n");
}

#[tokio::test]
async fn a_worker_can_be_killed_before_and_while_it_runs() {
    let (mut worker, _news) = start("hang");
    worker.kill();
    assert!(worker.outcome().await.is_err());
    let (mut worker, news) = start("record hang");
    while !matches!(news.recv().unwrap(), News::Record(_)) {}
    worker.kill();
    let failure = worker.outcome().await.unwrap_err();
    assert!(failure.message.contains("SIGKILL"), "{}", failure.message);
    worker.kill();
}

#[tokio::test]
async fn dropping_a_worker_kills_it_and_then_lets_go_of_what_it_kept() {
    let (kept, gone) = oneshot::channel::<()>();
    let (heard, news) = channel();
    let worker = Worker::start(fake_worker(), request("record hang"), kept, move |news| {
        heard.send(news).is_ok()
    });
    while !matches!(news.recv().unwrap(), News::Record(_)) {}
    drop(worker);
    gone.await.unwrap_err();
    assert!(
        news.iter().count() == 0,
        "nothing is heard of a dead worker"
    );
}

#[tokio::test]
async fn garbage_on_stdout_fails_the_job_at_once() {
    let failure = failure("record garbage hang").await;
    assert_eq!(failure.class, FailureClass::Permanent);
    assert!(
        failure.message.contains("line 2 is no event")
            && failure.message.contains("this is no event"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_worker_that_leaves_without_a_word_fails() {
    let message = failure("record exit=0").await.message;
    assert_eq!(
        message,
        "the worker exited with code 0 before the job was done"
    );
    let message = failure("record finish exit=3").await.message;
    assert_eq!(
        message,
        "the worker finished the job but then exited with code 3"
    );
}

#[tokio::test]
async fn a_worker_that_does_not_end_after_closing_its_output_is_killed() {
    let failure = failure("record close hang").await;
    assert!(
        failure.message.contains("did not end"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn only_the_last_64_kib_of_stderr_are_kept() {
    let failure = failure("stderr=first flood=5000 stderr=last exit=1").await;
    assert!(failure.stderr.len() <= STDERR_BYTES);
    assert!(failure.stderr.len() > STDERR_BYTES - 200);
    assert!(failure.stderr.ends_with("last\n") && !failure.stderr.contains("first"));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_the_agents_fault() {
    let command = WorkerCommand {
        program: "/nonexistent/worker".into(),
        args: Vec::new(),
    };
    let mut worker = Worker::start(command, request("finish"), (), |_| true);
    let failure = worker.outcome().await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Infrastructure);
    assert!(
        failure.message.contains("/nonexistent/worker"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_launcher_starts_the_worker() {
    let plain = fake_worker();
    let command = plain.clone().through("  env LAUNCHED=1 ");
    assert_eq!(command.program, PathBuf::from("env"));
    assert_eq!(command.args[0], "LAUNCHED=1");
    assert_eq!(command.args[1], plain.program.clone().into_os_string());
    assert_eq!(command.args[2..], plain.args);
    assert_eq!(plain.clone().through(" "), plain);
    let mut worker = Worker::start(command, request("finish"), (), |_| true);
    worker.outcome().await.unwrap();
}

#[test]
fn bytes_that_are_no_text_do_not_make_stderr_longer() {
    let text = last_bytes([0xff; 1000].as_slice(), 100);
    assert!(
        text.len() <= 100 && text.chars().all(|c| c == '\u{fffd}'),
        "{text}"
    );
    assert_eq!(last_bytes("häh".as_bytes(), 100), "häh");
}

const FOLDER_VARIABLE: &str = "TRITMARK_TEST_FOLDER";

/// Not a test by itself: the agent that the next test kills.
#[test]
#[ignore = "started by a_killed_agent_takes_its_worker_with_it"]
fn an_agent_that_waits_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else {
        return;
    };
    let mark = std::path::Path::new(&folder).join("pid");
    let (_worker, news) = start(&format!("mark={} record hang", mark.display()));
    while !matches!(news.recv(), Ok(News::Record(_))) {}
    println!("the worker runs");
    thread::park();
}

#[test]
fn a_killed_agent_takes_its_worker_with_it() {
    use std::io::{BufRead as _, BufReader};

    let folder = TempDir::new().unwrap();
    let this = launched(std::env::current_exe().unwrap(), Vec::new());
    let mut agent = Command::new(this.program)
        .args(this.args)
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("worker::tests::an_agent_that_waits_to_be_killed")
        .env(FOLDER_VARIABLE, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(agent.stdout.take().unwrap());
    assert!(
        output
            .lines()
            .any(|line| line.unwrap().contains("the worker runs"))
    );
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(is_running(&pid));
    agent.kill().unwrap();
    agent.wait().unwrap();
    let since = std::time::Instant::now();
    while is_running(&pid) {
        assert!(
            since.elapsed() < Duration::from_mins(1),
            "the worker lives on"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Tells whether the process is there and not merely waiting to be reaped.
fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}
