//! Rows of `tritmark bench` as Markdown, CSV, JSON or SQL; each is out before the next is timed.

use serde_json::{Value, json};

use tritmark_proto::roofline::Roofline;

use super::{Row, reference};
use crate::{args::BenchFormat, exit::Outcome, out};

const MARKDOWN_HEAD: &str = "| model | size | params | format | kernel | head | kv | numerics | threads | test | t/s | of bound |\n\
     | --- | ---: | ---: | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |";

const CSV_HEAD: &str = "model_filename,model_size,model_n_params,weight_format,kernel,n_threads,\
     head,type_k,type_v,n_batch,n_prompt,n_gen,n_depth,avg_ns,stddev_ns,avg_ts,stddev_ts,\
     bound,bound_ts,bound_share,numerics";

/// Prints rows in one format.
pub(super) struct Printer {
    format: BenchFormat,
    rows: Vec<Value>,
    begun: bool,
}

impl Printer {
    pub(super) fn new(format: BenchFormat) -> Self {
        Self {
            format,
            rows: Vec::new(),
            begun: false,
        }
    }

    /// Prints a row, or keeps it where the format has only a whole.
    pub(super) fn row(&mut self, row: &Row) -> Outcome<()> {
        if !std::mem::replace(&mut self.begun, true) {
            match self.format {
                BenchFormat::Md => out::line(MARKDOWN_HEAD)?,
                BenchFormat::Csv => out::line(CSV_HEAD)?,
                BenchFormat::Json | BenchFormat::Jsonl => {}
                BenchFormat::Sql => out::line(&create_table(&json(row)))?,
            }
        }
        match self.format {
            BenchFormat::Md => out::line(&markdown(row)),
            BenchFormat::Csv => out::line(&csv(row)),
            BenchFormat::Jsonl => out::json_line(&json(row)),
            BenchFormat::Sql => out::line(&insert(&json(row))),
            BenchFormat::Json => {
                self.rows.push(json(row));
                Ok(())
            }
        }
    }

    /// Prints what belongs below the rows.
    pub(super) fn finish(self, shape: Option<reference::Shape>) -> Outcome<()> {
        match (self.format, shape) {
            (BenchFormat::Json, _) => out::json(&Value::Array(self.rows)),
            (BenchFormat::Md, Some(reference::Shape::TwoB4T)) => out::line(&references()),
            _ => Ok(()),
        }
    }
}

fn markdown(row: &Row) -> String {
    let (mean, sd) = mean_sd(&row.tok_per_s());
    format!(
        "| {} | {} | {:.2} M | {}, {:.2} bits | {} | {} | {} | {} | {} | {} | {mean:.2} ± {sd:.2} | {} |",
        row.model,
        out::bytes(row.weight_bytes),
        row.n_params as f64 / 1e6,
        row.format,
        row.bits_per_weight,
        row.kernel,
        row.head,
        row.kv,
        row.numerics,
        row.threads,
        row.test_name(),
        row.share().map_or_else(
            || "–".to_owned(),
            |(share, what)| format!("{:.0} % of {what}", 100.0 * share)
        ),
    )
}

fn references() -> String {
    let head = format!(
        "\nDecode (tg128) of other engines with this shape, {}:\n\n\
         | engine | 1 thread, t/s | 2 threads, t/s |\n| --- | ---: | ---: |",
        reference::MACHINE
    );
    let rows = reference::DECODE.map(|row| {
        format!(
            "| {} | {:.1} | {:.1} |",
            row.engine, row.one_thread, row.two_threads
        )
    });
    format!("{head}\n{}", rows.join("\n"))
}

fn csv(row: &Row) -> String {
    let kv = row.kv;
    let bound = match (row.bound, row.share()) {
        (Some(bound), Some((share, what))) => {
            format!("{what},{:.6},{share:.6}", bound.tok_per_s)
        }
        _ => ",,".to_owned(),
    };
    let (time, time_sd) = mean_sd(&ns(row));
    let (speed, speed_sd) = mean_sd(&row.tok_per_s());
    format!(
        "\"{}\",{},{},{},{},{},{},{kv},{kv},{},{},{},{},{time:.0},{time_sd:.0},{speed:.6},\
         {speed_sd:.6},{bound},{}",
        row.model_file.replace('"', "\"\""),
        row.weight_bytes,
        row.n_params,
        row.format,
        row.kernel,
        row.threads,
        row.head,
        row.test.n_batch,
        row.test.n_prompt,
        row.test.n_gen,
        row.test.n_depth,
        row.numerics,
    )
}

