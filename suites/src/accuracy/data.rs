//! The items of a task as prompts: with their examples, or as turns of a chat.

use serde_json::Value;
use tritmark_engine::{
    chat::{ChatTemplate, Message, Role},
    errors::chain,
    tokenizer::{Pair, Tokenizer, TokenizerError},
};
use tritmark_proto::job::{AccuracySpec, ChatSpec};

use super::{
    dataset::{DataError, DataFile, FieldError, Lines},
    definition::Program,
    examples::Examples,
    task::{ChoiceQuestion, ProgramQuestion, Question, Solved, Task},
};
use crate::{
    evalplus::{self, Chat, Style},
    humaneval,
};

/// The items of a task under its limit and within its shard, with their examples.
pub struct Data<'t> {
    task: &'t Task,
    file: DataFile,
    lines: Lines,
    examples: Examples,
    layout: Layout,
    shard: Option<tritmark_proto::job::Shard>,
    next: u32,
    /// blake3 of the task's definition, its data and its examples, hex.
    pub hash: String,
    /// Items under the limit and within the shard.
    pub n_items: u64,
    /// Items under the limit.
    pub n_limited: u64,
}

/// What is asked of a model about one item.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Position of the item from 0, in the whole data set.
    pub index: u32,
    /// The part of the task it belongs to.
    pub group: Option<String>,
    /// blake3 of the item's line, hex.
    pub doc_hash: String,
    /// The question with its whole contexts.
    pub question: Question,
}

/// How description, examples and question become one text.
#[derive(Debug)]
enum Layout {
    Plain,
    Chat {
        template: Box<ChatTemplate>,
        system: Option<String>,
        multiturn: bool,
    },
    /// Answers are there already, and programs: only their tests are wanted.
    Answered(Style),
}

impl<'t> Data<'t> {
    /// Finds a task's files and hashes them whole, whatever the limit.
    pub fn open(task: &'t Task, spec: &AccuracySpec) -> Result<Self, DataError> {
        let definition = &task.definition;
        let folder = spec.data_dir.join(definition.folder());
        let file = DataFile::find(&folder, &definition.data.items, definition.data.format)?;
        let mut hasher = blake3::Hasher::new();
        // Where the data can be had from says nothing about what is asked.
        let mut asked = definition.clone();
        asked.data.hub = None;
        let stated = serde_json::to_string(&asked).unwrap_or_default();
        hasher.update(stated.as_bytes());
        let mut n_items = 0;
        for line in file.lines()? {
            hasher.update(b"\n");
            hasher.update(&line?.bytes);
            n_items += 1;
        }
        if n_items == 0 {
            return Err(DataError::Empty { path: file.path });
        }
        let num_fewshot = task.num_fewshot(Some(spec.num_fewshot));
        hasher.update(format!("\n{num_fewshot} examples\n").as_bytes());
        let examples = if num_fewshot == 0 {
            Examples::none(task)
        } else if definition.fewshot.samples.is_empty() {
            let data = &definition.data;
            let pool = DataFile::find(&folder, &data.examples, data.format)?;
            Examples::read(&pool, task, num_fewshot, &mut hasher)?
        } else {
            Examples::fixed(task, num_fewshot)?
        };
        if let Some(chat) = &spec.chat {
            hasher.update(format!("{chat:?}\n").as_bytes());
        }
        let n_limited = spec
            .limit
            .map_or(n_items, |limit| n_items.min(limit.get().into()));
        Ok(Self {
            lines: file.lines()?,
            task,
            file,
            examples,
            layout: Layout::Plain,
            shard: spec.shard,
            next: 0,
            hash: hasher.finalize().to_hex().to_string(),
            n_items: spec
                .shard
                .map_or(n_limited, |shard| shard.share_of(n_limited)),
            n_limited,
        })
    }

    /// Makes turns of a chat of the prompts, by the model's own template.
    #[must_use]
    pub fn in_chat(self, template: ChatTemplate, chat: &ChatSpec) -> Self {
        Self {
            layout: Layout::Chat {
                template: Box::new(template),
                system: chat.system.clone(),
                multiturn: chat.fewshot_as_multiturn,
            },
            ..self
        }
    }

    /// Takes the items for their tests alone, to score programs that were written in a chat or not:
    /// what was asked is left out.
    #[must_use]
    pub fn to_be_scored(self, in_chat: bool) -> Self {
        let style = if in_chat {
            Style::Chat
        } else {
            Style::Completion
        };
        Self {
            layout: Layout::Answered(style),
            ..self
        }
    }

    fn prompt(&mut self, index: u32, line: Vec<u8>, number: u64) -> Result<Prompt, DataError> {
        let hash = blake3::hash(&line);
        let line = super::dataset::Line {
            number,
            bytes: line,
        };
        let path = &self.file.path;
        // A program's line may hold numbers no JSON reader takes; its own reader sees to it.
        if let Some(program) = self.task.definition.prompt.program {
            let question = self
                .layout
                .program(program, &line.bytes)
                .map_err(|source| DataError::Field {
                    path: path.clone(),
                    line: number,
                    source,
                })?;
            return Ok(Prompt {
                index,
                group: None,
                doc_hash: hash.to_hex().to_string(),
                question: Question::Program(question),
            });
        }
        let (task, examples, layout) = (self.task, &mut self.examples, &self.layout);
        let (group, question) = line.parse(path, |item| {
            let group = task.group(item)?;
            let shots = examples.next(group.as_deref(), &hash).ok_or_else(|| {
                let group = group.as_deref().unwrap_or_default();
                FieldError::new("data.group", format!("is `{group}`, which has no examples"))
            })?;
            let question = whole(task, layout, item, &shots)?;
            Ok((group, question))
        })?;
        Ok(Prompt {
            index,
            group,
            doc_hash: hash.to_hex().to_string(),
            question,
        })
    }
}

