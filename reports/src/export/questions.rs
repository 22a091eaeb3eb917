//! What was asked, where somebody has it: bundles hold hashes, and the data stay where they are.

use std::collections::HashMap;

use serde_json::Value;

use super::lm_eval::{python, sha256};

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
        sha256(&text)
    }

    /// Returns the hash of what comes before the first answer, as lm-evaluation-harness makes it.
    pub fn prompt_hash(&self) -> String {
        sha256(self.requests.first().map_or("", |(context, _)| context))
    }
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
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push_str(": ");
                write(text, field, depth + 1);
            }
            line(text, depth);
            text.push('}');
        }
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => text.push_str(&python(value)),
            None => text.push_str(&number.to_string()),
        },
        // Texts too: DEL and what lies beyond stand as they are, in both.
        other => text.push_str(&other.to_string()),
    }
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
