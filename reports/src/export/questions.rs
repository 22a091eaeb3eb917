//! What was asked, where somebody has it: bundles hold hashes, and the data stay where they are.

use std::collections::HashMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// One item's question in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The item as the data set has it.
    pub document: Value,
    /// For each choice what comes before and the answer; of a generated or rolling answer one, the
    /// answer empty.
    pub requests: Vec<(String, String)>,
    /// How an answer is generated, in the words of lm-evaluation-harness; `Null` where none is.
    pub generation: Value,
}

/// Questions by [`Item::prompt_hash`](tritmark_proto::record::Item), which is over all of a
/// question's requests: what is found is what was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Questions(HashMap<String, Asked>);

impl Questions {
    /// Adds a question.
    pub fn add(&mut self, prompt_hash: String, asked: Asked) {
        self.0.insert(prompt_hash, asked);
    }

    /// Returns a question; `None` where nobody has it.
    pub fn get(&self, prompt_hash: &str) -> Option<&Asked> {
        self.0.get(prompt_hash)
    }
}

impl Asked {
    /// Returns the document's hash as lm-evaluation-harness makes it: SHA-256 of
    /// `json.dumps(doc, indent=2, ensure_ascii=False)`.
    pub fn doc_hash(&self) -> String {
        // Python indents by two, as `serde_json` does, and writes floats as `repr` does.
        let mut text = String::new();
        write(&mut text, &self.document, 0);
        hex(&text)
    }

    /// Returns the hash of what comes before the first answer, as lm-evaluation-harness makes it.
    pub fn prompt_hash(&self) -> String {
        hex(self.requests.first().map_or("", |(context, _)| context))
    }
}

fn hex(text: &str) -> String {
    use std::fmt::Write as _;

    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn write(text: &mut String, value: &Value, depth: usize) {
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                line(text, depth + 1);
                write(text, item, depth + 1);
            }
            line(text, depth);
            text.push(']');
        }
        Value::Object(fields) if !fields.is_empty() => {
            text.push('{');
            for (at, (name, field)) in fields.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                line(text, depth + 1);
                string(text, name);
                text.push_str(": ");
                write(text, field, depth + 1);
            }
            line(text, depth);
            text.push('}');
        }
        Value::Number(number) => text.push_str(&python(number)),
        Value::String(value) => string(text, value),
        other => text.push_str(&other.to_string()),
    }
}

/// A text as Python writes it: DEL and what lies beyond stand as they are, as in `serde_json`.
fn string(text: &mut String, value: &str) {
    text.push_str(&Value::from(value).to_string());
}

/// A number as Python's `repr` has it: exponents below 1e-4 and from 1e16, of two digits at least.
fn python(number: &serde_json::Number) -> String {
    let Some(value) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `json.dumps(doc, indent=2, ensure_ascii=False)` of `CPython` 3.11, hashed.
    #[test]
    fn documents_are_written_as_python_does() {
        let document = json!({
            "text": "ä\u{7f}\n\"", "list": [1, 2.0, 1e-5, 1.5e16, 1e22, -0.0001], "none": null,
            "empty": {}, "also": [], "right": true, "deep": {"a": ["b"]},
        });
        let mut text = String::new();
        write(&mut text, &document, 0);
        let expected = "{\n  \"text\": \"ä\u{7f}\\n\\\"\",\n  \"list\": [\n    1,\n    2.0,\n    1e-05,\n    1.5e+16,\n    1e+22,\n    -0.0001\n  ],\n  \"none\": null,\n  \"empty\": {},\n  \"also\": [],\n  \"right\": true,\n  \"deep\": {\n    \"a\": [\n      \"b\"\n    ]\n  }\n}";
        assert_eq!(text, expected);
        let asked = Asked {
            document,
            requests: Vec::new(),
            generation: Value::Null,
        };
        assert_eq!(asked.doc_hash(), PYTHON);
    }

    const PYTHON: &str = "e63776e41e1a5bc7eede0e944d66080df1693a80c19134d83495f7c0adf52c36";
}
