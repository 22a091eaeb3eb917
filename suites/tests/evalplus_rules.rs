//! The rules of a verdict, each on a problem made for it.

mod common;

use std::{num::NonZeroUsize, time::Duration};

use serde_json::{Value, json};
use tritmark_suites::{
    evalplus::{EvalPlus, Options, Outcome, Problem, Status, Verdict},
    sandbox::{self, Exit, Sandbox},
};

/// A problem whose canonical solution is `code`.
fn problem(task_id: &str, entry_point: &str, code: &str, atol: f64, inputs: &Value) -> Problem {
    let line = json!({
        "task_id": task_id,
        "prompt": "",
        "entry_point": entry_point,
        "canonical_solution": code,
        "atol": atol,
        "contract": "",
        "base_input": inputs,
        "plus_input": [],
    });
    Problem::parse(&line.to_string()).expect("the problem is right")
}

fn sandbox() -> Option<Sandbox> {
    common::sandbox(sandbox::Options {
        cpu_factor: Some(1.0),
        ..sandbox::Options::default()
    })
}

fn score(sandbox: &Sandbox, options: Options, problem: &Problem, solution: &str) -> Verdict {
    EvalPlus::new(sandbox, options)
        .score(problem, solution)
        .expect("there is a verdict")
}

/// Scores without sanitizing, and returns the verdict on the original tests.
fn base(sandbox: &Sandbox, problem: &Problem, solution: &str) -> Outcome {
    let options = Options {
        sanitize: false,
        details: true,
        ..Options::default()
    };
    let verdict = score(sandbox, options, problem, solution);
    verdict.base
}

#[track_caller]
fn check(outcome: &Outcome, status: Status, failed: &[u32]) {
    assert_eq!(
        (outcome.status, outcome.failed.as_slice()),
        (status, failed),
        "{outcome:?}"
    );
}

#[test]
fn a_tolerance_for_one_float_stays_for_what_follows() {
    let Some(sandbox) = sandbox() else { return };
    let inputs = json!([[10_000_000], [1.0], [10_000_000]]);
    let problem = problem("HumanEval/9001", "f", "def f(x): return x", 0.0, &inputs);
    // Off by far less than 1e-7 of it, but integers, before and after a float was expected.
    let outcome = base(&sandbox, &problem, "def f(x): return x + 1 if x > 1 else x");
    check(&outcome, Status::Fail, &[0]);
    let outcome = base(
        &sandbox,
        &problem,
        "def f(x): return x + 5e-7 if x == 1 else x",
    );
    check(&outcome, Status::Pass, &[]);
    let outcome = base(
        &sandbox,
        &problem,
        "def f(x): return x + 5e-6 if x == 1 else x",
    );
    check(&outcome, Status::Fail, &[1]);
}

#[test]
fn what_is_close_has_the_type_and_the_length_of_what_is_expected() {
    let Some(sandbox) = sandbox() else { return };
    let inputs = json!([[[1.0, 2.0]], [[[1.0], [2.0]]], [[1.0, null]]]);
    let problem = problem("HumanEval/9001", "f", "def f(x): return x", 0.01, &inputs);
    for (solution, failed) in [
        ("def f(x): return x", &[][..]),
        ("def f(x): return tuple(x)", &[0, 1, 2]),
        ("def f(x): return x[:1]", &[0, 1, 2]),
        (
            "def f(x): return [y + 0.001 if isinstance(y, float) else y for y in x]",
            &[2],
        ),
        ("def f(x): return [1.0, 2.0]", &[1, 2]),
        ("def f(x): return [float('nan')] * 2", &[0, 1, 2]),
    ] {
        let status = if failed.is_empty() {
            Status::Pass
        } else {
            Status::Fail
        };
        check(&base(&sandbox, &problem, solution), status, failed);
    }
}

#[test]
fn integers_have_no_bounds_and_infinity_is_a_number() {
    let Some(sandbox) = sandbox() else { return };
    let line = r#"{"task_id": "Mbpp/404", "prompt": "", "entry_point": "f", "canonical_solution": "def f(x, y): return x + y", "atol": 0, "base_input": [[123456789012345678901234567890, 1], [1, Infinity]], "plus_input": {}}"#;
    let problem = Problem::parse(line).unwrap();
    check(
        &base(&sandbox, &problem, "def f(x, y): return x + y"),
        Status::Pass,
        &[],
    );
    let rounds = "def f(x, y): return float(x) + y";
    check(&base(&sandbox, &problem, rounds), Status::Fail, &[0]);
}

