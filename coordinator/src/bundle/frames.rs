//! Records as columns. Names and types are those of `tritmark_proto::bundle`.

use polars::prelude::{
    Column, DataFrame, DataType, Float64Type, IntoSeries as _, ListBooleanChunkedBuilder,
    ListBuilderTrait as _, ListPrimitiveChunkedBuilder, ListStringChunkedBuilder, NamedFrom as _,
    ParquetWriter, PolarsResult, Series, UInt32Type,
};
use tritmark_proto::{
    bundle::{AGREEMENT, ITEMS, MEASUREMENTS, SCORES, TOKENS},
    record::{AgreementCell, Item, ItemScore, Measurement, Outcome, Phase, Reading, TokenTimes},
};

/// Where a record comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) job_index: u32,
    pub(super) attempt: u32,
    pub(super) sequence: u64,
    pub(super) at_unix_ns: i64,
}

/// The tables, growing row by row.
#[derive(Debug, Default)]
pub(super) struct Frames {
    measurements: Measurements,
    items: Items,
    tokens: Tokens,
    cells: Cells,
}

#[derive(Debug, Default)]
struct Measurements {
    places: Vec<Place>,
    suite: Vec<String>,
    metric: Vec<&'static str>,
    unit: Vec<&'static str>,
    phase: Vec<Option<&'static str>>,
    n_prompt: Vec<Option<u32>>,
    n_gen: Vec<Option<u32>>,
    n_depth: Vec<Option<u32>>,
    n_batch: Vec<Option<u32>>,
    repetition: Vec<Option<u32>>,
    value: Vec<Option<f64>>,
    grade: Vec<Option<&'static str>>,
    source: Vec<Option<String>>,
    skipped_reason: Vec<Option<String>>,
}

#[derive(Debug, Default)]
struct Items {
    places: Vec<Place>,
    items: Vec<Item>,
}

#[derive(Debug, Default)]
struct Cells {
    places: Vec<Place>,
    cells: Vec<AgreementCell>,
}

#[derive(Debug, Default)]
struct Tokens {
    job_index: Vec<u32>,
    attempt: Vec<u32>,
    sequence: Vec<u64>,
    n_prompt: Vec<u32>,
    n_gen: Vec<u32>,
    n_depth: Vec<u32>,
    n_batch: Vec<u32>,
    repetition: Vec<u32>,
    token_index: Vec<u32>,
    token_id: Vec<u32>,
    elapsed_ns: Vec<u64>,
}

impl Frames {
    pub(super) fn measurement(&mut self, place: Place, measurement: Measurement) {
        let Measurement {
            suite,
            metric,
            workload,
            phase,
            repetition,
            outcome,
        } = measurement;
        let rows = &mut self.measurements;
        rows.places.push(place);
        rows.suite.push(suite);
        rows.metric.push(metric.name());
        rows.unit.push(metric.unit());
        rows.phase.push(phase.map(Phase::name));
        rows.n_prompt.push(workload.map(|shape| shape.n_prompt));
        rows.n_gen.push(workload.map(|shape| shape.n_gen));
        rows.n_depth.push(workload.map(|shape| shape.n_depth));
        rows.n_batch.push(workload.map(|shape| shape.n_batch));
        rows.repetition.push(repetition);
        let (reading, reason) = match outcome {
            Outcome::Reading(reading) => (Some(reading), None),
            Outcome::Skipped { reason } => (None, Some(reason)),
        };
        let (value, grade, source) = match reading {
            Some(Reading {
                value,
                grade,
                source,
            }) => (Some(value), Some(grade.name()), Some(source)),
            None => (None, None, None),
        };
        rows.value.push(value);
        rows.grade.push(grade);
        rows.source.push(source);
        rows.skipped_reason.push(reason);
    }

    pub(super) fn item(&mut self, place: Place, item: Item) {
        self.items.places.push(place);
        self.items.items.push(item);
    }

    pub(super) fn cell(&mut self, place: Place, cell: AgreementCell) {
        self.cells.places.push(place);
        self.cells.cells.push(cell);
    }

    pub(super) fn tokens(&mut self, place: Place, times: &TokenTimes) {
        let TokenTimes {
            workload,
            repetition,
            token_ids,
            elapsed_ns,
        } = times;
        let rows = &mut self.tokens;
        for (index, (token_id, elapsed_ns)) in (0_u32..).zip(token_ids.iter().zip(elapsed_ns)) {
            rows.job_index.push(place.job_index);
            rows.attempt.push(place.attempt);
            rows.sequence.push(place.sequence);
            rows.n_prompt.push(workload.n_prompt);
            rows.n_gen.push(workload.n_gen);
            rows.n_depth.push(workload.n_depth);
            rows.n_batch.push(workload.n_batch);
            rows.repetition.push(*repetition);
            rows.token_index.push(index);
            rows.token_id.push(*token_id);
            rows.elapsed_ns.push(*elapsed_ns);
        }
    }

