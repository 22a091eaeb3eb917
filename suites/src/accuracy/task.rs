//! A task: where its items are, and what is asked of a model about each.
//!
//! Prompts, choices and metrics are those of lm-evaluation-harness 0.4, whose
//! definitions did not change between 0.3.0 and 0.4.13.

use serde_json::Value;
use thiserror::Error;

use super::{
    dataset::FieldError,
    tasks::{arc, boolq, winogrande},
};

/// An accuracy data set with its prompt and scoring.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Name in plans and results; the folder of its data.
    pub name: &'static str,
    /// Raised whenever a prompt, a choice or a gold changes. Part of the data's hash.
    pub version: u32,
    /// Names of the file that is evaluated, in order of preference.
    pub items: &'static [&'static str],
    /// Names of the file that examples are drawn from, in order of preference.
    pub examples: &'static [&'static str],
    /// Whether scores divided by the choices' lengths mean something (`acc_norm`).
    pub has_acc_norm: bool,
    /// Makes a question of an item.
    pub question: fn(&Value) -> Result<Question, FieldError>,
}

/// What is asked about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// One request a choice; at least one.
    pub requests: Vec<Request>,
    /// The right choice, below the number of requests.
    pub gold: u32,
    /// The item with its right answer, as it stands among the examples.
    pub solved: String,
}

/// How likely is this text after that one?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What comes before, without examples.
    pub context: String,
    /// What is scored, with the blank before it.
    pub continuation: String,
    /// Unicode code points that the log-likelihood is divided by: those of the continuation without
    /// the blank (`len(choice)` of the reference harness).
    pub n_chars: u32,
}

/// A name that no task has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown task `{name}` (there are {})", Task::NAMES.join(", "))]
pub struct UnknownTask {
    /// What was asked for.
    pub name: String,
}

impl Task {
    /// Every task's name.
    pub const NAMES: [&str; 4] = ["arc_challenge", "arc_easy", "boolq", "winogrande"];

    /// Returns the task of this name.
    pub fn named(name: &str) -> Result<Self, UnknownTask> {
        match name {
            "arc_challenge" => Ok(arc::CHALLENGE),
            "arc_easy" => Ok(arc::EASY),
            "boolq" => Ok(boolq::BOOLQ),
            "winogrande" => Ok(winogrande::WINOGRANDE),
            _ => Err(UnknownTask {
                name: name.to_owned(),
            }),
        }
    }
}

/// Returns a question whose choices follow one context, with a blank between.
pub(crate) fn multiple_choice(context: &str, choices: &[&str], gold: usize) -> Question {
    Question {
        requests: choices
            .iter()
            .map(|choice| Request {
                context: context.to_owned(),
                continuation: format!(" {choice}"),
                n_chars: choice.chars().count() as u32,
            })
            .collect(),
        gold: gold as u32,
        solved: format!("{context} {}", choices[gold]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    /// Keys that mean something to a task, or nothing.
    const KEYS: [&str; 13] = [
        "question",
        "choices",
        "text",
        "label",
        "answerKey",
        "passage",
        "answer",
        "title",
        "sentence",
        "option1",
        "option2",
        "",
        "id",
    ];

    fn hostile() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop::sample::select(vec!["", "_", "A", "1", "2", "\u{1f600} _ x", "no"])
                .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..8).prop_map(
                    |entries| {
                        let entries = entries.into_iter().map(|(k, v)| (k.to_owned(), v));
                        Value::Object(entries.collect::<Map<_, _>>())
                    }
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_hostile_item_is_a_question_or_an_error(item in hostile()) {
            for name in Task::NAMES {
                let task = Task::named(name).unwrap();
                if let Ok(question) = (task.question)(&item) {
                    prop_assert!((question.gold as usize) < question.requests.len());
                }
            }
        }
    }

    #[test]
    fn an_unknown_task_is_told_which_there_are() {
        let error = Task::named("arc").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown task `arc` (there are arc_challenge, arc_easy, boolq, winogrande)"
        );
    }

    #[test]
    fn every_name_has_its_task() {
        for name in Task::NAMES {
            let task = Task::named(name).unwrap();
            assert_eq!(task.name, name);
            assert!((task.question)(&json!({})).is_err());
        }
    }
}
