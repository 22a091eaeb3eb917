//! The rows of any Parquet file as JSON: data sets, whose columns nobody here names.

use std::{fmt::Write as _, fs, io::Cursor, path::Path};

use polars::prelude::*;

use super::table::{check_sizes, guarded, unreadable};
use crate::error::ReportError;

/// Calls `take` with each row of a Parquet file as a JSON object on one line, its fields in the
/// order of the columns, and returns how many there were.
///
/// Texts, truth values, numbers, lists and groups have JSON's forms, what is missing is null, and
/// dates and times are texts as in ISO 8601. A float that is no number is null.
///
/// # Errors
/// [`ReportError::DamagedTable`] also for a column of bytes or of another kind that JSON has no
/// form for, with the column's name and the row.
pub fn json_rows<E: From<ReportError>>(
    path: &Path,
    mut take: impl FnMut(&str) -> Result<(), E>,
) -> Result<u64, E> {
    let bytes = fs::read(path).map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })?;
    let frame = guarded(path, || {
        let mut reader = ParquetReader::new(Cursor::new(bytes.as_slice()));
        check_sizes(path, &mut reader)?;
        reader.finish().map_err(|error| unreadable(path, error))
    })?;
    let names: Vec<String> = frame
        .get_column_names()
        .iter()
        .map(|name| quoted(name))
        .collect();
    let mut line = String::new();
    for row in 0..frame.height() {
        line.clear();
        guarded(path, || {
            line.push('{');
            for (at, (column, name)) in frame.columns().iter().zip(&names).enumerate() {
                if at > 0 {
                    line.push(',');
                }
                line.push_str(name);
                line.push(':');
                let value = column.get(row).map_err(|error| unreadable(path, error))?;
                write_value(&mut line, &value).map_err(|kind| ReportError::DamagedTable {
                    path: path.to_owned(),
                    what: format!("column {name}, row {row}: {kind} has no form in JSON"),
                })?;
            }
            line.push('}');
            Ok(())
        })?;
        take(&line)?;
    }
    Ok(frame.height() as u64)
}

/// Returns a text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes a value as JSON; the error is the kind that cannot be.
fn write_value(line: &mut String, value: &AnyValue<'_>) -> Result<(), String> {
    let written = match value {
        AnyValue::Null => write!(line, "null"),
        AnyValue::Boolean(value) => write!(line, "{value}"),
        AnyValue::String(text) => write!(line, "{}", quoted(text)),
        AnyValue::StringOwned(text) => write!(line, "{}", quoted(text)),
        AnyValue::UInt8(value) => write!(line, "{value}"),
        AnyValue::UInt16(value) => write!(line, "{value}"),
        AnyValue::UInt32(value) => write!(line, "{value}"),
        AnyValue::UInt64(value) => write!(line, "{value}"),
        AnyValue::Int8(value) => write!(line, "{value}"),
        AnyValue::Int16(value) => write!(line, "{value}"),
        AnyValue::Int32(value) => write!(line, "{value}"),
        AnyValue::Int64(value) => write!(line, "{value}"),
        // The shortest text that is this number again, at its own width.
        AnyValue::Float32(value) => match serde_json::Number::from_f64(f64::from(*value)) {
            Some(_) => write!(line, "{value:?}"),
            None => write!(line, "null"),
        },
        AnyValue::Float64(value) => write!(line, "{}", serde_json::Value::from(*value)),
        AnyValue::Date(_) | AnyValue::Datetime(..) | AnyValue::DatetimeOwned(..) => {
            write!(line, "{}", quoted(&value.to_string()))
        }
        AnyValue::List(items) => {
            line.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    line.push(',');
                }
                write_value(line, &item)?;
            }
            write!(line, "]")
        }
        AnyValue::Struct(_, _, fields) => {
            let mut values = Vec::with_capacity(fields.len());
            value._materialize_struct_av(&mut values);
            write_group(line, fields, &values)?;
            Ok(())
        }
        AnyValue::StructOwned(group) => {
            write_group(line, &group.1, &group.0)?;
            Ok(())
        }
        other => return Err(format!("{}", other.dtype())),
    };
    written.map_err(|error| error.to_string())
}

fn write_group(line: &mut String, fields: &[Field], values: &[AnyValue<'_>]) -> Result<(), String> {
    line.push('{');
    for (at, (field, value)) in fields.iter().zip(values).enumerate() {
        if at > 0 {
            line.push(',');
        }
        line.push_str(&quoted(field.name()));
        line.push(':');
        write_value(line, value)?;
    }
    line.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(name: &str, lists: &[&[&str]]) -> Column {
        let lists: Vec<Series> = lists
            .iter()
            .map(|texts| Series::new("".into(), *texts))
            .collect();
        Column::new(name.into(), lists)
    }

    fn write(path: &Path, columns: Vec<Column>) {
        let height = columns[0].len();
        let mut frame = DataFrame::new(height, columns).unwrap();
        let file = fs::File::create(path).unwrap();
        ParquetWriter::new(file).finish(&mut frame).unwrap();
    }

    fn read(path: &Path) -> Result<Vec<String>, ReportError> {
        let mut lines = Vec::new();
        json_rows(path, |line| {
            lines.push(line.to_owned());
            Ok::<_, ReportError>(())
        })?;
        Ok(lines)
    }

    #[test]
    fn rows_as_the_hub_has_them_become_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let choices = StructChunked::from_columns(
            "choices".into(),
            2,
            &[
                list("text", &[&["a", "b"], &["\"c\""]]),
                Column::new("n".into(), [1_i8, -2]),
            ],
        )
        .unwrap();
        write(
            &path,
            vec![
                Column::new("question".into(), ["zwölf?", "one\ntwo"]),
                choices.into_column(),
                Column::new("label".into(), [Some(7_i64), None]),
                Column::new("ratio".into(), [0.1_f32, f32::NAN]),
                Column::new("exact".into(), [0.1_f64, 1e300]),
                Column::new("right".into(), [true, false]),
            ],
        );
        let expected = [
            r#"{"question":"zwölf?","choices":{"text":["a","b"],"n":1},"label":7,"ratio":0.1,"exact":0.1,"right":true}"#,
            r#"{"question":"one\ntwo","choices":{"text":["\"c\""],"n":-2},"label":null,"ratio":null,"exact":1e+300,"right":false}"#,
        ];
        let lines = read(&path).unwrap();
        assert_eq!(lines, expected);
        for line in lines {
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
    }

    #[test]
    fn bytes_have_no_form_in_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let column = Series::new("image".into(), [b"\xff\xd8".as_slice()]).into_column();
        write(&path, vec![column]);
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("column \"image\", row 0: binary"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_file_is_an_error_or_rows(at in any::<prop::sample::Index>(), byte: u8) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.parquet");
            let texts = list("text", &[&["a", "b"], &["c"]]);
            write(&path, vec![texts, Column::new("n".into(), [1_i32, 2])]);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            fs::write(&path, &bytes).unwrap();
            if let Ok(lines) = read(&path) {
                for line in lines {
                    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                    prop_assert!(value.is_object());
                }
            }
        }
    }
}
