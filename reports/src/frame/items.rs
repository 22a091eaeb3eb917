//! The tables of items and of their scores.

use std::path::Path;

use tritmark_proto::{
    bundle::{ITEM_COLUMNS, SCORE_COLUMNS},
    record::{
        Answer, Choice, ChoiceAnswer, EnergyFault, GeneratedAnswer, Item, ItemEnergy, ItemOrigin,
        ItemScore, RollingAnswer,
    },
};

use super::Table;
use crate::error::ReportError;

/// Columns of the items before answers other than choices, and groups, were known.
const VERSION_1: [&str; 16] = [
    "job_index",
    "attempt",
    "sequence",
    "at_unix_ns",
    "task",
    "item_index",
    "doc_hash",
    "prompt_hash",
    "gold",
    "predicted",
    "predicted_norm",
    "loglikelihoods",
    "is_greedy",
    "choice_tokens",
    "choice_chars",
    "elapsed_ns",
];

/// Columns of the items and of the scores before caches, and scores that are pending, were known.
const N_ITEM_COLUMNS_OF_VERSION_2: usize = 25;
const N_SCORE_COLUMNS_OF_VERSION_2: usize = 10;

/// Columns of the items before their energy was known.
const N_ITEM_COLUMNS_OF_VERSION_4: usize = 27;

/// A row of the items.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemRow {
    /// Job.
    pub job_index: u32,
    /// Attempt of the job.
    pub attempt: u32,
    /// Position in the attempt.
    pub sequence: u64,
    /// The question and its answer; of [`read_items`], without its scores.
    pub item: Item,
}

/// A row of the scores.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// Job.
    pub job_index: u32,
    /// Attempt of the job.
    pub attempt: u32,
    /// The item's position in the attempt.
    pub sequence: u64,
    /// Its task.
    pub task: String,
    /// Its position in the data set.
    pub item_index: u32,
    /// The score.
    pub score: ItemScore,
}

/// Reads the items of a bundle of version 1 in the file's order; their scores follow from their
/// choices.
pub fn read_items_of_version_1(path: &Path) -> Result<Vec<ItemRow>, ReportError> {
    let table = Table::read(path, &VERSION_1)?;
    let place = Place::read(&table)?;
    let mut choices = Choices::read(&table)?;
    (0..table.height())
        .map(|row| {
            let answer = choices
                .answer(&table, row)?
                .ok_or_else(|| table.bad("gold", row, "no value"))?;
            let scores = answer.scores();
            let mut read = place.row(row, None, Answer::Choice(answer));
            read.item.scores = scores;
            Ok(read)
        })
        .collect()
}

/// Reads the items of a bundle of version 2 or newer in the file's order; their scores are in a table
/// of their own.
pub fn read_items(path: &Path, version: u32) -> Result<Vec<ItemRow>, ReportError> {
    let columns: &'static [&'static str] = &ITEM_COLUMNS;
    let (has_origins, has_energy) = (version > 2, version > 4);
    let columns = match version {
        ..=2 => &columns[..N_ITEM_COLUMNS_OF_VERSION_2],
        3 | 4 => &columns[..N_ITEM_COLUMNS_OF_VERSION_4],
        5.. => columns,
    };
    let table = Table::read(path, columns)?;
    let origins = has_origins.then(|| Origins::read(&table)).transpose()?;
    let mut energies = has_energy.then(|| Energies::read(&table)).transpose()?;
    let place = Place::read(&table)?;
    let group = table.text("group")?;
    let mut choices = Choices::read(&table)?;
    let mut texts = Texts::read(&table)?;
    let rolling = RollingColumns::read(&table)?;
    (0..table.height())
        .map(|row| {
            let answers = (
                choices.answer(&table, row)?,
                texts.answer(&table, row)?,
                rolling.answer(&table, row)?,
            );
            let answer = match answers {
                (Some(answer), None, None) => Answer::Choice(answer),
                (None, Some(answer), None) => Answer::Generated(answer),
                (None, None, Some(answer)) => Answer::Rolling(answer),
                (None, None, None) => return Err(table.bad("gold", row, "no answer of any kind")),
                _ => return Err(table.bad("gold", row, "more than one kind of answer")),
            };
            let mut read = place.row(row, group[row].clone(), answer);
            if let Some(origins) = &origins {
                origins.give(&table, row, &mut read.item)?;
            }
            if let Some(energies) = &mut energies {
                energies.give(&table, row, &mut read.item)?;
            }
            Ok(read)
        })
        .collect()
}