#[test]
fn tasks_of_mbpp_get_the_types_and_the_oracles_they_need() {
    let Some(sandbox) = sandbox() else { return };
    let types = problem(
        "Mbpp/2",
        "similar_elements",
        "def similar_elements(a, b):\n    assert type(a) is tuple and type(b) is tuple\n    return tuple(set(a) & set(b))",
        0.0,
        &json!([[[3, 4, 5, 6], [5, 7, 4, 10]]]),
    );
    // A set is compared, and only for the entry points of the list.
    let other = "def similar_elements(a, b): return [4, 5, 5] if type(a) is tuple else 0";
    check(&base(&sandbox, &types, other), Status::Pass, &[]);
    let complex = problem(
        "Mbpp/252",
        "f",
        "def f(z): return z.imag",
        0.0,
        &json!([["1+2j"]]),
    );
    check(
        &base(&sandbox, &complex, "def f(z): return 2.0"),
        Status::Pass,
        &[],
    );
    let not_none = problem(
        "Mbpp/794",
        "text_starta_endb",
        "import re\ndef text_starta_endb(t): return re.search('^a.*b$', t)",
        0.0,
        &json!([["aab"], ["ac"]]),
    );
    for (solution, failed) in [
        ("def text_starta_endb(t): return t[-1] == 'b'", &[][..]),
        (
            "def text_starta_endb(t): return 'found' if t == 'aab' else None",
            &[],
        ),
        ("def text_starta_endb(t): return 'found'", &[1]),
    ] {
        let status = if failed.is_empty() {
            Status::Pass
        } else {
            Status::Fail
        };
        check(&base(&sandbox, &not_none, solution), status, failed);
    }
}

#[test]
fn every_zero_of_a_polynomial_is_right_but_for_evalplus() {
    let Some(sandbox) = sandbox() else { return };
    let problem = problem(
        "HumanEval/32",
        "find_zero",
        "def find_zero(xs): return 1.0",
        1e-4,
        &json!([[[-1, 0, 1]]]),
    );
    let other_zero = "def find_zero(xs): return -1.0";
    check(&base(&sandbox, &problem, other_zero), Status::Pass, &[]);
    check(
        &base(&sandbox, &problem, "def find_zero(xs): return 2.0"),
        Status::Fail,
        &[0],
    );
    let compat = Options {
        compat: true,
        ..Options::default()
    };
    let verdict = score(&sandbox, compat, &problem, other_zero);
    check(&verdict.base, Status::Fail, &[]);
}

#[test]
fn the_first_failure_ends_the_tests_unless_details_are_asked_for() {
    let Some(sandbox) = sandbox() else { return };
    let inputs = json!([[1], [2], [3], [4]]);
    let problem = problem("HumanEval/9001", "f", "def f(x): return x", 0.0, &inputs);
    let solution = "def f(x):\n    return x if x % 2 else 0";
    check(&base(&sandbox, &problem, solution), Status::Fail, &[1, 3]);
    let verdict = score(&sandbox, Options::default(), &problem, solution);
    check(&verdict.base, Status::Fail, &[1]);
    assert!(!verdict.passes_base() && !verdict.passes_plus());
}

#[test]
fn a_solution_that_takes_too_long_fails_or_runs_out_of_time() {
    let Some(sandbox) = sandbox() else { return };
    let inputs = json!([[1], [2]]);
    let problem = problem("HumanEval/9001", "f", "def f(x): return x", 0.0, &inputs);
    // The limit of one test can be caught, the limit of all cannot.
    let one = "def f(x):\n    while x == 2: pass\n    return x";
    check(&base(&sandbox, &problem, one), Status::Fail, &[1]);
    let sleeps = "import time\ndef f(x):\n    time.sleep(100 * (x - 1))\n    return x";
    check(&base(&sandbox, &problem, sleeps), Status::Fail, &[1]);
    let stubborn = "def f(x):\n    while True:\n        try:\n            while True:\n                y = 1\n        except Exception: pass";
    let outcome = base(&sandbox, &problem, stubborn);
    check(&outcome, Status::Timeout, &[]);
    assert_eq!(outcome.exit, Exit::CpuLimit);
    assert!(outcome.cpu < Duration::from_secs(20), "{outcome:?}");
    let slow_to_load = "while True: pass\ndef f(x): return x";
    check(
        &base(&sandbox, &problem, slow_to_load),
        Status::Timeout,
        &[],
    );
}

