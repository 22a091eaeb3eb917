//! Data goes to stdout, and only from here.

use std::io::{self, Write as _};

use comfy_table::{Table, presets};

use crate::exit::Outcome;

/// Prints `text` and a line feed.
pub(crate) fn line(text: &str) -> Outcome<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints `text` at once, as it is.
pub(crate) fn piece(text: &str) -> Outcome<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints `value` as JSON for people and scripts.
pub(crate) fn json(value: &serde_json::Value) -> Outcome<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints `value` as one line of JSON.
pub(crate) fn json_line(value: &serde_json::Value) -> Outcome<()> {
    line(&value.to_string())
}

/// Prints a table.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) -> Outcome<()> {
    line(&render(head, rows))
}

/// Returns a table as text.
pub(crate) fn render(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns a time in seconds with as many places as it deserves.
pub(crate) fn seconds(ns: i64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}

/// Returns a moment in RFC 3339, to the second.
pub(crate) fn moment(unix_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).map_or_else(
        |_| "?".to_owned(),
        |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// Returns a number of bytes in binary units.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_binary_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 30), "1.0 GiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn a_moment_is_in_utc_to_the_second() {
        assert_eq!(moment(1_700_000_000_123_456_789), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_table_has_no_blanks_at_its_line_ends() {
        let text = render(&["a", "b"], vec![vec!["1".to_owned(), String::new()]]);
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text:?}");
        assert!(text.contains('1'));
    }
}
