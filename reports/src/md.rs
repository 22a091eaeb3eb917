//! `summary.md`: the comparison as GitHub tables, for a pull request or a job summary.

use std::fmt::Write as _;

use crate::view::{AgreementTable, Card, Cell, GroupTable, SideBySide, SuiteTable, View};

/// Returns the summary as Markdown.
pub(crate) fn render(view: &View) -> String {
    let mut text = String::new();
    write(&mut text, view).expect("a string takes everything");
    text
}

fn write(text: &mut String, view: &View) -> std::fmt::Result {
    writeln!(text, "# {}\n", escape(&view.title))?;
    write!(text, "{}", escape(&view.submitted))?;
    if let Some(duration) = &view.duration {
        write!(text, " · took {duration}")?;
    }
    writeln!(
        text,
        " · Tritmark {} · run `{}`\n",
        escape(&view.version),
        view.run_id
    )?;
    let counts: Vec<String> = view
        .counts
        .iter()
        .map(|count| escape(&count.text))
        .collect();
    writeln!(text, "{}", counts.join(" · "))?;
    if let Some(nothing) = &view.nothing {
        writeln!(text, "\n**{}**", escape(nothing))?;
    }
    if !view.cards.is_empty() {
        writeln!(text, "\n## At a glance\n")?;
        for card in &view.cards {
            self::card(text, card)?;
        }
    }
    for table in &view.side_by_side {
        side_by_side(text, table)?;
    }
    for table in &view.suites {
        suite(text, table)?;
    }
    for table in &view.groups {
        groups(text, table)?;
    }
    for table in &view.agreement {
        agreement(text, table)?;
    }
    tokens(text, view)?;
    problems(text, view)?;
    writeln!(
        text,
        "\nMedians with the range from the 5 % to the 95 % quantile and n values; ratios are \
         candidate / baseline on the same machine with a 95 % bootstrap interval; ± is one standard \
         error. Repetitions inside one process are not independent samples."
    )
}

fn card(text: &mut String, card: &Card) -> std::fmt::Result {
    write!(text, "**{}**", escape(&card.model))?;
    if let Some(baseline) = &card.baseline {
        write!(text, " against **{}**", escape(baseline))?;
    }
    writeln!(text, " on {}\n", escape(&card.machine))?;
    for figure in &card.figures {
        let mut value = figure.value.clone();
        if !figure.spread.is_empty() {
            let spread = &figure.spread;
            value = if spread.starts_with('±') {
                format!("{value} {spread}")
            } else {
                format!("{value} ({spread})")
            };
        }
        writeln!(
            text,
            "- {}: **{}** – {}",
            escape(&figure.label),
            escape(&value),
            escape(&figure.lines.join("; "))
        )?;
    }
    for note in &card.notes {
        writeln!(text, "- Note: {}", escape(note))?;
    }
    writeln!(text)
}

fn side_by_side(text: &mut String, table: &SideBySide) -> std::fmt::Result {
    writeln!(
        text,
        "## {} and {}, on {}\n",
        escape(&table.candidate),
        escape(&table.baseline),
        escape(&table.machine)
    )?;
    let format = |format: &str| {
        if format.is_empty() {
            String::new()
        } else {
            format!(" ({})", escape(format))
        }
    };
    row(
        text,
        &[
            "metric".to_owned(),
            format!(
                "{}{}",
                table.candidate_role,
                format(&table.candidate_format)
            ),
            format!("baseline{}", format(&table.baseline_format)),
            "ratio or difference".to_owned(),
        ],
    )?;
    writeln!(text, "| --- | ---: | ---: | ---: |")?;
    for group in &table.groups {
        row(
            text,
            &[
                format!("**{}**", escape(&group.title)),
                String::new(),
                String::new(),
                String::new(),
            ],
        )?;
        for line in &group.lines {
            let cells = [
                escape(&line.label),
                cell(&line.candidate),
                cell(&line.baseline),
                cell(&line.against),
            ];
            row(text, &cells)?;
        }
    }
    writeln!(text)
}

fn suite(text: &mut String, table: &SuiteTable) -> std::fmt::Result {
    write!(
        text,
        "## {} on {}",
        escape(&table.title),
        escape(&table.machine)
    )?;
    if !table.workload.is_empty() {
        write!(text, ", {}", escape(&table.workload))?;
    }
    writeln!(text, "\n")?;
    let mut head = vec![
        "model".to_owned(),
        "kernel".to_owned(),
        "threads".to_owned(),
    ];
    head.extend(table.columns.iter().map(|column| {
        let mut label = escape(&column.label);
        if !column.unit.is_empty() {
            label = format!("{label}, {}", escape(&column.unit));
        }
        if !column.grade.is_empty() {
            label = format!("{label} ({})", column.grade);
        }
        label
    }));
    row(text, &head)?;
    writeln!(
        text,
        "| --- | --- | ---: |{}",
        " ---: |".repeat(table.columns.len())
    )?;
    for line in &table.lines {
        let mut cells = vec![
            escape(&line.model),
            escape(&line.kernel),
            line.threads.clone(),
        ];
        cells.extend(line.cells.iter().map(cell));
        row(text, &cells)?;
    }
    writeln!(text)
}