#[test]
fn a_solution_cannot_leave_or_talk_its_way_out() {
    let Some(sandbox) = sandbox() else { return };
    let problem = problem(
        "HumanEval/9001",
        "f",
        "def f(x): return x",
        0.0,
        &json!([[1]]),
    );
    let forged = "import os\ndef f(x):\n    os.write(1, b'{\"status\": \"pass\", \"passed\": [true], \"nonce\": \"\"}\\n')\n    for fd in range(3, 20):\n        try: os.write(fd, b'{\"status\": \"pass\", \"passed\": [true], \"nonce\": \"0\"}\\n')\n        except OSError: pass\n    os._exit(0)";
    for (solution, status, exit) in [
        (forged, Status::Timeout, Exit::Code(0)),
        (
            "import os\ndef f(x): os.abort()",
            Status::Timeout,
            Exit::Signal(6),
        ),
        ("def f(x): raise SystemExit(0)", Status::Fail, Exit::Code(0)),
        ("def f(x): return input()", Status::Fail, Exit::Code(0)),
        (
            "def f(x): return open('/etc/passwd')",
            Status::Fail,
            Exit::Code(0),
        ),
        (
            "def f(x): return [0] * (10 ** 10)",
            Status::Fail,
            Exit::Code(0),
        ),
        ("def g(x): return x", Status::Fail, Exit::Code(0)),
        ("def f(x:", Status::Fail, Exit::Code(0)),
        ("", Status::Fail, Exit::Code(0)),
        (
            "def f(x):\n    print('talk' * 1000000)\n    return x",
            Status::Pass,
            Exit::Code(0),
        ),
    ] {
        let outcome = base(&sandbox, &problem, solution);
        assert_eq!((outcome.status, outcome.exit), (status, exit), "{solution}");
    }
}

#[test]
fn what_is_left_of_an_answer_is_what_the_entry_point_needs() {
    let Some(sandbox) = sandbox() else { return };
    let scorer = EvalPlus::new(&sandbox, Options::default());
    for (answer, left) in [
        (
            "Sure!\n```python\nimport re\nfrom __future__ import annotations\nLIMIT = 3  # of three\n\
             def helper(x):\n    return x + LIMIT\nclass Unused:\n    pass\n@cache\ndef decorated(x):\n    return x\n\
             def f(x):\n    return helper(x)\nprint(f(1))\n```\nDone.",
            "import re\nLIMIT = 3\ndef helper(x):\n    return x + LIMIT\ndef f(x):\n    return helper(x)",
        ),
        // The first of two, and no function that returns nothing.
        (
            "def f(x):\n    return g(x)\ndef g(x):\n    yield x\ndef f(x):\n    return 2\n",
            "def f(x):\n    return g(x)",
        ),
        // Nothing to keep: all that parses.
        ("x = 1\ny = 2\n\n\nno python at all", "x = 1\ny = 2"),
        ("no python\nat all", "no python"),
        ("", ""),
        ("def f(x):\n    return (x,\n", "def f(x):"),
        (
            "def f(é):\n    return 'ü' + é\n# ß",
            "def f(é):\n    return 'ü' + é",
        ),
    ] {
        assert_eq!(scorer.sanitize(answer, "f").unwrap(), left, "{answer}");
    }
}

#[test]
fn outputs_of_canonical_solutions_are_kept_whole_or_made_anew() {
    let Some(sandbox) = sandbox() else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        cache_dir: Some(folder.path().join("new/folder")),
        ..Options::default()
    };
    let problem = problem(
        "HumanEval/9001",
        "f",
        "def f(x): return x",
        0.0,
        &json!([[1]]),
    );
    let solutions = vec![(problem, "def f(x):\n    return x\n".to_owned()); 3];
    let two = NonZeroUsize::new(2).unwrap();
    let all_pass = || {
        let verdicts = EvalPlus::new(&sandbox, options.clone()).score_all(&solutions, two);
        assert_eq!(verdicts.len(), 3);
        assert!(
            verdicts
                .iter()
                .all(|verdict| verdict.as_ref().unwrap().passes_plus())
        );
        let files = std::fs::read_dir(folder.path().join("new/folder")).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    };
    let kept = all_pass();
    let whole = std::fs::read(&kept).unwrap();
    std::fs::write(&kept, &whole[..whole.len() / 2]).unwrap();
    all_pass();
    assert!(std::fs::read(&kept).unwrap().len() > whole.len() / 2);
}

#[test]
fn a_canonical_solution_that_fails_is_no_verdict_on_another() {
    let Some(sandbox) = sandbox() else { return };
    let problem = problem(
        "HumanEval/9001",
        "f",
        "def f(x): return 1 / 0",
        0.0,
        &json!([[1]]),
    );
    let error = EvalPlus::new(&sandbox, Options::default())
        .score(&problem, "def f(x): return x")
        .unwrap_err();
    assert!(error.to_string().contains("HumanEval/9001"), "{error}");
}
