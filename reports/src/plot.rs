//! Charts as SVG, drawn by plotters behind a small trait.
//!
//! A chart is 960 units wide and scales with its page: 28 units are 10 pixels on a phone and 16 on a
//! desk. Text and lines take the colour of the page (`currentColor`), so that one drawing serves
//! light and dark. The candidate is blue, its baseline grey and dashed or hollow: hue, lightness and
//! shape each tell them apart. Names from outside are cut to their room, never run over it.

mod accuracy;
mod bars;
mod canvas;
mod ecdf;
mod ticks;

use std::fmt::Write as _;

pub(crate) use accuracy::{AccuracyDots, Dot, Lane};
pub(crate) use bars::{Bar, BarGroup, SpeedBars};
use canvas::Canvas;
pub(crate) use ecdf::{Ecdf, Line};
use plotters::style::RGBColor;

use crate::{error::ReportError, summary::Role};

/// Width of every chart in its own units.
const WIDTH: u32 = 960;

/// Something that can be drawn.
pub(crate) trait Plot {
    /// What it shows, in a few words.
    fn title(&self) -> String;
    /// What it shows, for those who cannot see it.
    fn description(&self) -> String;
    /// Height in units.
    fn height(&self) -> u32;
    /// Draws everything but the title.
    fn draw(&self, canvas: &Canvas<'_>) -> Result<(), String>;
}

/// A finished drawing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Svg {
    /// File name without folder.
    pub(crate) file_name: String,
    title: String,
    description: String,
    height: u32,
    /// Everything inside the outer element.
    body: String,
}

impl Svg {
    /// Draws a chart.
    pub(crate) fn draw(plot: &dyn Plot, file_name: String) -> Result<Self, ReportError> {
        let height = plot.height();
        let text = canvas::draw(WIDTH, height, &plot.title(), |canvas| plot.draw(canvas)).map_err(
            |what| ReportError::Draw {
                name: file_name.clone(),
                what,
            },
        )?;
        Ok(Self {
            title: canvas::printable(&plot.title()),
            description: canvas::printable(&plot.description()),
            height,
            body: canvas::inner(&text, &file_name)?,
            file_name,
        })
    }

    /// Returns the drawing for a page; `prefix` keeps its ids apart from those of other drawings.
    pub(crate) fn inline(&self, prefix: &str) -> String {
        self.wrap(prefix, "", "")
    }

    /// Returns the drawing as a file of its own.
    pub(crate) fn file(&self) -> String {
        const STYLE: &str = "<style>svg{color:#1f2328;background:#fff}\
            @media (prefers-color-scheme:dark){svg{color:#e6e8eb;background:#14171b}}</style>\n";
        let text = self.wrap("chart", " style=\"max-width:960px\"", STYLE);
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}")
    }

    fn wrap(&self, prefix: &str, attributes: &str, style: &str) -> String {
        let mut text = String::new();
        let Self {
            title,
            description,
            height,
            body,
            file_name: _,
        } = self;
        write!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100%\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\" aria-labelledby=\"{prefix}-title {prefix}-desc\"{attributes}>\n{style}\
             <title id=\"{prefix}-title\">{}</title>\n<desc id=\"{prefix}-desc\">{}</desc>\n{body}</svg>\n",
            escape(title),
            escape(description),
        )
        .expect("a string takes everything");
        text
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Returns a number of things drawn one below the other.
fn count(things: usize) -> i32 {
    i32::try_from(things).unwrap_or(i32::MAX / 1000)
}

/// Returns the colour of a role. Both keep a contrast of 3 : 1 and more on white and near-black.
fn colour(role: Role) -> RGBColor {
    match role {
        Role::Ternary | Role::Candidate | Role::Single => RGBColor(0x2B, 0x7C, 0xD0),
        Role::Baseline => RGBColor(0x85, 0x8B, 0x94),
    }
}
