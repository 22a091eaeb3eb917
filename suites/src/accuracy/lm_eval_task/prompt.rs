//! What is asked: `doc_to_text`, `doc_to_choice` and `doc_to_target`.
//!
//! The reference harness takes a text under one of these keys for a field where the data have one
//! of that name, and for a template where not. The data are not at hand here: a bare name is a
//! field, all else a template. `doc_to_choice` is printed and read back as a Python list there; an
//! expression that is the whole template is that list itself.

use std::fmt::Write as _;

use super::{
    ImportError,
    config::{Config, text, wrong},
    yaml::Yaml,
};
use crate::accuracy::definition::{Kind, Prompt};

/// Fields that hold a position where the contexts are the choices (`doc_to_text` is then the right
/// one's position).
const ANSWERS: [&str; 6] = ["label", "answer", "answerKey", "gold", "target", "correct"];

/// Reads the prompt of a task of this kind.
pub(super) fn prompt(
    kind: Kind,
    config: &mut Config,
    warnings: &mut Vec<String>,
) -> Result<Prompt, ImportError> {
    let mut prompt = Prompt::default();
    if let Some(description) = config.text("description")?.filter(|text| !text.is_empty()) {
        // Here alone a word is more likely a text than a field; both are possible.
        prompt.description = Some(match Source::of(&description) {
            Source::Field(name) => format!("{{{{ {name} if {name} is defined else '{name}' }}}}"),
            _ => template(&description),
        });
    }
    let delimiter = config.text("target_delimiter")?;
    prompt.target_delimiter = delimiter.filter(|delimiter| delimiter != " ");
    let question = config.take("doc_to_text");
    let target = config.take("doc_to_target");
    let choices = config.take("doc_to_choice");
    if kind != Kind::MultipleChoice && choices.is_some() {
        // It turns digits of `doc_to_target` into the choice at that position.
        let problem = "means nothing to this `output_type`";
        return Err(ImportError::key("doc_to_choice", problem));
    }
    let missing = |key| ImportError::key(key, "is missing");
    match kind {
        Kind::MultipleChoice => {
            let question = question.ok_or_else(|| missing("doc_to_text"))?;
            prompt.question = Some(asked(question, true, warnings)?);
            let choices = choices.ok_or_else(|| missing("doc_to_choice"))?;
            let choices = choice_list(choices)?;
            gold(
                target.ok_or_else(|| missing("doc_to_target"))?,
                &choices,
                &mut prompt,
                warnings,
            )?;
            prompt.choices = Some(choices);
        }
        Kind::GenerateUntil => {
            let question = question.ok_or_else(|| missing("doc_to_text"))?;
            prompt.question = Some(asked(question, false, warnings)?);
            let target = target.ok_or_else(|| missing("doc_to_target"))?;
            prompt.target = Some(answer(target, warnings)?);
        }
        _ => {
            let target = text(
                "doc_to_target",
                target.ok_or_else(|| missing("doc_to_target"))?,
            )?;
            prompt.text = Some(match Source::of(&target) {
                Source::Field(name) => format!("{{{{ {name} }}}}"),
                _ => template(&target),
            });
        }
    }
    Ok(prompt)
}

/// What a text under a key is.
#[derive(Debug, PartialEq, Eq)]
enum Source<'t> {
    /// The name of a field.
    Field(&'t str),
    /// A template that is one expression.
    Expression(&'t str),
    /// Another template.
    Template,
}

impl<'t> Source<'t> {
    fn of(text: &'t str) -> Self {
        let is_name = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if is_name(text) {
            return Self::Field(text);
        }
        match expression(text) {
            Some(inner) => Self::Expression(inner),
            None => Self::Template,
        }
    }
}

/// Returns what stands between the braces of a template that is one expression.
fn expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner).trim();
    let mut quote = None;
    let mut before = ' ';
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '}') if before == '}' => return None,
            _ => {}
        }
        before = c;
    }
    (quote.is_none() && !inner.is_empty()).then_some(inner)
}

