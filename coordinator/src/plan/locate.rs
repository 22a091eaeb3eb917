//! Which key of a TOML text a byte belongs to, and on which line it stands.

use std::{cmp::Reverse, iter, ops::Range};

use toml::de::{DeTable, DeValue};
use toml_parser::{Source, lexer::TokenKind};

use super::PlanError;

/// Answers where in one text something stands.
#[derive(Debug)]
pub(super) struct Locator<'text> {
    text: &'text str,
    places: Vec<Place>,
}

/// An entry of a table or a list.
#[derive(Debug)]
struct Place {
    step: Step,
    /// Where its key stands, if it has one.
    key: Option<Range<usize>>,
    value: Range<usize>,
    /// Position of the entry it lies in. A path is put together when it is asked for: all of them,
    /// written out, can be a thousand times as long as the text.
    parent: Option<usize>,
    depth: usize,
}

/// The last part of a path.
#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl<'text> Locator<'text> {
    /// Reads `text` as far as it is TOML.
    pub(super) fn new(text: &'text str) -> Self {
        let (table, _) = DeTable::parse_recoverable(text);
        Self {
            text,
            places: places(table.get_ref()),
        }
    }

    /// Returns the error `problem` at the byte `offset`.
    pub(super) fn error(&self, offset: usize, problem: impl Into<String>) -> PlanError {
        self.error_over(offset..offset + 1, problem)
    }

    /// Returns the error `problem` of a stretch of the text.
    pub(super) fn error_over(&self, span: Range<usize>, problem: impl Into<String>) -> PlanError {
        PlanError {
            line: self.line(span.start),
            key: self.key(&span),
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
    fn key(&self, wanted: &Range<usize>) -> String {
        let is_around = |span: &Range<usize>| span.start <= wanted.start && wanted.end <= span.end;
        let innermost = self
            .places
            .iter()
            .enumerate()
            .flat_map(|(at, place)| {
                let spans = place.key.iter().chain([&place.value]);
                spans.map(move |span| (at, place.depth, span))
            })
            .filter(|(_, _, span)| is_around(span))
            .min_by_key(|(_, depth, span)| (span.len(), Reverse(*depth)));
        innermost.map_or_else(String::new, |(at, ..)| self.path(at))
    }

    fn path(&self, at: usize) -> String {
        let up = iter::successors(Some(at), |&at| self.places[at].parent);
        let mut steps: Vec<&Step> = up.map(|at| &self.places[at].step).collect();
        steps.reverse();
        let mut path = String::new();
        for step in steps {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.extend([".", key]),
                Step::Index(index) => path.extend(["[", &index.to_string(), "]"]),
            }
        }
        path
    }
}

/// Returns the first line on which more than `most` brackets are open.
pub(super) fn line_nested_too_deep(text: &str, most: usize) -> Option<usize> {
    let (mut line, mut depth) = (1, 0_usize);
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        if depth > most {
            return Some(line);
        }
        let span = token.span();
        line += text[span.start()..span.end()].matches('\n').count();
    }
    None
}

/// Lists every entry of `root`.
fn places(root: &DeTable<'_>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut waiting = Vec::new();
    push_table(root, None, 0, &mut waiting);
    while let Some((place, value)) = waiting.pop() {
        let (at, depth) = (places.len(), place.depth + 1);
        places.push(place);
        match value {
            DeValue::Table(table) => push_table(table, Some(at), depth, &mut waiting),
            DeValue::Array(values) => {
                waiting.extend(values.iter().enumerate().map(|(n, value)| {
                    let place = Place {
                        step: Step::Index(n),
                        key: None,
                        value: value.span(),
                        parent: Some(at),
                        depth,
                    };
                    (place, value.get_ref())
                }));
            }
            _ => {}
        }
    }
    places
}

fn push_table<'a, 't>(
    table: &'a DeTable<'t>,
    parent: Option<usize>,
    depth: usize,
    waiting: &mut Vec<(Place, &'a DeValue<'t>)>,
) {
    waiting.extend(table.iter().map(|(key, value)| {
        let place = Place {
            step: Step::Key(key.get_ref().to_string()),
            key: Some(key.span()),
            value: value.span(),
            parent,
            depth,
        };
        (place, value.get_ref())
    }));
}
