//! HumanEval, HumanEval+ and MBPP+ in full: what is right passes, what was made wrong does not.
//!
//! Needs the published sets under `TRITMARK_DATA`, and a machine with a sandbox.

mod common;

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use tritmark_suites::{
    accuracy::DataFile,
    evalplus::{EvalPlus, Options, Problem, Status, Verdict},
    humaneval,
    sandbox::{self, Limits, Program, Sandbox},
};

/// Sandboxes side by side.
const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

fn lines(set: &str) -> Option<Vec<String>> {
    let Some(data) = std::env::var_os("TRITMARK_DATA").map(PathBuf::from) else {
        eprintln!("NOT RUN: {set} needs TRITMARK_DATA");
        return None;
    };
    let file = DataFile::find(&data.join(set), &["test"]).expect("the set is there");
    let lines = file.lines().expect("the set can be read");
    let text = |line| String::from_utf8(line).expect("the set is UTF-8");
    Some(
        lines
            .map(|line| text(line.expect("the set can be read").bytes))
            .collect(),
    )
}

fn problems(set: &str) -> Option<Vec<Problem>> {
    let parse = |line: String| Problem::parse(&line).expect("a published line is read");
    Some(lines(set)?.into_iter().map(parse).collect())
}

fn score(sandbox: &Sandbox, options: Options, solutions: &[(Problem, String)]) -> Vec<Verdict> {
    let start = Instant::now();
    let verdicts: Vec<Verdict> = EvalPlus::new(sandbox, options)
        .score_all(solutions, THREADS)
        .into_iter()
        .map(|verdict| verdict.expect("there is a verdict"))
        .collect();
    eprintln!(
        "{} solutions in {:.1} s, {THREADS} at a time",
        verdicts.len(),
        start.elapsed().as_secs_f64()
    );
    verdicts
}

/// Returns the tasks whose canonical solutions do not pass everything.
fn not_passed(solutions: &[(Problem, String)], verdicts: &[Verdict]) -> Vec<String> {
    let failed = solutions.iter().zip(verdicts);
    failed
        .filter(|(_, verdict)| !verdict.passes_plus())
        .map(|((problem, _), verdict)| {
            eprintln!("{}: {:?} {:?}", problem.task_id, verdict.base, verdict.plus);
            problem.task_id.clone()
        })
        .collect()
}

fn canonical(set: &str) -> Option<Vec<(Problem, String)>> {
    let solution = |problem: Problem| {
        let code = format!("{}{}", problem.prompt, problem.canonical_solution);
        (problem, code)
    };
    Some(problems(set)?.into_iter().map(solution).collect())
}

#[test]
#[ignore = "minutes: `.ci/run programs`"]
fn every_canonical_solution_passes_and_one_does_not_by_evalplus_own_mistake() {
    let Some(sandbox) = common::sandbox(sandbox::Options::default()) else {
        return;
    };
    eprintln!("{}", sandbox.layers());
    let cache = tempfile::tempdir().unwrap();
    for (set, n, by_mistake) in [
        ("humaneval_plus", 164, &["HumanEval/32"][..]),
        ("mbpp_plus", 378, &[]),
    ] {
        let Some(solutions) = canonical(set) else {
            return;
        };
        assert_eq!(solutions.len(), n);
        let options = Options {
            cache_dir: Some(cache.path().to_owned()),
            sanitize: false,
            ..Options::default()
        };
        let verdicts = score(&sandbox, options.clone(), &solutions);
        assert_eq!(not_passed(&solutions, &verdicts), [""; 0], "{set}");

        let compat = Options {
            compat: true,
            ..options
        };
        let verdicts = score(&sandbox, compat, &solutions);
        assert_eq!(not_passed(&solutions, &verdicts), by_mistake, "{set}");
        for verdict in verdicts.iter().filter(|verdict| !verdict.passes_base()) {
            assert_eq!(verdict.base.status, Status::Fail);
            assert_eq!(verdict.base.failed, [0; 0]);
        }
    }
}

#[test]
#[ignore = "minutes: `.ci/run programs`"]
fn sanitizing_takes_nothing_that_is_needed_but_a_generator() {
    let Some(sandbox) = common::sandbox(sandbox::Options::default()) else {
        return;
    };
    let mut changed = 0;
    for (set, by_rule) in [("humaneval_plus", &[][..]), ("mbpp_plus", &["Mbpp/630"])] {
        let Some(solutions) = canonical(set) else {
            return;
        };
        // As a chat model answers, on every sixth problem and those of the rule.
        let solutions: Vec<_> = solutions
            .into_iter()
            .enumerate()
            .filter(|(at, (problem, _))| at % 6 == 0 || by_rule.contains(&problem.task_id.as_str()))
            .map(|(_, (problem, code))| {
                let answer = format!(
                    "Here is the function:\n```python\nimport os\n{code}\n\n\
                     print({}(1))\n```\nIt works.",
                    problem.entry_point
                );
                (problem, answer)
            })
            .collect();
        let verdicts = score(&sandbox, Options::default(), &solutions);
        assert_eq!(not_passed(&solutions, &verdicts), by_rule, "{set}");
        for ((_, answer), verdict) in solutions.iter().zip(&verdicts) {
            assert!(
                verdict.solution.starts_with("import os\n"),
                "{}",
                verdict.solution
            );
            changed += usize::from(verdict.solution != *answer);
        }
    }
    assert!(changed > 80, "{changed}");
}