    /// Returns each table's file name and its Parquet bytes.
    pub(super) fn into_parquet(self) -> [(&'static str, PolarsResult<Vec<u8>>); 5] {
        let Self {
            measurements,
            items,
            tokens,
            cells,
        } = self;
        [
            (MEASUREMENTS, measurements.frame().and_then(parquet)),
            (ITEMS, items.frame().and_then(parquet)),
            (SCORES, items.scores().and_then(parquet)),
            (TOKENS, tokens.frame().and_then(parquet)),
            (AGREEMENT, cells.frame().and_then(parquet)),
        ]
    }
}

fn parquet(mut frame: DataFrame) -> PolarsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut frame)?;
    Ok(bytes)
}

/// Makes a column of plain values.
macro_rules! column {
    ($name:literal, $values:expr) => {
        Column::from(Series::new($name.into(), $values))
    };
}

fn place_columns(places: &[Place]) -> [Column; 4] {
    fn each<T>(places: &[Place], value: impl Fn(&Place) -> T) -> Vec<T> {
        places.iter().map(value).collect()
    }
    [
        column!("job_index", each(places, |place| place.job_index)),
        column!("attempt", each(places, |place| place.attempt)),
        column!("sequence", each(places, |place| place.sequence)),
        column!("at_unix_ns", each(places, |place| place.at_unix_ns)),
    ]
}

impl Measurements {
    fn frame(self) -> PolarsResult<DataFrame> {
        let Self {
            places,
            suite,
            metric,
            unit,
            phase,
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            repetition,
            value,
            grade,
            source,
            skipped_reason,
        } = self;
        let mut columns = Vec::from(place_columns(&places));
        columns.extend([
            column!("suite", suite),
            column!("metric", metric),
            column!("unit", unit),
            column!("phase", phase),
            column!("n_prompt", n_prompt),
            column!("n_gen", n_gen),
            column!("n_depth", n_depth),
            column!("n_batch", n_batch),
            column!("repetition", repetition),
            column!("value", value),
            column!("grade", grade),
            column!("source", source),
            column!("skipped_reason", skipped_reason),
        ]);
        DataFrame::new(places.len(), columns)
    }
}

impl Items {
    fn frame(&self) -> PolarsResult<DataFrame> {
        let items = &self.items[..];
        macro_rules! each {
            ($value:expr) => {
                items.iter().map($value).collect::<Vec<_>>()
            };
        }
        macro_rules! of {
            ($answer:ident, $value:expr) => {
                items
                    .iter()
                    .map(|item| item.$answer().map($value))
                    .collect::<Vec<_>>()
            };
        }
        let mut columns = Vec::from(place_columns(&self.places));
        columns.extend([
            column!("task", each!(|item| item.task.clone())),
            column!("group", each!(|item| item.group.clone())),
            column!("item_index", each!(|item| item.index)),
            column!("doc_hash", each!(|item| item.doc_hash.clone())),
            column!("prompt_hash", each!(|item| item.prompt_hash.clone())),
            column!("gold", of!(choice, |answer| answer.gold)),
            column!("predicted", of!(choice, |answer| answer.predicted)),
            column!(
                "predicted_norm",
                each!(|item| item.choice().and_then(|answer| answer.predicted_norm))
            ),
        ]);
        columns.extend(choice_columns(items));
        columns.extend([
            column!("text", of!(generated, |answer| answer.text.clone())),
            column!("target", of!(generated, |answer| answer.target.clone())),
            column!("end", of!(generated, |answer| answer.end.clone())),
            column!(
                "n_prompt_tokens",
                of!(generated, |answer| answer.n_prompt_tokens)
            ),
            column!("n_tokens", each!(Item::n_tokens)),
            column!(
                "rolling_loglikelihood",
                of!(rolling, |answer| answer.loglikelihood)
            ),
            column!("n_words", of!(rolling, |answer| answer.n_words)),
            column!("n_bytes", of!(rolling, |answer| answer.n_bytes)),
            column!("elapsed_ns", each!(|item| item.elapsed_ns)),
            column!(
                "from_cache",
                each!(|item| item.from_cache.map(|origin| origin.to_string()))
            ),
            column!("scored_on", each!(|item| item.scored_on.clone())),
        ]);
        columns.extend(energy_columns(items));
        DataFrame::new(items.len(), columns)
    }

    fn scores(&self) -> PolarsResult<DataFrame> {
        let rows: Vec<(&Place, &Item, &ItemScore)> = self
            .places
            .iter()
            .zip(&self.items)
            .flat_map(|(place, item)| item.scores.iter().map(move |score| (place, item, score)))
            .collect();
        macro_rules! each {
            ($value:expr) => {
                rows.iter().map($value).collect::<Vec<_>>()
            };
        }
        DataFrame::new(
            rows.len(),
            vec![
                column!("job_index", each!(|(place, ..)| place.job_index)),
                column!("attempt", each!(|(place, ..)| place.attempt)),
                column!("sequence", each!(|(place, ..)| place.sequence)),
                column!("task", each!(|(_, item, _)| item.task.clone())),
                column!("item_index", each!(|(_, item, _)| item.index)),
                column!("metric", each!(|(.., score)| score.metric.clone())),
                column!("filter", each!(|(.., score)| score.filter.clone())),
                column!("value", each!(|(.., score)| score.value)),
                column!("extracted", each!(|(.., score)| score.extracted.clone())),
                column!("reason", each!(|(.., score)| score.reason.clone())),
                column!("pending", each!(|(.., score)| score.pending)),
            ],
        )
    }
}