/// Line ends are one character in Jinja's templates.
fn template(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn constant(key: &str, text: &str, warnings: &mut Vec<String>) {
    if !text.contains('{') && !text.trim().is_empty() {
        let shown: String = text.chars().take(60).collect();
        warnings.push(format!(
            "`{key}` is taken for the constant text `{shown}`; if that is a field of the data, \
             write it as an expression"
        ));
    }
}

fn asked(value: Yaml, is_choice: bool, warnings: &mut Vec<String>) -> Result<String, ImportError> {
    const KEY: &str = "doc_to_text";
    let source = match value {
        Yaml::Int(_) if is_choice => {
            let problem = "is a position: tasks with one context for each choice are not supported";
            return Err(ImportError::key(KEY, problem));
        }
        other => text(KEY, other)?,
    };
    match Source::of(&source) {
        Source::Field(name) | Source::Expression(name) if is_choice && ANSWERS.contains(&name) => {
            let problem = format!(
                "is the field `{name}`, a position: tasks with one context for each choice are \
                 not supported"
            );
            Err(ImportError::key(KEY, problem))
        }
        Source::Field(name) => Ok(format!("{{{{ {name} }}}}")),
        _ => {
            constant(KEY, &source, warnings);
            Ok(template(&source))
        }
    }
}

fn choice_list(value: Yaml) -> Result<String, ImportError> {
    const KEY: &str = "doc_to_choice";
    let entries = match value {
        Yaml::Text(source) => {
            return match Source::of(source.trim()) {
                Source::Field(inner) | Source::Expression(inner) => Ok(template(inner)),
                Source::Template => {
                    let problem = "is a template that is not one expression `{{ … }}`";
                    Err(ImportError::key(KEY, problem))
                }
            };
        }
        Yaml::List(entries) => entries,
        Yaml::Map(entries) => entries.into_iter().map(|(_, value)| value).collect(),
        other => {
            return Err(wrong(
                KEY,
                "a list of texts, a field or an expression",
                &other,
            ));
        }
    };
    let mut out = String::from("[");
    for (i, entry) in entries.into_iter().enumerate() {
        let choice = text(&format!("{KEY}[{i}]"), entry)?;
        out.push_str(if i > 0 { ", " } else { "" });
        quote(&choice, &mut out);
    }
    out.push(']');
    Ok(out)
}

/// Writes a text as Jinja's.
fn quote(text: &str, out: &mut String) {
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('\'');
}

fn gold(
    value: Yaml,
    choices: &str,
    prompt: &mut Prompt,
    warnings: &mut Vec<String>,
) -> Result<(), ImportError> {
    const KEY: &str = "doc_to_target";
    let source = match value {
        Yaml::Int(position) if position >= 0 => {
            prompt.gold = Some(position.to_string());
            return Ok(());
        }
        Yaml::Bool(second) => {
            prompt.gold = Some(u8::from(second).to_string());
            return Ok(());
        }
        Yaml::List(_) => {
            let problem = "is a list: several right choices are not supported";
            return Err(ImportError::key(KEY, problem));
        }
        other => text(KEY, other)?,
    };
    if let Source::Field(name) = Source::of(&source) {
        // A field's number is a position, its text is a choice's.
        let mut gold = format!("{name} if {name} is not string else ");
        let _ = if choices.starts_with('[') || Source::of(choices) == Source::Field(choices) {
            write!(gold, "{choices}.index({name})")
        } else {
            write!(gold, "({choices}).index({name})")
        };
        prompt.gold = Some(gold);
    } else {
        // Printed digits are a position, another text is a choice's.
        constant(KEY, &source, warnings);
        prompt.target = Some(template(&source));
    }
    Ok(())
}

fn answer(value: Yaml, warnings: &mut Vec<String>) -> Result<String, ImportError> {
    const KEY: &str = "doc_to_target";
    let source = match value {
        Yaml::Int(number) => return Ok(number.to_string()),
        other => text(KEY, other)?,
    };
    // A list is several right answers there.
    Ok(match Source::of(&source) {
        Source::Field(name) => format!("{{{{ {name} | one_text }}}}"),
        Source::Expression(inner) => format!("{{{{ ({}) | one_text }}}}", template(inner)),
        Source::Template => {
            constant(KEY, &source, warnings);
            template(&source)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_is_one_expression_is_known_by_its_braces() {
        let is = |text, inner| assert_eq!(Source::of(text), Source::Expression(inner), "{text}");
        is("{{choices.text}}", "choices.text");
        is("{{- [a, '}}', \"{{\"] -}}", "[a, '}}', \"{{\"]");
        is(r"{{ 'it\'s' }}", r"'it\'s'");
        for text in [
            "{{a}}{{b}}",
            "{{a}} {{b}}",
            "{{ }}",
            "{{a",
            "x{{a}}",
            "{{ 'a }}",
        ] {
            assert_eq!(Source::of(text), Source::Template, "{text}");
        }
        assert_eq!(Source::of("question_stem"), Source::Field("question_stem"));
        assert_eq!(Source::of("two words"), Source::Template);
    }
}