fn json(row: &Row) -> Value {
    let (time, time_sd) = mean_sd(&ns(row));
    let (speed, speed_sd) = mean_sd(&row.tok_per_s());
    json!({
        "model_filename": row.model_file,
        "model_size": row.weight_bytes,
        "model_n_params": row.n_params,
        "weight_format": row.format,
        "bits_per_weight": row.bits_per_weight,
        "kernel": row.kernel,
        "n_threads": row.threads,
        "head": row.head,
        "type_k": row.kv,
        "type_v": row.kv,
        "numerics": row.numerics,
        "n_batch": row.test.n_batch,
        "n_prompt": row.test.n_prompt,
        "n_gen": row.test.n_gen,
        "n_depth": row.test.n_depth,
        "avg_ns": whole(time),
        "stddev_ns": whole(time_sd),
        "avg_ts": speed,
        "stddev_ts": speed_sd,
        "samples_ns": row.samples.iter().map(|s| s.as_nanos() as u64).collect::<Vec<_>>(),
        "samples_ts": row.tok_per_s(),
        "bound": row.bound.map(Roofline::name),
        "bound_ts": row.bound.map(|bound| bound.tok_per_s),
        "bound_share": row.share().map(|(share, _)| share),
    })
}

/// Where rows go as SQL.
const TABLE: &str = "tritmark_bench";

/// Returns the columns of a row: what is one value, as llama-bench has it; the samples are not.
fn columns(row: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = row.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_array())
}

/// Returns the statement that makes the table, unless it is there.
fn create_table(row: &Value) -> String {
    let columns: Vec<_> = columns(row)
        .map(|(name, value)| {
            let kind = match value {
                Value::Number(number) if number.is_f64() => "REAL",
                Value::Number(_) => "INTEGER",
                // A row without bounds does not tell, and what follows may have them.
                Value::Null if name != "bound" => "REAL",
                _ => "TEXT",
            };
            format!("  {name} {kind}")
        })
        .collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (\n{}\n);",
        columns.join(",\n")
    )
}

/// Returns the statement that adds a row.
fn insert(row: &Value) -> String {
    let (names, values): (Vec<_>, Vec<_>) = columns(row)
        .map(|(name, value)| {
            let value = match value {
                Value::Null => "NULL".to_owned(),
                Value::String(text) => format!("'{}'", text.replace('\'', "''")),
                other => other.to_string(),
            };
            (name.as_str(), value)
        })
        .unzip();
    format!(
        "INSERT INTO {TABLE} ({}) VALUES ({});",
        names.join(", "),
        values.join(", ")
    )
}

fn ns(row: &Row) -> Vec<f64> {
    row.samples.iter().map(|s| s.as_nanos() as f64).collect()
}

/// Returns whole nanoseconds.
#[expect(clippy::cast_sign_loss, reason = "times are not negative")]
fn whole(ns: f64) -> u64 {
    ns.round() as u64
}

/// Returns the mean and the sample standard deviation; 0 for a single value, as llama-bench does.
fn mean_sd(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert_eq!(mean_sd(&[2.0, 4.0, 9.0]), (5.0, 13.0_f64.sqrt()));
        assert_eq!(mean_sd(&[3.0]), (3.0, 0.0));
    }

    #[test]
    fn a_row_as_sql_holds_its_values_and_quotes_its_names() {
        let row = json!({
            "model_filename": "it's.gguf", "n_threads": 2, "avg_ts": 1.5, "samples_ns": [1, 2],
            "bound": null, "bound_ts": null,
        });
        let created = create_table(&row);
        for column in [
            "model_filename TEXT",
            "n_threads INTEGER",
            "avg_ts REAL",
            "bound TEXT",
            "bound_ts REAL",
        ] {
            assert!(created.contains(column), "{created}");
        }
        assert!(!created.contains("samples"), "{created}");
        let inserted = insert(&row);
        assert!(inserted.contains("'it''s.gguf'"), "{inserted}");
        let (names, values) = inserted.split_once(" VALUES ").unwrap();
        assert_eq!(names.matches(',').count(), values.matches(',').count());
    }

    #[test]
    fn the_official_files_figures_are_among_the_references() {
        assert!(
            references()
                .contains("| bitnet.cpp I2_S, F16 head (the official file) | 14.0 | 21.8 |")
        );
    }
}