fn groups(text: &mut String, table: &GroupTable) -> std::fmt::Result {
    writeln!(
        text,
        "## {} on {}, group by group\n",
        escape(&table.title),
        escape(&table.machine)
    )?;
    let mut head = vec!["group".to_owned()];
    head.extend(table.models.iter().map(|model| escape(model)));
    row(text, &head)?;
    writeln!(text, "| --- |{}", " ---: |".repeat(table.models.len()))?;
    for line in &table.lines {
        let mut cells = vec![escape(&line.group)];
        cells.extend(line.cells.iter().map(cell));
        row(text, &cells)?;
    }
    writeln!(text)
}

fn agreement(text: &mut String, table: &AgreementTable) -> std::fmt::Result {
    writeln!(text, "## Agreement of {}\n", escape(&table.model))?;
    writeln!(text, "{}\n", escape(&table.setting))?;
    for sentence in &table.sentences {
        writeln!(text, "**{}**\n", escape(sentence))?;
    }
    let mut head = vec![
        "machine".to_owned(),
        "kernel".to_owned(),
        "threads".to_owned(),
    ];
    head.extend(table.columns.iter().map(|column| escape(column)));
    row(text, &head)?;
    writeln!(
        text,
        "| --- | --- | ---: |{}",
        " ---: |".repeat(table.columns.len())
    )?;
    for machine in &table.machines {
        for line in &machine.lines {
            let mut cells = vec![
                escape(&machine.machine),
                escape(&line.kernel),
                line.threads.clone(),
            ];
            cells.extend(line.cells.iter().map(cell));
            row(text, &cells)?;
        }
    }
    writeln!(text)?;
    for machine in &table.machines {
        writeln!(
            text,
            "- {}: {}, reference `{}`",
            escape(&machine.machine),
            escape(&machine.verdict),
            machine.fingerprint
        )?;
        for difference in &machine.differences {
            writeln!(text, "  - {}", escape(difference))?;
        }
    }
    writeln!(text)
}

fn tokens(text: &mut String, view: &View) -> std::fmt::Result {
    for table in &view.tokens {
        write!(text, "## Time between tokens on {}", escape(&table.machine))?;
        if !table.unit.is_empty() {
            write!(text, ", in {}", table.unit)?;
        }
        writeln!(text, "\n")?;
        let head = [
            "model", "threads", "shape", "n", "5 %", "median", "95 %", "99 %",
        ];
        row(text, &head.map(str::to_owned))?;
        writeln!(
            text,
            "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
        )?;
        for line in &table.lines {
            let mut cells = vec![
                escape(&line.model),
                line.threads.clone(),
                escape(&line.workload),
                line.n.clone(),
            ];
            cells.extend(line.cells.iter().map(cell));
            row(text, &cells)?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn problems(text: &mut String, view: &View) -> std::fmt::Result {
    let problems = &view.problems;
    if problems.is_empty() {
        return Ok(());
    }
    writeln!(text, "## What is missing, and why\n")?;
    for job in &problems.jobs {
        writeln!(
            text,
            "- Job {} {} ({}): {}",
            job.index,
            job.state,
            escape(&job.what),
            escape(&job.message)
        )?;
    }
    for entry in &problems.unmeasurable {
        writeln!(
            text,
            "- Not measurable: {} ({}): {}",
            escape(&entry.metrics),
            escape(&entry.models),
            escape(&entry.reason)
        )?;
    }
    for entry in &problems.incomplete {
        writeln!(
            text,
            "- Not of all items: {} ({}): {}",
            escape(&entry.metrics),
            escape(&entry.models),
            escape(&entry.reason)
        )?;
    }
    Ok(())
}

fn cell(cell: &Cell) -> String {
    let text = escape(&cell.text);
    if cell.sub.is_empty() {
        return text;
    }
    format!("{text} <sub>{}</sub>", escape(&cell.sub))
}

fn row(text: &mut String, cells: &[String]) -> std::fmt::Result {
    writeln!(text, "| {} |", cells.join(" | "))
}

/// Escapes what Markdown or the HTML inside it would act on.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '|' | '*' | '[' | ']' | '`' | '_' | '#' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            character if character.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
