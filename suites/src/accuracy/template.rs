//! Templates and expressions of a task's definition, over an item's keys.
//!
//! They are Jinja as lm-evaluation-harness runs it: what is missing is an error, a trailing line
//! end is kept, values print as Python prints them, and the methods of Python's strings and lists
//! are there. They run on fuel, since a definition may come from anyone.

use std::{fmt, fmt::Write as _};

use fancy_regex::Regex;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig, value::ValueKind,
};
use minijinja_contrib::pycompat;
use serde::Deserialize as _;
use serde_json::Value as Json;
use tritmark_engine::tokenizer::is_python_space;

use super::{dataset::FieldError, wikitext};

/// Steps a template may take.
const FUEL: u64 = 1_000_000;
/// Most bytes a template may make: the longest prompts have some ten thousand.
const MAX_BYTES: usize = 16 << 20;

/// A definition's templates and expressions, by the key they stand under.
pub(super) struct Templates {
    environment: Environment<'static>,
}

impl fmt::Debug for Templates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Templates").finish_non_exhaustive()
    }
}

impl Templates {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("the default marks hold"));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(print_as_python);
        environment.set_unknown_method_callback(method);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("regex_replace", regex_replace);
        environment.add_filter("wikitext_detokenize", |page: &str| {
            wikitext::detokenize(page)
        });
        environment.add_filter("wikihow_clean", |text: String| wikihow_clean(&text));
        environment.add_filter("one_text", one_text);
        environment.add_filter(JSON, |value: &Value| {
            serde_json::to_string(value)
                .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
        });
        Self { environment }
    }

    /// Adds the template that stands under a key.
    pub(super) fn template(&mut self, key: &'static str, source: &str) -> Result<(), String> {
        self.environment
            .add_template_owned(key, source.to_owned())
            .map_err(|error| format!("`{key}`: {}", describe(&error)))
    }

    /// Adds the expression that stands under a key.
    pub(super) fn expression(&mut self, key: &'static str, source: &str) -> Result<(), String> {
        self.environment
            .compile_expression(source)
            .map_err(|error| format!("`{key}`: {}", describe(&error)))?;
        self.template(key, &format!("{{{{ ({source})|{JSON} }}}}"))
    }

    /// Tells whether there is something under a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.environment.get_template(key).is_ok()
    }

    /// Renders a template for an item.
    pub(super) fn render(&self, key: &'static str, item: &Value) -> Result<String, FieldError> {
        let mut out = Bounded(String::new());
        let rendered = self
            .environment
            .get_template(key)
            .and_then(|template| template.render_captured_to(item.clone(), &mut out));
        match rendered {
            Ok(_) => Ok(out.0),
            Err(error) => Err(FieldError::new(key, describe(&error))),
        }
    }

    /// Evaluates an expression for an item.
    pub(super) fn evaluate(&self, key: &'static str, item: &Value) -> Result<Json, FieldError> {
        let text = self.render(key, item)?;
        serde_json::from_str(&text).map_err(|error| FieldError::new(key, error.to_string()))
    }
}

/// Name of the filter expressions are handed over by.
const JSON: &str = "__json";

/// An item's keys as templates see them.
pub(super) fn context(item: &Json) -> Value {
    Value::deserialize(item).unwrap_or_default()
}

/// Text that refuses to grow without end.
struct Bounded(String);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BYTES {
            return Err(std::io::Error::other(format!(
                "makes more than {MAX_BYTES} bytes"
            )));
        }
        let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
        self.0.push_str(text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Says what went wrong in one line, without the name of the template, which is the key.
fn describe(error: &Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        let _ = write!(text, ": {detail}");
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    if let Some(line) = error.line() {
        let _ = write!(text, " (line {line})");
    }
    text
}

/// Lists within lists that are printed.
const MAX_NESTED: u32 = 64;

/// Prints a value as Python's `str` does.
fn print_as_python(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    print_value(out, state, value, 0)
}

fn print_value(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
    depth: u32,
) -> Result<(), Error> {
    if depth > MAX_NESTED {
        let problem = format!("is nested more than {MAX_NESTED} lists deep");
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    match value.kind() {
        ValueKind::String if depth > 0 => write_quoted(out, value.as_str().unwrap_or_default())?,
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" })?,
        ValueKind::None => out.write_str("None")?,
        ValueKind::Seq => {
            out.write_str("[")?;
            for (i, entry) in value.try_iter()?.enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                print_value(out, state, &entry, depth + 1)?;
            }
            out.write_str("]")?;
        }
        ValueKind::Map => {
            out.write_str("{")?;
            for (i, key) in value.try_iter()?.enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                print_value(out, state, &key, depth + 1)?;
                out.write_str(": ")?;
                print_value(out, state, &value.get_item(&key)?, depth + 1)?;
            }
            out.write_str("}")?;
        }
        _ => minijinja::escape_formatter(out, state, value)?,
    }
    Ok(())
}

/// Writes a text as it stands within a list or a dictionary.
fn write_quoted(out: &mut Output<'_>, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

/// Lets one text or number through: where a list stands for several right answers, a task that
/// knows one answer would be scored wrongly.
fn one_text(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => Err(Error::new(
            ErrorKind::InvalidOperation,
            "is a list, of which only one text can be the right answer",
        )),
        _ => Ok(value.clone()),
    }
}

/// Python's methods that minijinja leaves out, or whose blanks are not Python's.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.as_str(), name, arguments) {
        (Some(text), "strip", []) => Ok(text.trim_matches(is_python_space).into()),
        (Some(text), "lstrip", []) => Ok(text.trim_start_matches(is_python_space).into()),
        (Some(text), "rstrip", []) => Ok(text.trim_end_matches(is_python_space).into()),
        (None, "index", [wanted]) if value.kind() == ValueKind::Seq => value
            .try_iter()?
            .position(|entry| entry == *wanted)
            .map(Value::from)
            .ok_or_else(|| {
                let problem = format!("`{wanted}` is not in the list {value}");
                Error::new(ErrorKind::InvalidOperation, problem)
            }),
        _ => pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Replaces all matches of a pattern, `re.sub` with a plain replacement.
fn regex_replace(text: &str, pattern: &str, with: &str) -> Result<String, Error> {
    let regex = Regex::new(pattern)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?;
    regex
        .try_replacen(text, 0, fancy_regex::NoExpand(with))
        .map(std::borrow::Cow::into_owned)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Takes `HellaSwag`'s marks of `WikiHow` out, as lm-evaluation-harness does.
fn wikihow_clean(text: &str) -> Result<String, Error> {
    let text = text.trim_matches(is_python_space).replace(" [title]", ". ");
    Ok(regex_replace(&text, r"\[.*?\]", "")?.replace("  ", " "))
}

#[cfg(test)]
mod tests;