/// Returns the lists of choices, empty where an answer is no choice.
fn choice_columns(items: &[Item]) -> [Column; 4] {
    let n_choices = items.iter().map(|item| item.choices().len()).sum();
    let mut loglikelihoods = ListPrimitiveChunkedBuilder::<Float64Type>::new(
        "loglikelihoods".into(),
        items.len(),
        n_choices,
        DataType::Float64,
    );
    let mut is_greedy = ListBooleanChunkedBuilder::new("is_greedy".into(), items.len(), n_choices);
    let numbers = |name: &'static str| {
        ListPrimitiveChunkedBuilder::<UInt32Type>::new(
            name.into(),
            items.len(),
            n_choices,
            DataType::UInt32,
        )
    };
    let mut choice_tokens = numbers("choice_tokens");
    let mut choice_chars = numbers("choice_chars");
    for item in items {
        let choices = || item.choices().iter();
        loglikelihoods.append_values_iter(choices().map(|choice| choice.loglikelihood));
        is_greedy.append_iter(choices().map(|choice| Some(choice.is_greedy)));
        choice_tokens.append_values_iter(choices().map(|choice| choice.n_tokens));
        choice_chars.append_values_iter(choices().map(|choice| choice.n_chars));
    }
    [
        Column::from(loglikelihoods.finish().into_series()),
        Column::from(is_greedy.finish().into_series()),
        Column::from(choice_tokens.finish().into_series()),
        Column::from(choice_chars.finish().into_series()),
    ]
}

/// Returns the lists of counters, empty where energy was not measured.
fn energy_columns(items: &[Item]) -> [Column; 2] {
    let n_values = items.iter().map(|item| item.energy.len()).sum();
    let mut sources = ListStringChunkedBuilder::new("energy_sources".into(), items.len(), n_values);
    let mut joules = ListPrimitiveChunkedBuilder::<Float64Type>::new(
        "energy_j".into(),
        items.len(),
        n_values,
        DataType::Float64,
    );
    for item in items {
        sources.append_values_iter(item.energy.iter().map(|energy| energy.source.as_str()));
        joules.append_values_iter(item.energy.iter().map(|energy| energy.joules));
    }
    [
        Column::from(sources.finish().into_series()),
        Column::from(joules.finish().into_series()),
    ]
}

impl Tokens {
    fn frame(self) -> PolarsResult<DataFrame> {
        let Self {
            job_index,
            attempt,
            sequence,
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            repetition,
            token_index,
            token_id,
            elapsed_ns,
        } = self;
        let n_rows = job_index.len();
        DataFrame::new(
            n_rows,
            vec![
                column!("job_index", job_index),
                column!("attempt", attempt),
                column!("sequence", sequence),
                column!("n_prompt", n_prompt),
                column!("n_gen", n_gen),
                column!("n_depth", n_depth),
                column!("n_batch", n_batch),
                column!("repetition", repetition),
                column!("token_index", token_index),
                column!("token_id", token_id),
                column!("elapsed_ns", elapsed_ns),
            ],
        )
    }
}

impl Cells {
    fn frame(&self) -> PolarsResult<DataFrame> {
        let cells = &self.cells[..];
        macro_rules! each {
            ($value:expr) => {
                cells.iter().map($value).collect::<Vec<_>>()
            };
        }
        macro_rules! parted {
            ($value:expr) => {
                each!(|cell| cell.parted.map($value))
            };
        }
        let mut columns = Vec::from(place_columns(&self.places));
        columns.extend([
            column!("kernel", each!(|cell| cell.kernel.clone())),
            column!("threads", each!(|cell| cell.threads.get())),
            column!("n_batch", each!(|cell| cell.n_batch.get())),
            column!("reused_prefix", each!(|cell| cell.reused_prefix)),
            column!("equal", each!(|cell| cell.equal)),
            column!("positions", each!(|cell| cell.positions)),
            column!("fingerprint", each!(|cell| cell.fingerprint.clone())),
            column!("reference", each!(|cell| cell.reference.clone())),
            column!("prompt", parted!(|parted| parted.prompt)),
            column!("position", parted!(|parted| parted.position)),
            column!("max_abs", parted!(|parted| f64::from(parted.max_abs))),
            column!("kl", parted!(|parted| parted.kl)),
            column!("margin", parted!(|parted| f64::from(parted.margin))),
            column!("expected", parted!(|parted| parted.expected)),
            column!("found", parted!(|parted| parted.found)),
        ]);
        DataFrame::new(cells.len(), columns)
    }
}
