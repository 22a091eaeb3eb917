//! What EvalPlus asks a model, and what it makes of the answer.

use tritmark_engine::tokenizer::is_python_space;

use super::problem::{Dataset, Problem};

/// Tokens that EvalPlus lets a model write.
pub const MAX_NEW_TOKENS: u32 = 768;

/// The part of an answer that EvalPlus 0.3.1 looks at where no stop is found, characters.
const MAX_ANSWER_CHARS: usize = 10_000;

const STOPS: [&str; 6] = [
    "<|endoftext|>",
    "<|endofmask|>",
    "</s>",
    "\nif __name__",
    "\ndef main(",
    "\nprint(",
];

/// How a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// It goes on with the program.
    Completion,
    /// It is asked in its chat template, and its answer has a beginning.
    Chat,
}

/// The two turns of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// What the user says.
    pub user: String,
    /// How the assistant begins; the model goes on from here.
    pub assistant: &'static str,
}

impl Problem {
    /// Returns the text that a model goes on with.
    pub fn completion_prompt(&self) -> String {
        format!("{}\n", self.prompt.trim_matches(is_python_space))
    }

    /// Returns what a chat model is asked.
    pub fn chat_prompt(&self) -> Chat {
        Chat {
            user: format!(
                "Please provide a self-contained Python script that solves the following problem \
                 in a markdown code block:\n```\n{}\n```\n",
                self.prompt.trim_matches(is_python_space)
            ),
            assistant: "Below is a Python script with a self-contained function that solves the \
                        problem and passes corresponding tests:\n```python\n",
        }
    }

    /// Returns the texts before the first of which an answer ends.
    pub fn stops(&self, style: Style) -> Vec<&'static str> {
        let more: &[_] = match (style, self.dataset) {
            (Style::Chat, _) => &["\n```\n"],
            (Style::Completion, Dataset::HumanEval) => {
                &["\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "]
            }
            (Style::Completion, Dataset::Mbpp) => &["\n\"\"\"", "\nassert"],
        };
        STOPS.iter().chain(more).copied().collect()
    }

    /// Makes a program of a model's answer, not sanitized yet: cut at the first stop, with blanks for
    /// tabs, after the prompt where the model went on with it.
    pub fn solution(&self, style: Style, answer: &str) -> String {
        let end = self
            .stops(style)
            .iter()
            .filter_map(|stop| answer.find(stop))
            .chain(
                answer
                    .char_indices()
                    .nth(MAX_ANSWER_CHARS)
                    .map(|(at, _)| at),
            )
            .min()
            .unwrap_or(answer.len());
        let answer = answer[..end].replace('\t', "    ");
        match style {
            Style::Completion => self.completion_prompt() + &answer,
            Style::Chat => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evalplus::problem::tests::LINE;

    #[test]
    fn a_model_is_asked_as_evalplus_asks() {
        let problem = Problem::parse(LINE).unwrap();
        assert_eq!(problem.completion_prompt(), "def add(a, b):\n");
        assert_eq!(
            problem.chat_prompt().user,
            "Please provide a self-contained Python script that solves the following problem in a \
             markdown code block:\n```\ndef add(a, b):\n```\n"
        );
        assert!(
            problem
                .chat_prompt()
                .assistant
                .ends_with("tests:\n```python\n")
        );
    }

    #[test]
    fn an_answer_ends_at_the_earliest_stop() {
        let problem = Problem::parse(LINE).unwrap();
        let answer = "\treturn a\n\n\ndef other():\n    pass\n</s>\nprint(1)";
        assert_eq!(
            problem.solution(Style::Completion, answer),
            "def add(a, b):\n    return a\n\n"
        );
        assert_eq!(
            problem.solution(Style::Chat, "def add(a, b):\n\treturn a\n```\nIt adds."),
            "def add(a, b):\n    return a"
        );
        assert_eq!(problem.solution(Style::Chat, "é\n"), "é\n");
    }

    #[test]
    fn of_an_answer_without_a_stop_ten_thousand_characters_count() {
        let problem = Problem::parse(LINE).unwrap();
        let long = "é".repeat(10_001);
        let kept = problem.solution(Style::Chat, &long);
        assert_eq!(kept.chars().count(), 10_000);
        let late = format!("{long}\nprint(1)");
        assert_eq!(problem.solution(Style::Chat, &late), kept);
    }

    #[test]
    fn stops_differ_by_set_and_style() {
        let mut problem = Problem::parse(LINE).unwrap();
        assert_eq!(problem.stops(Style::Completion).len(), 11);
        assert_eq!(problem.stops(Style::Chat).last(), Some(&"\n```\n"));
        problem.dataset = Dataset::Mbpp;
        assert_eq!(
            problem.stops(Style::Completion)[6..],
            ["\n\"\"\"", "\nassert"]
        );
    }
}
