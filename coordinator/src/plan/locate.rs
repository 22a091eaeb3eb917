//! Which key of a TOML text a byte belongs to, and on which line it stands.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::PlanError;

/// Answers where in one text something stands.
#[derive(Debug)]
pub(super) struct Locator<'text> {
    text: &'text str,
    /// Every key and value with its path.
    spans: Vec<(Range<usize>, String)>,
}

impl<'text> Locator<'text> {
    /// Reads `text` as far as it is TOML.
    pub(super) fn new(text: &'text str) -> Self {
        let (table, _) = DeTable::parse_recoverable(text);
        let mut spans = Vec::new();
        walk_table(table.get_ref(), "", &mut spans);
        Self { text, spans }
    }

    /// Returns the error `problem` at the byte `offset`.
    pub(super) fn error(&self, offset: usize, problem: impl Into<String>) -> PlanError {
        self.error_over(offset..offset + 1, problem)
    }

    /// Returns the error `problem` of a stretch of the text.
    pub(super) fn error_over(&self, span: Range<usize>, problem: impl Into<String>) -> PlanError {
        PlanError {
            line: self.line(span.start),
            key: self.key(&span).to_owned(),
            problem: problem.into(),
        }
    }

    /// Returns the line of a byte, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self
            .text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
    }

    /// Returns the path of the innermost key or value around a stretch; empty where there is none.
    fn key(&self, wanted: &Range<usize>) -> &str {
        self.spans
            .iter()
            .filter(|(span, _)| span.start <= wanted.start && wanted.end <= span.end)
            .min_by_key(|(span, _)| span.len())
            .map_or("", |(_, path)| path)
    }
}

fn walk_table(table: &DeTable<'_>, path: &str, spans: &mut Vec<(Range<usize>, String)>) {
    for (key, value) in table {
        let path = match path {
            "" => key.get_ref().to_string(),
            path => format!("{path}.{}", key.get_ref()),
        };
        spans.push((key.span(), path.clone()));
        walk_value(value, path, spans);
    }
}

fn walk_value(
    value: &toml::Spanned<DeValue<'_>>,
    path: String,
    spans: &mut Vec<(Range<usize>, String)>,
) {
    match value.get_ref() {
        DeValue::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                walk_value(value, format!("{path}[{index}]"), spans);
            }
        }
        DeValue::Table(table) => walk_table(table, &path, spans),
        _ => {}
    }
    spans.push((value.span(), path));
}
