//! Answers in words.

use super::super::{Equality, value::Value};

/// Words that stand for a number, so that an answer with one may be equal to digits.
const NUMBER_WORDS: [&str; 42] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
    "hundred",
    "thousand",
    "million",
    "billion",
    "half",
    "third",
    "quarter",
    "none",
    "nothing",
    "infinity",
    "infinite",
    "infinitely",
    "dozen",
    "nought",
];

/// Compares two answers of which at least one is words.
pub(super) fn answers(
    (given, given_value): (&str, &Result<Value, String>),
    (right, right_value): (&str, &Result<Value, String>),
) -> Equality {
    let verdict = texts(given, right);
    if verdict != Equality::Different {
        return verdict;
    }
    for (text, value) in [(given, right_value), (right, given_value)] {
        match value {
            Ok(Value::Text(_)) => {}
            Err(reason) => {
                return Equality::undecided(format!("words against something else: {reason}"));
            }
            // The empty set has many names in words.
            Ok(Value::Set(parts)) if parts.is_empty() => {
                return Equality::undecided("words against the empty set");
            }
            Ok(_) => {
                let words = words(text);
                if words
                    .iter()
                    .any(|word| NUMBER_WORDS.contains(&word.as_str()))
                {
                    return Equality::undecided("a number in words is not read");
                }
            }
        }
    }
    Equality::Different
}

/// Compares two texts word by word, without case and punctuation.
///
/// Where one holds all of the other there is more said than asked, perhaps the contrary.
pub(super) fn texts(given: &str, right: &str) -> Equality {
    let (a, b) = (words(given), words(right));
    if a == b && !a.is_empty() {
        return Equality::Equal;
    }
    let holds = |long: &[String], short: &[String]| {
        !short.is_empty() && long.windows(short.len()).any(|window| window == short)
    };
    if holds(&a, &b) || holds(&b, &a) {
        return Equality::undecided("one text is a part of the other");
    }
    Equality::Different
}

/// Cuts a text into words in lower case; LaTeX commands are none.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric()) {
        let command = rest[..start].ends_with('\\');
        let tail = &rest[start..];
        let end = tail
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(tail.len());
        if !command {
            words.push(tail[..end].to_lowercase());
        }
        rest = &tail[end..];
    }
    words
}