/// Puts description and examples before a question.
fn whole(
    task: &Task,
    layout: &Layout,
    item: &Value,
    shots: &[Solved],
) -> Result<Question, FieldError> {
    let description = task.description(item)?;
    let mut question = task.question(item)?;
    let arrange = |context: &str| layout.arrange(task, &description, shots, context);
    match &mut question {
        Question::Choice(ChoiceQuestion { requests, .. }) => {
            let in_chat = matches!(layout, Layout::Chat { .. });
            for request in requests {
                request.context = arrange(&request.context)?;
                if in_chat {
                    // The template has said where the answer begins.
                    request.continuation.drain(..task.target_delimiter().len());
                }
            }
        }
        Question::Generate { context, .. } => *context = arrange(context)?,
        Question::Rolling { .. } | Question::Program(_) => {}
    }
    Ok(question)
}

impl Layout {
    /// Reads a problem that a program solves.
    fn program(&self, program: Program, line: &[u8]) -> Result<ProgramQuestion, FieldError> {
        let line = std::str::from_utf8(line)
            .map_err(|error| FieldError::new("the item", format!("is not UTF-8: {error}")))?;
        Ok(match program {
            Program::Humaneval => ProgramQuestion::HumanEval {
                problem: Box::new(humaneval::Problem::parse(line)?),
            },
            Program::Evalplus => {
                let problem = Box::new(evalplus::Problem::parse(line)?);
                let (style, context) = match self {
                    Self::Plain => (Style::Completion, problem.completion_prompt()),
                    Self::Answered(style) => (*style, String::new()),
                    Self::Chat {
                        template, system, ..
                    } => {
                        let Chat { user, assistant } = problem.chat_prompt();
                        let said = system.iter().map(|text| Message::new(Role::System, text));
                        let turns = said.chain([Message::new(Role::User, user)]);
                        let turns: Vec<Message> = turns.collect();
                        (Style::Chat, rendered(template, &turns)? + assistant)
                    }
                };
                ProgramQuestion::EvalPlus {
                    problem,
                    style,
                    context,
                }
            }
        })
    }

    fn arrange(
        &self,
        task: &Task,
        description: &str,
        shots: &[Solved],
        question: &str,
    ) -> Result<String, FieldError> {
        let delimiter = task
            .definition
            .fewshot
            .delimiter
            .as_deref()
            .unwrap_or("\n\n");
        let between = task.target_delimiter();
        let examples = || {
            shots
                .iter()
                .flat_map(|shot| [&shot.question, between, &shot.answer, delimiter])
        };
        let (template, system, multiturn) = match self {
            Self::Plain | Self::Answered(_) => {
                let parts = std::iter::once(description).chain(examples());
                return Ok(parts.chain([question]).collect());
            }
            Self::Chat {
                template,
                system,
                multiturn,
            } => (template, system, *multiturn),
        };
        let mut messages = Vec::new();
        let said = system.as_deref().unwrap_or_default();
        let separator = if said.is_empty() || description.is_empty() {
            ""
        } else {
            "\n\n"
        };
        let system = format!("{said}{separator}{description}");
        if !system.is_empty() {
            messages.push(Message::new(Role::System, system));
        }
        if multiturn {
            for Solved { question, answer } in shots {
                messages.push(Message::new(Role::User, question.as_str()));
                messages.push(Message::new(Role::Assistant, answer.as_str()));
            }
            messages.push(Message::new(Role::User, question));
        } else {
            let turn: String = examples().chain([question]).collect();
            messages.push(Message::new(Role::User, turn));
        }
        rendered(template, &messages)
    }
}

fn rendered(template: &ChatTemplate, messages: &[Message]) -> Result<String, FieldError> {
    template
        .render(messages, true)
        .map_err(|error| FieldError::new("chat template", chain(&error)))
}

impl Iterator for Data<'_> {
    type Item = Result<Prompt, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if u64::from(self.next) >= self.n_limited {
                return None;
            }
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            let index = self.next;
            self.next += 1;
            // Examples are drawn for every item, so that a shard's are those of the whole.
            let prompt = self.prompt(index, line.bytes, line.number);
            if prompt.is_err() || self.shard.is_none_or(|shard| shard.holds(index)) {
                return Some(prompt);
            }
        }
    }
}

impl Prompt {
    /// Returns the blake3 hash of all requests, hex.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        match &self.question {
            Question::Choice(ChoiceQuestion { requests, .. }) => {
                for request in requests {
                    add(&request.context);
                    add(&request.continuation);
                }
            }
            Question::Generate { context, .. } => add(context),
            Question::Rolling { text, .. } => add(text),
            Question::Program(program) => add(program.context()),
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Returns the tokens of all requests, with or without the vocabulary's BOS before them; none
    /// where the question is no choice.
    pub fn pairs(&self, tokenizer: &Tokenizer, add_bos: bool) -> Result<Vec<Pair>, TokenizerError> {
        let Question::Choice(ChoiceQuestion { requests, .. }) = &self.question else {
            return Ok(Vec::new());
        };
        requests
            .iter()
            .map(|request| tokenizer.pair(&request.context, &request.continuation, add_bos))
            .collect()
    }
}
