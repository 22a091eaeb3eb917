//! Problems of HumanEval+ and MBPP+, as EvalPlus publishes them.

use serde::de::DeserializeOwned;

use super::raw;
use crate::accuracy::FieldError;

/// Which set a problem is of. Rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dataset {
    /// HumanEval+.
    HumanEval,
    /// MBPP+.
    Mbpp,
}

/// A problem with its tests.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// As in `HumanEval/32`.
    pub task_id: String,
    /// The set.
    pub dataset: Dataset,
    /// The beginning of the program: a function's head for HumanEval, a text for MBPP.
    pub prompt: String,
    /// The function that is tested.
    pub entry_point: String,
    /// What follows the prompt in a program that is right.
    pub canonical_solution: String,
    /// By how much a number may be off; 0 leaves it to the rules.
    pub atol: f64,
    /// The original tests: a JSON list of lists of arguments, in Python's dialect of JSON.
    pub base_input: String,
    /// EvalPlus's further tests, likewise.
    pub plus_input: String,
    /// blake3 of the line, hex.
    pub hash: String,
}

impl Problem {
    /// Reads a line of `humaneval_plus` or `mbpp_plus`.
    ///
    /// # Errors
    /// Names the key that is missing or wrong.
    pub fn parse(line: &str) -> Result<Self, FieldError> {
        let fields = raw::fields(line)?;
        let value = |key: &str| {
            fields
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, range)| &line[range.clone()])
                .ok_or_else(|| FieldError::new(key, "is missing"))
        };
        let text = |key: &str| parsed::<String>(key, value(key)?);
        let inputs = |key: &str| {
            let value = value(key)?;
            // As the further tests of Mbpp/793 are written, which has none.
            if value == "{}" {
                Ok("[]".to_owned())
            // All inputs are one line of a request.
            } else if value.starts_with('[') && !value.contains(['\n', '\r']) {
                Ok(value.to_owned())
            } else {
                Err(FieldError::new(key, "is no list on one line"))
            }
        };
        let task_id = text("task_id")?;
        let dataset = match task_id.split_once('/') {
            Some((set, number)) if is_number(number) => match set {
                "HumanEval" => Some(Dataset::HumanEval),
                "Mbpp" => Some(Dataset::Mbpp),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| FieldError::new("task_id", "is neither HumanEval/N nor Mbpp/N"))?;
        let atol = parsed::<f64>("atol", value("atol")?)?;
        if !(atol.is_finite() && atol >= 0.0) {
            return Err(FieldError::new("atol", "is no tolerance"));
        }
        Ok(Self {
            task_id,
            dataset,
            prompt: text("prompt")?,
            entry_point: identifier("entry_point", text("entry_point")?)?,
            canonical_solution: text("canonical_solution")?,
            atol,
            base_input: inputs("base_input")?,
            plus_input: inputs("plus_input")?,
            hash: blake3::hash(line.as_bytes()).to_hex().to_string(),
        })
    }
}

/// Reads a value in JSON's own dialect.
pub(crate) fn parsed<T: DeserializeOwned>(key: &str, value: &str) -> Result<T, FieldError> {
    serde_json::from_str(value).map_err(|error| FieldError::new(key, format!("is wrong: {error}")))
}

/// Refuses what cannot be the name of a function.
pub(crate) fn identifier(key: &str, name: String) -> Result<String, FieldError> {
    let mut chars = name.chars();
    let begins = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic());
    if begins && chars.all(|c| c == '_' || c.is_alphanumeric()) {
        Ok(name)
    } else {
        Err(FieldError::new(key, "is no name of a function"))
    }
}

fn is_number(text: &str) -> bool {
    (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A problem of no published set.
    pub(crate) const LINE: &str = r#"{"task_id": "HumanEval/9001", "prompt": "def add(a, b):\n", "entry_point": "add", "canonical_solution": "    return a + b\n", "atol": 0, "contract": "", "base_input": [[1, 2], [123456789012345678901234567890, 1]], "plus_input": [[0.5, 0.25], [-1, Infinity]]}"#;

    #[test]
    fn inputs_stay_as_they_are_written() {
        let problem = Problem::parse(LINE).unwrap();
        assert_eq!(problem.dataset, Dataset::HumanEval);
        assert_eq!(problem.prompt, "def add(a, b):\n");
        assert_eq!(
            problem.base_input,
            "[[1, 2], [123456789012345678901234567890, 1]]"
        );
        assert_eq!(problem.plus_input, "[[0.5, 0.25], [-1, Infinity]]");
    }

    #[test]
    fn a_key_that_is_wrong_is_named() {
        for (from, to, key) in [
            ("HumanEval/9001", "HumanEval/", "task_id"),
            ("HumanEval/9001", "Other/1", "task_id"),
            (
                r#""entry_point": "add""#,
                r#""entry_point": "a b""#,
                "entry_point",
            ),
            (
                r#""entry_point": "add""#,
                r#""entry_point": """#,
                "entry_point",
            ),
            (r#""atol": 0"#, r#""atol": -1"#, "atol"),
            (r#""atol": 0"#, r#""atol": "0""#, "atol"),
            (
                r#""base_input": [[1, 2],"#,
                r#""base_input": "x", "y": [[1, 2],"#,
                "base_input",
            ),
            (r#""prompt""#, r#""Prompt""#, "prompt"),
            (r#""plus_input""#, r#""plus""#, "plus_input"),
        ] {
            let line = LINE.replacen(from, to, 1);
            assert_ne!(line, LINE);
            assert_eq!(Problem::parse(&line).unwrap_err().key, key, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(at in 0..LINE.len(), with in "\\PC{0,3}", skip in 0..20_usize) {
            let end = (at + skip).min(LINE.len());
            let _ = Problem::parse(&format!("{}{with}{}", &LINE[..at], &LINE[end..]));
        }
    }
}
