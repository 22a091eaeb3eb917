//! `report.html`: one page that needs nothing else, from disk, without a network.
//!
//! Every text goes through the template's auto-escaping: names of models, tasks and machines come
//! from outside. Only the style sheet and the charts, which escape their own texts, go in as they
//! are.

use minijinja::{Environment, Value, context, value::Serde};
use serde::Serialize;

use crate::{
    charts::{Chart, Section},
    error::ReportError,
    view::View,
};

const TEMPLATE: &str = include_str!("../templates/report.html");
pub(crate) const STYLE: &str = include_str!("../templates/report.css");

/// A chart as the template sees it.
#[derive(Serialize)]
struct Inline {
    section: Section,
    svg: Value,
}

/// An entry of the page's list of sections.
#[derive(Serialize)]
struct Entry {
    id: &'static str,
    title: &'static str,
}

/// Returns the page.
pub(crate) fn render(view: &View, charts: &[Chart]) -> Result<String, ReportError> {
    let inline: Vec<Inline> = charts
        .iter()
        .enumerate()
        .map(|(position, chart)| Inline {
            section: chart.section,
            svg: Value::from_safe_string(chart.svg.inline(&format!("chart-{position}"))),
        })
        .collect();
    let mut environment = Environment::new();
    // The name's ending turns auto-escaping for HTML on.
    environment.add_template("report.html", TEMPLATE)?;
    let page = environment.get_template("report.html")?.render(context! {
        view => Value::from(Serde(view)),
        charts => Value::from(Serde(inline)),
        style => Value::from_safe_string(STYLE.to_owned()),
        sections => Value::from(Serde(sections(view))),
        has_pairs => view.cards.iter().any(|card| card.baseline.is_some()),
    })?;
    Ok(page)
}

fn sections(view: &View) -> Vec<Entry> {
    let has_problems = !view.problems.is_empty();
    [
        (true, "glance", "At a glance"),
        (!view.machines.is_empty(), "machines", "Machines"),
        (
            !view.side_by_side.is_empty(),
            "side-by-side",
            "Side by side",
        ),
        (!view.suites.is_empty(), "suites", "Suite by suite"),
        (!view.groups.is_empty(), "groups", "Group by group"),
        (!view.agreement.is_empty(), "agreement", "Agreement"),
        (!view.tokens.is_empty(), "tokens", "Time between tokens"),
        (has_problems, "problems", "What is missing"),
        (true, "details", "What was run"),
        (true, "reading", "How to read this"),
    ]
    .into_iter()
    .filter(|(is_there, ..)| *is_there)
    .map(|(_, id, title)| Entry { id, title })
    .collect()
}
