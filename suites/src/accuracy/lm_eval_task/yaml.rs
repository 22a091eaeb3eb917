//! YAML as `PyYAML` reads it, by whose eyes the reference harness sees its tasks.
//!
//! That is YAML 1.1: plain `no` is false, `1_000` a number and `1e5` a text; of two equal keys the
//! last one holds. A node with the tag `!function` names a Python function: it is kept, as
//! [`Yaml::Hook`]. The text is untrusted: nesting is bounded, and an alias counts as much as what it
//! repeats.

use std::collections::HashMap;

use fancy_regex::Regex;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Tag};
use thiserror::Error;

/// Most bytes of a file.
const MAX_BYTES: usize = 1 << 20;
/// Most nodes and bytes of text there may be with every alias written out.
const MAX_WEIGHT: usize = 2 << 20;
/// Most lists and mappings within each other.
const MAX_DEPTH: usize = 64;

/// A node of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    /// Keys in the order of the file, each once.
    Map(Vec<(String, Self)>),
    /// The Python function that a `!function` names.
    Hook(String),
}

/// Why a text cannot be read.
#[derive(Debug, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct YamlError {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

/// A list or a mapping that is not closed yet.
struct Open {
    node: Yaml,
    key: Option<String>,
    anchor: usize,
}

/// Reads a file of one document, a mapping.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Yaml)>, YamlError> {
    let at = |line, column, problem: String| YamlError {
        line,
        column,
        problem,
    };
    if text.len() > MAX_BYTES {
        let problem = format!("the file has {} bytes, more than {MAX_BYTES}", text.len());
        return Err(at(1, 1, problem));
    }
    let mut document = Document::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error: ScanError| {
            let mark = error.marker();
            at(mark.line(), mark.col() + 1, error.info())
        })?;
        document
            .take(event)
            .map_err(|problem| at(span.start.line(), span.start.col() + 1, problem))?;
    }
    match document.root {
        Some(Yaml::Map(entries)) => Ok(entries),
        _ => Err(at(1, 1, "the file is no mapping of keys".to_owned())),
    }
}

struct Document {
    open: Vec<Open>,
    anchors: HashMap<usize, Yaml>,
    root: Option<Yaml>,
    weight: usize,
    plain: Plain,
}

impl Document {
    fn new() -> Self {
        Self {
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            weight: 0,
            plain: Plain::new(),
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref())?;
                self.charge(1 + text.len())?;
                self.close(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(Yaml::List(Vec::new()), anchor, tag.as_deref(), "seq")
            }
            Event::MappingStart(_, anchor, tag) => {
                self.begin(Yaml::Map(Vec::new()), anchor, tag.as_deref(), "map")
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.close(node, anchor),
                None => Err("closes nothing".to_owned()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor);
                // Weighed before it is written out.
                let n = weight(node.ok_or("an alias within what it repeats")?);
                self.charge(n)?;
                let node = self.anchors[&anchor].clone();
                self.close(node, 0)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                Err("begins a second document".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn charge(&mut self, weight: usize) -> Result<(), String> {
        self.weight += weight;
        if self.weight > MAX_WEIGHT {
            return Err("the aliases repeat too much".to_owned());
        }
        Ok(())
    }

    fn begin(
        &mut self,
        node: Yaml,
        anchor: usize,
        tag: Option<&Tag>,
        expected: &str,
    ) -> Result<(), String> {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(expected)) {
            return Err(format!("the tag {tag} means nothing here"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(format!("is nested more than {MAX_DEPTH} deep"));
        }
        self.charge(1)?;
        let key = None;
        self.open.push(Open { node, key, anchor });
        Ok(())
    }

    /// Puts a whole node where it belongs.
    fn close(&mut self, node: Yaml, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.charge(weight(&node))?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node {
            Yaml::List(entries) => entries.push(node),
            Yaml::Map(entries) => match parent.key.take() {
                None => parent.key = Some(key(node)?),
                Some(key) if key == "<<" => {
                    return Err("merge keys (`<<`) are not supported".to_owned());
                }
                Some(key) => match entries.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, value)) => *value = node,
                    None => entries.push((key, node)),
                },
            },
            _ => return Err("stands where nothing can".to_owned()),
        }
        Ok(())
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Yaml, String> {
        let Some(tag) = tag else {
            let is_plain = style == ScalarStyle::Plain;
            return Ok(if is_plain {
                self.plain.resolve(text)
            } else {
                Yaml::Text(text.to_owned())
            });
        };
        if tag.handle() == "!" && tag.suffix() == "function" {
            return Ok(Yaml::Hook(text.trim().to_owned()));
        }
        let resolved = self.plain.resolve(text);
        match (tag.core_suffix(), &resolved) {
            (Some("str"), _) => Ok(Yaml::Text(text.to_owned())),
            (Some("int"), Yaml::Int(_))
            | (Some("float"), Yaml::Float(_))
            | (Some("bool"), Yaml::Bool(_))
            | (Some("null"), Yaml::Null) => Ok(resolved),
            _ => Err(format!("the tag {tag} means nothing here")),
        }
    }
}

fn key(node: Yaml) -> Result<String, String> {
    match node {
        Yaml::Text(text) => Ok(text),
        Yaml::Int(number) => Ok(number.to_string()),
        Yaml::Bool(true) => Ok("True".to_owned()),
        Yaml::Bool(false) => Ok("False".to_owned()),
        _ => Err("a key must be a text".to_owned()),
    }
}

fn weight(node: &Yaml) -> usize {
    1 + match node {
        Yaml::Text(text) | Yaml::Hook(text) => text.len(),
        Yaml::List(entries) => entries.iter().map(weight).sum(),
        Yaml::Map(entries) => entries.iter().map(|(k, v)| 1 + k.len() + weight(v)).sum(),
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => 0,
    }
}

/// What plain scalars mean to `PyYAML` (`resolver.py` and `constructor.py`).
struct Plain {
    int: Regex,
    float: Regex,
}

impl Plain {
    fn new() -> Self {
        let regex = |pattern| Regex::new(pattern).expect("the pattern holds");
        Self {
            int: regex("^[-+]?(0b[0-1_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*(:[0-5]?[0-9])*)$"),
            float: regex(
                r"^[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?)$",
            ),
        }
    }

    fn resolve(&self, text: &str) -> Yaml {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Yaml::Null,
            "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
                return Yaml::Bool(true);
            }
            "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
                return Yaml::Bool(false);
            }
            _ => {}
        }
        let is = |regex: &Regex| regex.is_match(text).unwrap_or(false);
        let number = if is(&self.int) {
            integer(text).map(Yaml::Int)
        } else if is(&self.float) {
            text.replace('_', "").parse().ok().map(Yaml::Float)
        } else {
            None
        };
        number.unwrap_or_else(|| Yaml::Text(text.to_owned()))
    }
}

