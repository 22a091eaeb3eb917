//! Chat templates: Jinja programs that come with a model and write a conversation down as the
//! model was trained on it. They are run as `transformers.apply_chat_template` runs them, on fuel,
//! since they come out of model files.

use std::fmt;

use minijinja::{
    Environment, Error, ErrorKind, Value, context,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::tokenizer::Tokenizer;

mod python_json;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions before the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Returns the role as templates write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Makes a turn.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// Why a conversation could not be written down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is no Jinja.
    #[error("cannot parse the chat template")]
    Parse(#[source] Error),
    /// The template refused the conversation, failed, or ran out of fuel.
    #[error("the chat template failed")]
    Render(#[source] Error),
    /// The template is longer than any in use.
    #[error("the chat template has {bytes} bytes, more than {MAX_TEMPLATE_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// A model's template, ready to run.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bos, eos, .. } = self;
        formatter
            .debug_struct("ChatTemplate")
            .field("bos", bos)
            .field("eos", eos)
            .finish_non_exhaustive()
    }
}

/// Published templates have up to 30 kB.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// What any template may use up: a unit is a step, or 64 bytes of text it makes.
const BASE_FUEL: u64 = 200_000;
/// What it may use up besides for each byte of the conversation.
const FUEL_PER_BYTE: u64 = 16;

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are the texts it may name as `bos_token` and
    /// `eos_token`.
    pub fn new(
        template: &str,
        bos: Option<String>,
        eos: Option<String>,
    ) -> Result<Self, ChatError> {
        if template.len() > MAX_TEMPLATE_BYTES {
            return Err(ChatError::TooLong {
                bytes: template.len(),
            });
        }
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(ChatError::Parse)?,
        );
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, without_generation_marks(template))
            .map_err(ChatError::Parse)?;
        Ok(Self {
            environment,
            bos,
            eos,
        })
    }

    /// Compiles the template that came with a vocabulary, if one did.
    pub fn of(tokenizer: &Tokenizer) -> Result<Option<Self>, ChatError> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        tokenizer
            .chat_template()
            .map(|template| Self::new(template, text(tokenizer.bos()), text(tokenizer.eos())))
            .transpose()
    }

    /// Writes a conversation down. With `add_generation_prompt` the model's next turn is begun.
    ///
    /// Special tokens stand in the result as text; whether the first token is among them is up to
    /// the template, so that it is best tokenized with [`Special::Bos`](crate::tokenizer::Special).
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let bytes: usize = messages.iter().map(|m| m.content.len()).sum();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(BASE_FUEL + FUEL_PER_BYTE * bytes as u64));
        let turns: Vec<_> = messages
            .iter()
            .map(|Message { role, content }| {
                Value::from_pairs([("role", role.as_str()), ("content", content)])
            })
            .collect();
        // What is missing is undefined, what the Python library passes as None is none.
        let text = |text: &Option<String>| text.as_ref().map_or(Value::UNDEFINED, Value::from);
        environment
            .get_template(NAME)
            .and_then(|template| {
                template.render(context! {
                    messages => turns,
                    add_generation_prompt,
                    tools => (),
                    documents => (),
                    bos_token => text(&self.bos),
                    eos_token => text(&self.eos),
                })
            })
            .map_err(ChatError::Render)
    }
}

/// Replaces `{% generation %}` blocks, which the Python library adds to Jinja to mark what the
/// model said, by blocks that always run.
fn without_generation_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let (before, opened) = rest.split_at(start + 2);
        let Some(len) = opened.find("%}") else {
            break;
        };
        let (tag, after) = opened.split_at(len);
        let word = tag.trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+'));
        out.push_str(before);
        match word {
            "generation" => out.push_str(&tag.replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen(word, "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

/// A template's way to refuse a conversation.
fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// A template's way to ask for the date. A measured prompt must not change from day to day, so it
/// is always Friday 26 July 2024, 00:00: the date Llama 3.1's template falls back to.
fn strftime_now(format: &str) -> Result<String, Error> {
    let mut date = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            date.push(c);
            continue;
        }
        date.push_str(match chars.next() {
            Some('Y') => "2024",
            Some('y') => "24",
            Some('m') => "07",
            Some('d') => "26",
            Some('B') => "July",
            Some('b') => "Jul",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('%') => "%",
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: unsupported field {other:?} in {format:?}"),
                ));
            }
        });
    }
    Ok(date)
}

/// `tojson` as the Python library overrides it: `json.dumps(value, ensure_ascii=False)`.
#[expect(clippy::needless_pass_by_value, reason = "a filter's signature")]
fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent = kwargs.get::<Option<usize>>("indent")?;
    // It takes `json.dumps`'s other arguments too; these do not change a conversation.
    for ignored in ["ensure_ascii", "sort_keys", "separators"] {
        kwargs.get::<Option<Value>>(ignored)?;
    }
    kwargs.assert_all_used()?;
    if value.kind() == ValueKind::Undefined {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson of an undefined value",
        ));
    }
    python_json::dumps(value, indent).map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let messages = [
            Message::new(Role::User, "  Hi “you” & <me>  "),
            Message::new(Role::Assistant, "Yes?"),
        ];
        ChatTemplate::new(template, Some("<s>".to_owned()), None)
            .map_err(|e| format!("{e}: {}", std::error::Error::source(&e).unwrap()))?
            .render(&messages, true)
            .map_err(|e| format!("{e}: {}", std::error::Error::source(&e).unwrap()))
    }

    #[test]
    fn blocks_take_their_line_with_them_as_in_the_python_library() {
        let template = "{{ bos_token }}\n{% for m in messages %}\n  {% if true %}\n{{ m['role'].upper() }}: {{ m.content | trim }}\n  {% endif %}\n{% endfor %}\n";
        assert_eq!(
            render(template).unwrap(),
            "<s>\nUSER: Hi “you” & <me>\nASSISTANT: Yes?\n"
        );
    }

    #[test]
    fn what_templates_ask_of_python_is_there() {
        for (template, expected) in [
            (
                "{{ eos_token is defined }} {{ tools is none }}",
                "False True",
            ),
            (
                "{{ messages[0]['content'].strip().split(' ')[-1] }}",
                "<me>",
            ),
            (
                "{{ messages[0] | tojson }}",
                "{\"role\": \"user\", \"content\": \"  Hi “you” & <me>  \"}",
            ),
            (
                "{{ {'a': [1, 2.0, none, true], 'b': {}} | tojson(indent=2) }}",
                "{\n  \"a\": [\n    1,\n    2.0,\n    null,\n    true\n  ],\n  \"b\": {}\n}",
            ),
            ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
            ("{%- generation -%} a {%- endgeneration %}", "a"),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "1",
            ),
        ] {
            assert_eq!(render(template).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn a_template_that_refuses_or_fails_says_so() {
        for (template, expected) in [
            ("{{ raise_exception('no system turn') }}", "no system turn"),
            ("{{ messages[0] ", "cannot parse"),
            ("{%}", "cannot parse"),
            ("{{ nothing.at_all }}", "undefined"),
            ("{{ strftime_now('%Q') }}", "unsupported field"),
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
        let long = " ".repeat(MAX_TEMPLATE_BYTES + 1);
        let error = ChatTemplate::new(&long, None, None).unwrap_err();
        assert!(matches!(error, ChatError::TooLong { .. }));
    }

    #[test]
    fn a_hostile_template_runs_out_of_fuel() {
        for template in [
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
            "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
            "{{ 'a' * 1000000000000 }}",
        ] {
            render(template).unwrap_err();
        }
    }
}
