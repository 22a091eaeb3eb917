//! Who gets what.

use tritmark_proto::job::Selector;

use super::*;
use crate::testing::{accuracy, agreement, job, latency, machine};

fn run() -> RunId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

struct Case {
    jobs: Vec<Job>,
    pins: Pins,
    away: Vec<String>,
    load: Load,
    suites: Vec<String>,
    is_quarantined: bool,
    not_before_unix_ns: i64,
}

impl Case {
    fn new(jobs: impl IntoIterator<Item = Job>) -> Self {
        Self {
            jobs: jobs.into_iter().collect(),
            pins: Pins::default(),
            away: Vec::new(),
            load: Load::default(),
            suites: Vec::new(),
            is_quarantined: false,
            not_before_unix_ns: 0,
        }
    }

    /// Returns the job an agent on a machine gets at time 100.
    fn next(&self, machine_id: &str) -> Option<u32> {
        let comparisons: Vec<Comparison> = self.jobs.iter().map(Comparison::of).collect();
        let waiting = self
            .jobs
            .iter()
            .zip(&comparisons)
            .map(|(job, comparison)| Waiting {
                job,
                comparison,
                not_before_unix_ns: self.not_before_unix_ns,
            });
        let machine = machine(machine_id);
        let agent = Idle {
            machine: &machine,
            labels: &BTreeMap::new(),
            suites: &self.suites,
            is_quarantined: self.is_quarantined,
            load: self.load,
        };
        let is_away = |machine: &str| self.away.iter().any(|away| away == machine);
        next(waiting, &agent, &self.pins, is_away, 100).map(|job| job.index)
    }

    fn begin(&mut self, index: usize, machine_id: &str) {
        let job = self.jobs.remove(index);
        self.pins.note(&job, &Comparison::of(&job), machine_id);
    }
}

#[test]
fn the_first_job_in_order_is_given_out() {
    let case = Case::new([
        job(run(), 4, "a", None, latency()),
        job(run(), 5, "a", None, latency()),
    ]);
    assert_eq!(case.next("x"), Some(4));
    assert_eq!(Case::new([]).next("x"), None);
}

#[test]
fn an_agent_in_quarantine_gets_accuracy_jobs_only() {
    let mut case = Case::new([
        job(run(), 0, "a", None, latency()),
        job(run(), 1, "a", None, accuracy()),
    ]);
    assert_eq!(case.next("x"), Some(0));
    case.is_quarantined = true;
    assert_eq!(case.next("x"), Some(1));
}

#[test]
fn all_performance_jobs_of_a_comparison_go_to_the_machine_that_took_the_first() {
    let mut case = Case::new([
        job(run(), 0, "full", None, latency()),
        job(run(), 1, "tern", Some("full"), latency()),
        job(run(), 2, "tern", Some("full"), accuracy()),
        job(run(), 3, "other", None, latency()),
    ]);
    case.begin(0, "x");
    assert_eq!(case.next("x"), Some(1));
    assert_eq!(case.next("y"), Some(2), "accuracy is free to move");
    case.begin(1, "y");
    assert_eq!(case.next("y"), Some(3), "another comparison is free");
}

#[test]
fn two_comparisons_are_measured_on_two_machines_at_once() {
    let mut case = Case::new([
        job(run(), 0, "full", None, latency()),
        job(run(), 1, "tern", Some("full"), latency()),
        job(run(), 2, "full2", None, latency()),
        job(run(), 3, "tern2", Some("full2"), latency()),
    ]);
    case.begin(0, "x");
    assert_eq!(case.next("y"), Some(2));
    case.begin(1, "y");
    assert_eq!(case.next("y"), Some(3));
    assert_eq!(case.next("x"), Some(1));
}

#[test]
fn a_machine_that_stays_away_does_not_hold_its_comparisons() {
    let mut case = Case::new([
        job(run(), 0, "full", None, latency()),
        job(run(), 1, "tern", Some("full"), latency()),
    ]);
    case.begin(0, "x");
    assert_eq!(case.next("y"), None);
    case.away.push("x".into());
    assert_eq!(case.next("y"), Some(1));
}

#[test]
fn the_same_models_for_two_selectors_are_two_comparisons() {
    let mut other = job(run(), 1, "full", None, latency());
    other.selector = Selector {
        memory_min_bytes: Some(1),
        ..Selector::default()
    };
    let mut case = Case::new([job(run(), 0, "full", None, latency()), other]);
    case.begin(0, "x");
    assert_eq!(case.next("y"), Some(1));
}

#[test]
fn a_performance_job_has_its_machine_to_itself() {
    let mut case = Case::new([
        job(run(), 0, "a", None, latency()),
        job(run(), 1, "a", None, accuracy()),
    ]);
    case.load = Load {
        n_running: 1,
        is_exclusive: true,
    };
    assert_eq!(
        case.next("x"),
        None,
        "nothing runs beside a performance job"
    );
    case.load.is_exclusive = false;
    assert_eq!(
        case.next("x"),
        None,
        "a performance job waits, and nothing overtakes it"
    );
    case.jobs.remove(0);
    assert_eq!(
        case.next("x"),
        Some(1),
        "accuracy jobs run beside each other"
    );
}

#[test]
fn an_agent_gets_only_what_it_can_do() {
    let mut picky = job(run(), 0, "a", None, latency());
    picky.selector.arch = Some("aarch64".into());
    let mut case = Case::new([
        picky,
        job(run(), 1, "a", None, latency()),
        job(run(), 2, "a", None, accuracy()),
    ]);
    assert_eq!(case.next("x"), Some(1));
    case.suites.push("accuracy".into());
    assert_eq!(case.next("x"), Some(2));
}

#[test]
fn an_agent_from_before_agreement_gets_none_and_others_get_it_beside_accuracy_alone() {
    let mut case = Case::new([job(run(), 0, "a", None, agreement())]);
    // A build that says nothing, and one that names what it has.
    assert_eq!(case.next("x"), None);
    case.suites = ["latency", "memory", "energy", "accuracy"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(case.next("x"), None);
    case.suites.push("agreement".into());
    assert_eq!(case.next("x"), Some(0));
    case.load = Load {
        n_running: 1,
        is_exclusive: false,
    };
    assert_eq!(case.next("x"), Some(0));
    case.load.is_exclusive = true;
    assert_eq!(case.next("x"), None);
}

#[test]
fn a_job_that_failed_waits_before_it_is_tried_again() {
    let mut case = Case::new([job(run(), 0, "a", None, latency())]);
    case.not_before_unix_ns = 101;
    assert_eq!(case.next("x"), None);
    case.not_before_unix_ns = 100;
    assert_eq!(case.next("x"), Some(0));
    let policy = Policy::default();
    let delays = [0, 1, 2, 3].map(|n| retry_delay(n, &policy).as_secs());
    assert_eq!(delays, [0, 1, 2, 4]);
}

#[test]
fn three_failures_end_a_job_and_a_permanent_one_ends_it_at_once() {
    let policy = Policy::default();
    let states = |class| [1, 2, 3].map(|n| after_failure(class, n, &policy));
    for class in [FailureClass::Transient, FailureClass::Infrastructure] {
        assert_eq!(
            states(class),
            [JobState::Queued, JobState::Queued, JobState::Failed]
        );
    }
    assert_eq!(states(FailureClass::Permanent), [JobState::Failed; 3]);
}
