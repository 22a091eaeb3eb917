//! HumanEval with its own tests, as lm-evaluation-harness runs it.
//!
//! A program is the prompt, the model's completion and the problem's tests, which raise what is
//! wrong. It passes if it ends within three seconds (human-eval's limit, here of CPU time, scaled to
//! the machine) and raises nothing.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    accuracy::FieldError,
    evalplus::{self, EvalPlusError, Outcome, identifier, parsed},
    sandbox::Sandbox,
};

/// Texts before the first of which a completion ends.
pub const STOPS: [&str; 5] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"];
/// Tokens that a model may write.
pub const MAX_NEW_TOKENS: u32 = 1024;
/// CPU time of a program on the reference machine.
pub const LIMIT: Duration = Duration::from_secs(3);

/// A problem with its tests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// As in `HumanEval/32`.
    pub task_id: String,
    /// The head of a function, and what it shall do. A model goes on with it.
    pub prompt: String,
    /// The function that is tested.
    pub entry_point: String,
    /// What follows the prompt in a program that is right.
    pub canonical_solution: String,
    /// A function `check` that takes the one tested.
    pub test: String,
}

impl Problem {
    /// Reads a line of `humaneval`.
    ///
    /// # Errors
    /// Names what is missing or wrong.
    pub fn parse(line: &str) -> Result<Self, FieldError> {
        let mut problem: Self = parsed("the item", line)?;
        problem.entry_point = identifier("entry_point", problem.entry_point)?;
        Ok(problem)
    }

    /// Returns the program that is run for a completion.
    pub fn program(&self, completion: &str) -> String {
        let Self {
            prompt,
            entry_point,
            test,
            ..
        } = self;
        format!("{prompt}{completion}\n{test}\ncheck({entry_point})")
    }

    /// Cuts a model's answer at the first stop.
    pub fn completion<'a>(&self, answer: &'a str) -> &'a str {
        let end = STOPS.iter().filter_map(|stop| answer.find(stop)).min();
        &answer[..end.unwrap_or(answer.len())]
    }
}

/// Runs a completion against a problem's tests.
pub fn score(
    sandbox: &Sandbox,
    problem: &Problem,
    completion: &str,
) -> Result<Outcome, EvalPlusError> {
    evalplus::check(sandbox, &problem.program(completion), LIMIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"task_id": "HumanEval/9001", "prompt": "def add(a, b):\n", "entry_point": "add", "canonical_solution": "    return a + b\n", "test": "def check(f):\n    assert f(1, 2) == 3\n"}"#;

    #[test]
    fn a_program_is_prompt_completion_and_tests() {
        let problem = Problem::parse(LINE).unwrap();
        let completion = problem.completion("    return a + b\n\n# of two numbers\nprint(1)");
        assert_eq!(
            problem.program(completion),
            "def add(a, b):\n    return a + b\n\ndef check(f):\n    assert f(1, 2) == 3\n\ncheck(add)"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Problem::parse(&LINE.replace("entry_point", "entry")).unwrap_err();
        assert!(error.problem.contains("entry_point"), "{error}");
        let error = Problem::parse(&LINE.replace(r#""add""#, r#""1""#)).unwrap_err();
        assert_eq!(error.key, "entry_point");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(at in 0..LINE.len(), with in "\\PC{0,3}") {
            let _ = Problem::parse(&format!("{}{with}{}", &LINE[..at], &LINE[at..]));
        }
    }
}
