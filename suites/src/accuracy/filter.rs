//! What is made of a generated answer before it is scored.
//!
//! As lm-evaluation-harness's `regex` filter and `exact_match` metric do it
//! (`filters/extraction.py`, and the metric of the hub's `evaluate`).

use fancy_regex::{Regex, RegexBuilder};
use tritmark_engine::tokenizer::is_python_space;

use super::{
    definition::{ExactMatch, Filter, RegexStep, Step},
    math,
};

/// Steps a pattern may take back on one answer.
const BACKTRACK_LIMIT: usize = 1_000_000;

/// A filter with its patterns compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) name: String,
    steps: Vec<CompiledStep>,
}

#[derive(Debug)]
enum CompiledStep {
    Regex {
        pattern: Regex,
        take: i32,
        fallback: String,
    },
    MathAnswer,
    Strip,
    Lowercase,
    Uppercase,
}

impl Compiled {
    pub(super) fn new(filter: &Filter) -> Result<Self, String> {
        let steps = filter
            .steps
            .iter()
            .map(|step| match step {
                Step::Regex(RegexStep {
                    pattern,
                    take,
                    fallback,
                }) => Ok(CompiledStep::Regex {
                    pattern: python_regex(pattern)
                        .map_err(|error| format!("filter `{}`: {error}", filter.name))?,
                    take: *take,
                    fallback: fallback.clone(),
                }),
                Step::MathAnswer {} => Ok(CompiledStep::MathAnswer),
                Step::Strip {} => Ok(CompiledStep::Strip),
                Step::Lowercase {} => Ok(CompiledStep::Lowercase),
                Step::Uppercase {} => Ok(CompiledStep::Uppercase),
            })
            .collect::<Result<_, String>>()?;
        Ok(Self {
            name: filter.name.clone(),
            steps,
        })
    }

    /// Returns what the steps make of an answer, or why a pattern could not be matched.
    pub(super) fn apply(&self, answer: &str) -> Result<String, String> {
        let mut text = answer.to_owned();
        for step in &self.steps {
            text = match step {
                CompiledStep::Regex {
                    pattern,
                    take,
                    fallback,
                } => extract(pattern, *take, &text)?.unwrap_or_else(|| fallback.clone()),
                CompiledStep::MathAnswer => math::answer(&text).unwrap_or_default(),
                CompiledStep::Strip => text.trim_matches(is_python_space).to_owned(),
                CompiledStep::Lowercase => text.to_lowercase(),
                CompiledStep::Uppercase => text.to_uppercase(),
            };
        }
        Ok(text)
    }
}

/// Returns a match's group: the only one, the first of several that holds anything, or the whole
/// match where there is none (`re.findall`).
fn extract(pattern: &Regex, take: i32, text: &str) -> Result<Option<String>, String> {
    let mut found = Vec::new();
    for captures in pattern.captures_iter(text) {
        let captures = captures.map_err(|error| error.to_string())?;
        let group = |i: usize| captures.get(i).map_or("", |group| group.as_str());
        let value = match captures.len() {
            1 => Some(group(0)),
            2 => Some(group(1)),
            n => (1..n).map(group).find(|value| !value.is_empty()),
        };
        found.push(value.map(str::to_owned));
    }
    let at = match usize::try_from(take) {
        Ok(at) => Some(at),
        Err(_) => found.len().checked_sub(take.unsigned_abs() as usize),
    };
    let value = at.and_then(|at| found.into_iter().nth(at)).flatten();
    Ok(value.map(|value| value.trim_matches(is_python_space).to_owned()))
}

/// Compiles a pattern of Python's `re`: there `$` also matches before a last line end, and `\Z` is
/// the very end.
fn python_regex(pattern: &str) -> Result<Regex, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('Z') if !in_class => out.push_str(r"\z"),
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
            }
            // Within a class Python's `[` is a character like any other.
            '[' => out.push_str(r"\["),
            ']' => {
                in_class = false;
                out.push(']');
            }
            '$' if !in_class => out.push_str(r"(?=\n?\z)"),
            c => out.push(c),
        }
    }
    RegexBuilder::new(&out)
        .backtrack_limit(BACKTRACK_LIMIT)
        .build()
        .map_err(|error| format!("pattern `{pattern}`: {error}"))
}

/// Texts made comparable.
#[derive(Debug)]
pub(super) struct Comparison {
    ignore: Vec<Regex>,
    ignore_case: bool,
    ignore_punctuation: bool,
}

impl Comparison {
    pub(super) fn new(rule: &ExactMatch) -> Result<Self, String> {
        Ok(Self {
            ignore: rule
                .ignore
                .iter()
                .map(|pattern| python_regex(pattern).map_err(|e| format!("`exact_match`: {e}")))
                .collect::<Result<_, _>>()?,
            ignore_case: rule.ignore_case,
            ignore_punctuation: rule.ignore_punctuation,
        })
    }

    /// Tells whether two texts are the same.
    pub(super) fn equal(&self, left: &str, right: &str) -> Result<bool, String> {
        Ok(self.reduced(left)? == self.reduced(right)?)
    }

    fn reduced(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for pattern in &self.ignore {
            text = pattern
                .try_replacen(&text, 0, fancy_regex::NoExpand(""))
                .map_err(|error| error.to_string())?
                .into_owned();
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !c.is_ascii_punctuation());
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dollar_is_pythons() {
        let regex = python_regex(r"\.$").unwrap();
        assert_eq!(regex.replace_all("18.\n", ""), "18\n");
        assert_eq!(regex.replace_all("18.\n\n", ""), "18.\n\n");
        assert!(python_regex(r"[$]x\$").unwrap().is_match("a$x$b").unwrap());
    }

    #[test]
    fn the_last_match_and_the_first_group_that_holds_anything() {
        let regex = python_regex(r"(-?[$0-9.,]{2,})|(-?[0-9]+)").unwrap();
        let take = |take, text| extract(&regex, take, text).unwrap();
        assert_eq!(take(-1, "7 of 12 are $18."), Some("$18.".to_owned()));
        assert_eq!(take(0, "7 of 12"), Some("7".to_owned()));
        assert_eq!(take(-3, "7 of 12"), None);
        assert_eq!(take(0, "none"), None);
    }

    #[test]
    fn blanks_and_capitals_are_steps_of_their_own() {
        let steps = vec![Step::Strip {}, Step::Uppercase {}];
        let name = "shout".to_owned();
        let filter = Compiled::new(&Filter { name, steps }).unwrap();
        assert_eq!(filter.apply(" \u{1c}straße\n").unwrap(), "STRASSE");
        let steps = vec![Step::Lowercase {}];
        let name = "whisper".to_owned();
        let filter = Compiled::new(&Filter { name, steps }).unwrap();
        assert_eq!(filter.apply(" ÄB ").unwrap(), " äb ");
    }

    #[test]
    fn a_pattern_that_would_take_for_ever_is_given_up() {
        let regex = python_regex(r"(?=(a+)+$)(a+)+$\1").unwrap();
        assert!(extract(&regex, 0, &format!("{}b", "a".repeat(64))).is_err());
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_text_panic(pattern in "[\\\\\\[\\]()$a-z?*+^|{}0-9,]{0,20}", text in "\\PC{0,30}") {
            if let Ok(regex) = python_regex(&pattern) {
                for take in [-2, -1, 0, 1] {
                    let _ = extract(&regex, take, &text);
                }
            }
        }
    }
}