fn integer(text: &str) -> Option<i64> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let value = if let Some(digits) = digits.strip_prefix("0b") {
        i64::from_str_radix(digits, 2).ok()?
    } else if let Some(digits) = digits.strip_prefix("0x") {
        i64::from_str_radix(digits, 16).ok()?
    } else if digits.contains(':') {
        // Hours, minutes and seconds.
        digits.split(':').try_fold(0_i64, |value, part| {
            value.checked_mul(60)?.checked_add(part.parse().ok()?)
        })?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn reads(scalar: &str, expected: &Yaml) {
        let entries = parse(&format!("k: {scalar}\n")).unwrap();
        assert_eq!(&entries[0].1, expected, "{scalar}");
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn plain_scalars_are_pyyamls() {
        reads("no", &Yaml::Bool(false));
        reads("\"no\"", &Yaml::Text("no".to_owned()));
        reads("~", &Yaml::Null);
        reads("1_000", &Yaml::Int(1000));
        reads("010", &Yaml::Int(8));
        reads("-0x1f", &Yaml::Int(-31));
        reads("1:30", &Yaml::Int(90));
        reads("0.0", &Yaml::Float(0.0));
        reads("1e5", &Yaml::Text("1e5".to_owned()));
        reads("!!str 7", &Yaml::Text("7".to_owned()));
        reads(
            "99999999999999999999",
            &Yaml::Text("99999999999999999999".to_owned()),
        );
    }

    #[test]
    fn a_function_is_a_hook_and_other_tags_are_refused() {
        reads("!function utils.f", &Yaml::Hook("utils.f".to_owned()));
        reads(
            "[!function u.f]",
            &Yaml::List(vec![Yaml::Hook("u.f".to_owned())]),
        );
        refused("k: !python/name:os.system x\n", "line 1, column");
        refused("k: !function {a: 1}\n", "tag !function");
        refused("k: !!int x\n", "tag");
    }

    #[test]
    fn the_last_of_equal_keys_holds() {
        let entries = parse("a: 1\nb: 2\na: 3\n").unwrap();
        let expected = [("a", 3), ("b", 2)].map(|(k, n)| (k.to_owned(), Yaml::Int(n)));
        assert_eq!(entries, expected);
    }

    #[test]
    fn nesting_and_aliases_are_bounded() {
        refused(
            &format!("k: {}{}", "[".repeat(100), "]".repeat(100)),
            "deep",
        );
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let before = format!("*a{}", i - 1);
            let repeated = vec![before; 10].join(", ");
            bomb += &[
                "a",
                &i.to_string(),
                ": &a",
                &i.to_string(),
                " [",
                &repeated,
                "]\n",
            ]
            .concat();
        }
        refused(&bomb, "repeat too much");
        refused("a: &a [*a]\n", "within what it repeats");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        refused("- a\n", "no mapping");
        refused("", "no mapping");
        refused("a: 1\n---\nb: 2\n", "second document");
        refused("a: [\n", "line");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[-:&*!?|>'\"\\[\\]{}, \\na-c<0-9.~#%@`]{0,60}") {
            let _ = parse(&text);
        }
    }
}