/// Reads the scores of a bundle of version 2 or newer in the file's order.
pub fn read_scores(path: &Path, version: u32) -> Result<Vec<ScoreRow>, ReportError> {
    let columns: &'static [&'static str] = &SCORE_COLUMNS;
    let has_pending = version > 2;
    let columns = if has_pending {
        columns
    } else {
        &columns[..N_SCORE_COLUMNS_OF_VERSION_2]
    };
    let table = Table::read(path, columns)?;
    let pending = if has_pending {
        table.required("pending", table.flags("pending")?)?
    } else {
        vec![false; table.height()]
    };
    let job_index = table.required("job_index", table.u32("job_index")?)?;
    let attempt = table.required("attempt", table.u32("attempt")?)?;
    let sequence = table.required("sequence", table.u64("sequence")?)?;
    let task = table.required("task", table.text("task")?)?;
    let item_index = table.required("item_index", table.u32("item_index")?)?;
    let metric = table.required("metric", table.text("metric")?)?;
    let filter = table.required("filter", table.text("filter")?)?;
    let value = table.f64("value")?;
    let extracted = table.text("extracted")?;
    let reason = table.text("reason")?;
    (0..table.height())
        .map(|row| {
            if value[row].is_some_and(|value| !value.is_finite()) {
                return Err(table.bad("value", row, "not a finite number"));
            }
            if pending[row] && value[row].is_some() {
                return Err(table.bad("value", row, "a value where the score is pending"));
            }
            Ok(ScoreRow {
                job_index: job_index[row],
                attempt: attempt[row],
                sequence: sequence[row],
                task: task[row].clone(),
                item_index: item_index[row],
                score: ItemScore {
                    metric: metric[row].clone(),
                    filter: filter[row].clone(),
                    value: value[row],
                    extracted: extracted[row].clone(),
                    reason: reason[row].clone(),
                    pending: pending[row],
                },
            })
        })
        .collect()
}

/// What every item has, whatever its answer.
struct Place {
    job_index: Vec<u32>,
    attempt: Vec<u32>,
    sequence: Vec<u64>,
    task: Vec<String>,
    item_index: Vec<u32>,
    doc_hash: Vec<String>,
    prompt_hash: Vec<String>,
    elapsed_ns: Vec<Option<u64>>,
}

impl Place {
    fn read(table: &Table) -> Result<Self, ReportError> {
        Ok(Self {
            job_index: table.required("job_index", table.u32("job_index")?)?,
            attempt: table.required("attempt", table.u32("attempt")?)?,
            sequence: table.required("sequence", table.u64("sequence")?)?,
            task: table.required("task", table.text("task")?)?,
            item_index: table.required("item_index", table.u32("item_index")?)?,
            doc_hash: table.required("doc_hash", table.text("doc_hash")?)?,
            prompt_hash: table.required("prompt_hash", table.text("prompt_hash")?)?,
            elapsed_ns: table.u64("elapsed_ns")?,
        })
    }

    fn row(&self, row: usize, group: Option<String>, answer: Answer) -> ItemRow {
        ItemRow {
            job_index: self.job_index[row],
            attempt: self.attempt[row],
            sequence: self.sequence[row],
            item: Item {
                task: self.task[row].clone(),
                group,
                index: self.item_index[row],
                doc_hash: self.doc_hash[row].clone(),
                prompt_hash: self.prompt_hash[row].clone(),
                answer,
                scores: Vec::new(),
                elapsed_ns: self.elapsed_ns[row],
                energy: Vec::new(),
                from_cache: None,
                scored_on: None,
            },
        }
    }
}

/// Where items come from, and where they were scored.
struct Origins {
    from_cache: Vec<Option<String>>,
    scored_on: Vec<Option<String>>,
}

