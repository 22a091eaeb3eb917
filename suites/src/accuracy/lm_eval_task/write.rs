//! A definition as a file that people read and go on with.

use std::fmt::Write as _;

use toml::{Table, Value};

use crate::accuracy::definition::{Data, Definition, Kind, Metric, Sampler, Step};

/// Writes a definition down, leaving out what is as it is by default. `head` becomes comments.
pub(super) fn toml(definition: &Definition, head: &[String]) -> String {
    let Definition {
        name,
        version,
        kind,
        data,
        prompt,
        fewshot,
        generation,
        filters,
        metrics,
        exact_match,
    } = definition;
    let mut out = Writer::default();
    for line in head {
        // A text of the file must not end the comment.
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(out.text, "# {line}");
    }
    out.entry("name", name.as_str());
    out.entry("version", i64::from(*version));
    let kind = match kind {
        Kind::MultipleChoice => "multiple_choice",
        Kind::GenerateUntil => "generate_until",
        Kind::LoglikelihoodRolling => "loglikelihood_rolling",
        Kind::Program => "program",
    };
    out.entry("kind", kind);
    let metrics = metrics.iter().map(|metric| Metric::name(*metric));
    out.entry("metrics", metrics.map(Value::from).collect::<Vec<_>>());

    out.data(data);

    out.head("prompt");
    for (key, text) in [
        ("description", &prompt.description),
        ("question", &prompt.question),
        ("choices", &prompt.choices),
        ("gold", &prompt.gold),
        ("target", &prompt.target),
        ("target_delimiter", &prompt.target_delimiter),
        ("text", &prompt.text),
    ] {
        if let Some(text) = text {
            out.entry(key, text.as_str());
        }
    }

    out.head("fewshot");
    if fewshot.count > 0 {
        out.entry("count", i64::from(fewshot.count));
    }
    if fewshot.fixed {
        out.entry("fixed", true);
    }
    if fewshot.sampler == Sampler::FirstN {
        out.entry("sampler", "first_n");
    }
    if fewshot.draws_one_more {
        out.entry("draws_one_more", true);
    }
    if let Some(delimiter) = &fewshot.delimiter {
        out.entry("delimiter", delimiter.as_str());
    }
    for sample in &fewshot.samples {
        out.head("[fewshot.samples]");
        for (key, value) in sample {
            out.entry(key, value.clone());
        }
    }

    if let Some(generation) = generation {
        out.head("generation");
        out.texts("until", &generation.until);
        out.entry("max_new", i64::from(generation.max_new));
    }
    for filter in filters {
        out.head("[filters]");
        out.entry("name", filter.name.as_str());
        let steps: Vec<Value> = filter.steps.iter().map(step).collect();
        out.entry("steps", steps);
    }
    out.head("exact_match");
    if exact_match.ignore_case {
        out.entry("ignore_case", true);
    }
    if exact_match.ignore_punctuation {
        out.entry("ignore_punctuation", true);
    }
    if !exact_match.ignore.is_empty() {
        out.texts("ignore", &exact_match.ignore);
    }
    out.text
}

fn step(step: &Step) -> Value {
    let mut keys = Table::new();
    let name = match step {
        Step::Regex(regex) => {
            keys.insert("pattern".to_owned(), regex.pattern.as_str().into());
            if regex.take != 0 {
                keys.insert("take".to_owned(), i64::from(regex.take).into());
            }
            if regex.fallback != "[invalid]" {
                keys.insert("fallback".to_owned(), regex.fallback.as_str().into());
            }
            "regex"
        }
        Step::MathAnswer {} => "math_answer",
        Step::Strip {} => "strip",
        Step::Lowercase {} => "lowercase",
        Step::Uppercase {} => "uppercase",
    };
    let mut step = Table::new();
    step.insert(name.to_owned(), keys.into());
    step.into()
}

#[derive(Default)]
struct Writer {
    text: String,
    /// Head of a table that has no entry yet.
    pending: Option<String>,
}

impl Writer {
    /// Begins a table, which is written only if it gets an entry.
    fn head(&mut self, table: &str) {
        self.pending = Some(format!("\n[{table}]\n"));
    }

    fn data(&mut self, data: &Data) {
        self.head("data");
        self.texts("items", &data.items);
        if !data.examples.is_empty() {
            self.texts("examples", &data.examples);
        }
        if let Some(hub) = &data.hub {
            self.head("data.hub");
            self.entry("repo", hub.repo.as_str());
            self.entry("revision", hub.revision.as_str());
            self.head("data.hub.files");
            for (file, parts) in &hub.files {
                self.texts(file, parts);
            }
        }
    }

    fn entry(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(head) = self.pending.take() {
            self.text.push_str(&head);
        }
        let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let key = if !key.is_empty() && key.chars().all(is_bare) {
            key.to_owned()
        } else {
            one_line(key)
        };
        let value = match value.into() {
            Value::String(text) => string(&text),
            other => other.to_string(),
        };
        let _ = writeln!(self.text, "{key} = {value}");
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        let texts = texts.iter().map(|text| Value::from(text.as_str()));
        self.entry(key, texts.collect::<Vec<_>>());
    }
}

/// Writes a text between double quotes.
fn one_line(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Writes a text over several lines where it has some, as people would.
fn string(text: &str) -> String {
    let is_plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
    if text.matches('\n').count() < 2 || !text.chars().all(is_plain) {
        return one_line(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        // Neither three quotes in a row nor one before the closing ones.
        let is_escaped = c == '\\' || (c == '"' && (before == '"' || chars.peek().is_none()));
        if is_escaped {
            out.push('\\');
        }
        out.push(c);
        before = c;
    }
    // The line end behind the opening quotes belongs to no text.
    format!("\"\"\"\n{out}\"\"\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "[\\n\"\\\\a \r\t\u{7f}ü']{0,12}|\\PC{0,20}", key in "\\PC{0,8}") {
            let mut out = Writer::default();
            out.head("table");
            out.entry(&key, text.as_str());
            let read: Table = toml::from_str(&out.text).unwrap();
            prop_assert_eq!(read["table"][&key].as_str(), Some(text.as_str()));
        }
    }
}