/// A program that was made wrong.
#[derive(Deserialize)]
struct Mutant {
    solution: String,
    /// The tests in which it shows, without the scorer.
    which: String,
}

fn mutant(sandbox: &Sandbox, line: &str) -> Mutant {
    let limits = Limits {
        cpu: Duration::from_mins(1),
        wall: Duration::from_mins(10),
        memory_bytes: 4 << 30,
        ..Limits::default()
    };
    let program = Program::new(include_str!("mutate.py"), limits).stdin(line);
    let ran = sandbox.run(&program).expect("the sandbox holds");
    serde_json::from_slice(&ran.stdout.bytes).unwrap_or_else(|error| {
        let stderr = String::from_utf8_lossy(&ran.stderr.bytes);
        let task: String = line.chars().take(40).collect();
        panic!("{task}: no mutant ({error}; {}): {stderr}", ran.exit)
    })
}

#[test]
#[ignore = "minutes: `.ci/run programs`"]
fn every_planted_mistake_is_found() {
    let Some(lines) = lines("humaneval_plus") else {
        return;
    };
    let Some(sandbox) = common::sandbox(sandbox::Options::default()) else {
        return;
    };
    let start = Instant::now();
    let (one, other) = lines.split_at(lines.len() / 2);
    let make = |lines: &[String]| -> Vec<Mutant> {
        lines.iter().map(|line| mutant(&sandbox, line)).collect()
    };
    let mutants: Vec<Mutant> = thread::scope(|scope| {
        let one = scope.spawn(|| make(one));
        let other = make(other);
        let one = one.join().expect("every problem has a mutant");
        one.into_iter().chain(other).collect()
    });
    eprintln!(
        "{} mistakes planted in {:.1} s",
        mutants.len(),
        start.elapsed().as_secs_f64()
    );
    let solutions: Vec<(Problem, String)> = lines
        .iter()
        .zip(&mutants)
        .map(|(line, mutant)| {
            let problem = Problem::parse(line).expect("a published line is read");
            (problem, mutant.solution.clone())
        })
        .collect();
    let verdicts = score(&sandbox, Options::default(), &solutions);
    let n_seen_by_base = mutants.iter().filter(|m| m.which == "base").count();
    eprintln!("{n_seen_by_base} of them show in the original tests");
    for (((problem, code), mutant), verdict) in solutions.iter().zip(&mutants).zip(&verdicts) {
        assert!(!verdict.passes_plus(), "{}:\n{code}", problem.task_id);
        if mutant.which == "base" {
            assert!(!verdict.passes_base(), "{}:\n{code}", problem.task_id);
        }
    }
}

#[test]
#[ignore = "minutes: `.ci/run programs`"]
fn the_original_tests_pass_what_is_right() {
    let Some(lines) = lines("humaneval") else {
        return;
    };
    let Some(sandbox) = common::sandbox(sandbox::Options::default()) else {
        return;
    };
    let start = Instant::now();
    let mut failed = Vec::new();
    for line in &lines {
        let problem = humaneval::Problem::parse(line).expect("a published line is read");
        let outcome = humaneval::score(&sandbox, &problem, &problem.canonical_solution)
            .expect("there is a verdict");
        if outcome.status != Status::Pass {
            failed.push(problem.task_id.clone());
        }
    }
    eprintln!(
        "{} solutions in {:.1} s",
        lines.len(),
        start.elapsed().as_secs_f64()
    );
    assert_eq!((lines.len(), failed), (164, vec![]));
    let problem = humaneval::Problem::parse(&lines[0]).expect("a published line is read");
    for (completion, status) in [
        ("    return False\n", Status::Fail),
        ("    while True: pass\n", Status::Timeout),
        ("    return (\n", Status::Fail),
        ("    import os; os._exit(0)\n", Status::Timeout),
        ("    raise SystemExit\n", Status::Fail),
    ] {
        let outcome = humaneval::score(&sandbox, &problem, completion).unwrap();
        assert_eq!(outcome.status, status, "{completion}");
    }
}