impl Origins {
    fn read(table: &Table) -> Result<Self, ReportError> {
        Ok(Self {
            from_cache: table.text("from_cache")?,
            scored_on: table.text("scored_on")?,
        })
    }

    fn give(&self, table: &Table, row: usize, item: &mut Item) -> Result<(), ReportError> {
        item.from_cache = self.from_cache[row]
            .as_ref()
            .map(|text| text.parse::<ItemOrigin>())
            .transpose()
            .map_err(|error| table.bad("from_cache", row, &error.to_string()))?;
        if item.from_cache.is_some() && item.elapsed_ns.is_some() {
            let what = "a time of an item that is from a cache";
            return Err(table.bad("elapsed_ns", row, what));
        }
        item.scored_on.clone_from(&self.scored_on[row]);
        Ok(())
    }
}

/// What items took.
struct Energies {
    sources: Vec<Vec<String>>,
    joules: Vec<Vec<f64>>,
}

impl Energies {
    fn read(table: &Table) -> Result<Self, ReportError> {
        Ok(Self {
            sources: table.text_lists("energy_sources")?,
            joules: table.f64_lists("energy_j")?,
        })
    }

    fn give(&mut self, table: &Table, row: usize, item: &mut Item) -> Result<(), ReportError> {
        let sources = std::mem::take(&mut self.sources[row]);
        let joules = std::mem::take(&mut self.joules[row]);
        if sources.len() != joules.len() {
            let what = format!("{} values of {} sources", joules.len(), sources.len());
            return Err(table.bad("energy_j", row, &what));
        }
        if item.from_cache.is_some() && !sources.is_empty() {
            let what = "energy of an item that is from a cache";
            return Err(table.bad("energy_j", row, what));
        }
        for (source, joules) in sources.into_iter().zip(joules) {
            let energy = ItemEnergy { source, joules };
            match energy.fault(&item.energy) {
                None => item.energy.push(energy),
                Some(EnergyFault::NoSource | EnergyFault::SourceTwice) => {
                    let source = energy.source;
                    let what = format!("a source that is empty or there twice, `{source}`");
                    return Err(table.bad("energy_sources", row, &what));
                }
                Some(EnergyFault::Joules) => {
                    return Err(table.bad("energy_j", row, &format!("{joules} J")));
                }
            }
        }
        Ok(())
    }
}

/// Columns of choices.
struct Choices {
    gold: Vec<Option<u32>>,
    predicted: Vec<Option<u32>>,
    predicted_norm: Vec<Option<u32>>,
    loglikelihoods: Vec<Vec<f64>>,
    is_greedy: Vec<Vec<bool>>,
    choice_tokens: Vec<Vec<u32>>,
    choice_chars: Vec<Vec<u32>>,
}

impl Choices {
    fn read(table: &Table) -> Result<Self, ReportError> {
        Ok(Self {
            gold: table.u32("gold")?,
            predicted: table.u32("predicted")?,
            predicted_norm: table.u32("predicted_norm")?,
            loglikelihoods: table.f64_lists("loglikelihoods")?,
            is_greedy: table.bool_lists("is_greedy")?,
            choice_tokens: table.u32_lists("choice_tokens")?,
            choice_chars: table.u32_lists("choice_chars")?,
        })
    }

    /// Takes a row's answer; `None` where it is no choice.
    fn answer(&mut self, table: &Table, row: usize) -> Result<Option<ChoiceAnswer>, ReportError> {
        let loglikelihoods = std::mem::take(&mut self.loglikelihoods[row]);
        let n_choices = loglikelihoods.len();
        for (column, len) in [
            ("is_greedy", self.is_greedy[row].len()),
            ("choice_tokens", self.choice_tokens[row].len()),
            ("choice_chars", self.choice_chars[row].len()),
        ] {
            if len != n_choices {
                let what = format!("{len} choices where `loglikelihoods` has {n_choices}");
                return Err(table.bad(column, row, &what));
            }
        }
        let Some(gold) = self.gold[row] else {
            for (column, is_there) in [
                ("loglikelihoods", n_choices > 0),
                ("predicted", self.predicted[row].is_some()),
                ("predicted_norm", self.predicted_norm[row].is_some()),
            ] {
                if is_there {
                    return Err(table.bad(column, row, "a value where `gold` has none"));
                }
            }
            return Ok(None);
        };
        let in_range = |column, choice: u32| {
            if (choice as usize) < n_choices {
                return Ok(choice);
            }
            let what = format!("choice {choice} of {n_choices}");
            Err(table.bad(column, row, &what))
        };
        let predicted = self.predicted[row]
            .ok_or_else(|| table.bad("predicted", row, "no value where `gold` has one"))?;
        let choices = loglikelihoods
            .into_iter()
            .enumerate()
            .map(|(choice, loglikelihood)| Choice {
                loglikelihood,
                is_greedy: self.is_greedy[row][choice],
                n_tokens: self.choice_tokens[row][choice],
                n_chars: self.choice_chars[row][choice],
            })
            .collect();
        Ok(Some(ChoiceAnswer {
            gold: in_range("gold", gold)?,
            choices,
            predicted: in_range("predicted", predicted)?,
            predicted_norm: self.predicted_norm[row]
                .map(|choice| in_range("predicted_norm", choice))
                .transpose()?,
        }))
    }
}

/// Columns of generated answers.
struct Texts {
    text: Vec<Option<String>>,
    target: Vec<Option<String>>,
    end: Vec<Option<String>>,
    n_prompt_tokens: Vec<Option<u32>>,
    n_tokens: Vec<Option<u32>>,
}

impl Texts {
    fn read(table: &Table) -> Result<Self, ReportError> {
        Ok(Self {
            text: table.text("text")?,
            target: table.text("target")?,
            end: table.text("end")?,
            n_prompt_tokens: table.u32("n_prompt_tokens")?,
            n_tokens: table.u32("n_tokens")?,
        })
    }

    /// Takes a row's answer; `None` where it is no text.
    fn answer(
        &mut self,
        table: &Table,
        row: usize,
    ) -> Result<Option<GeneratedAnswer>, ReportError> {
        let Some(text) = self.text[row].take() else {
            return Ok(None);
        };
        let missing = |column| table.bad(column, row, "no value where `text` has one");
        Ok(Some(GeneratedAnswer {
            text,
            target: self.target[row].take().ok_or_else(|| missing("target"))?,
            n_prompt_tokens: self.n_prompt_tokens[row].ok_or_else(|| missing("n_prompt_tokens"))?,
            n_tokens: self.n_tokens[row].ok_or_else(|| missing("n_tokens"))?,
            end: self.end[row].take().ok_or_else(|| missing("end"))?,
        }))
    }
}

/// Columns of rolling answers.
struct RollingColumns {
    loglikelihood: Vec<Option<f64>>,
    n_tokens: Vec<Option<u32>>,
    n_words: Vec<Option<u32>>,
    n_bytes: Vec<Option<u32>>,
}

impl RollingColumns {
    fn read(table: &Table) -> Result<Self, ReportError> {
        Ok(Self {
            loglikelihood: table.f64("rolling_loglikelihood")?,
            n_tokens: table.u32("n_tokens")?,
            n_words: table.u32("n_words")?,
            n_bytes: table.u32("n_bytes")?,
        })
    }

    /// Returns a row's answer; `None` where it is of another kind.
    fn answer(&self, table: &Table, row: usize) -> Result<Option<RollingAnswer>, ReportError> {
        let Some(loglikelihood) = self.loglikelihood[row] else {
            return Ok(None);
        };
        if !loglikelihood.is_finite() {
            return Err(table.bad("rolling_loglikelihood", row, "not a finite number"));
        }
        let missing = |column| {
            table.bad(
                column,
                row,
                "no value where `rolling_loglikelihood` has one",
            )
        };
        Ok(Some(RollingAnswer {
            loglikelihood,
            n_tokens: self.n_tokens[row].ok_or_else(|| missing("n_tokens"))?,
            n_words: self.n_words[row].ok_or_else(|| missing("n_words"))?,
            n_bytes: self.n_bytes[row].ok_or_else(|| missing("n_bytes"))?,
        }))
    }
}
