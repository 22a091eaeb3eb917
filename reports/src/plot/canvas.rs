//! Paper for charts: plotters' SVG backend, with text that knows its room.

use plotters::{
    coord::Shift,
    element::{DashedPathElement, Drawable, PointCollection},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::error::ReportError;

/// Height of ordinary text.
pub(super) const TEXT: f64 = 28.0;
/// Room above a chart that its title takes.
pub(super) const TITLE_HEIGHT: i32 = 56;

/// Stands for the page's text colour until the drawing is done.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_HEX: &str = "\"#010203\"";
const FONT: &str = "system-ui, sans-serif";
/// Plotters divides sizes by this before it writes them.
const PLOTTERS_SIZE: f64 = 1.24;

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

/// An area to draw on.
pub(crate) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    pub(super) width: i32,
}

/// Draws a chart with its title and returns the SVG text.
pub(super) fn draw(
    width: u32,
    height: u32,
    title: &str,
    body: impl FnOnce(&Canvas<'_>) -> Result<(), String>,
) -> Result<String, String> {
    let mut text = String::new();
    {
        let canvas = Canvas {
            area: SVGBackend::with_string(&mut text, (width, height)).into_drawing_area(),
            width: width.cast_signed(),
        };
        let size = TEXT * 1.1;
        let room = f64::from(canvas.width) - 16.0;
        canvas.styled(
            8,
            26,
            &fit(title, room, size),
            size,
            Anchor::Left,
            1.0,
            true,
        )?;
        body(&canvas)?;
        canvas.area.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// Returns what stands inside the outer element, ink turned into the page's colour.
pub(super) fn inner(text: &str, name: &str) -> Result<String, ReportError> {
    let start = text.find('>').map(|end| end + 1);
    let end = text.rfind("</svg>");
    let body = start
        .zip(end)
        .and_then(|(start, end)| text.get(start..end))
        .ok_or_else(|| ReportError::Draw {
            name: name.to_owned(),
            what: "the backend wrote no svg element".to_owned(),
        })?;
    Ok(body.trim_start().replace(INK_HEX, "\"currentColor\""))
}

impl<'a> Canvas<'a> {
    /// Writes text in ink, its middle at `y`.
    pub(super) fn text(
        &self,
        x: i32,
        y: i32,
        text: &str,
        anchor: Anchor,
        opacity: f64,
    ) -> Result<(), String> {
        self.styled(x, y, text, TEXT, anchor, opacity, false)
    }

    #[expect(clippy::too_many_arguments, reason = "a private helper of two callers")]
    fn styled(
        &self,
        x: i32,
        y: i32,
        text: &str,
        size: f64,
        anchor: Anchor,
        opacity: f64,
        bold: bool,
    ) -> Result<(), String> {
        let h_pos = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let font = FontDesc::new(
            FontFamily::Name(FONT),
            size * PLOTTERS_SIZE,
            if bold {
                FontStyle::Bold
            } else {
                FontStyle::Normal
            },
        );
        let ink = INK.mix(opacity);
        let style = TextStyle::from(font)
            .color(&ink)
            .pos(Pos::new(h_pos, VPos::Center));
        self.put(&Text::new(printable(text), (x, y), style))
    }

    /// Draws a thin line in ink.
    pub(super) fn rule(
        &self,
        from: (i32, i32),
        to: (i32, i32),
        opacity: f64,
    ) -> Result<(), String> {
        let style = INK.mix(opacity).stroke_width(2);
        self.put(&PathElement::new(vec![from, to], style))
    }

    /// Draws a line of its own colour.
    pub(super) fn line(
        &self,
        points: Vec<(i32, i32)>,
        colour: RGBColor,
        width: u32,
        dashed: bool,
    ) -> Result<(), String> {
        let style = colour.stroke_width(width);
        if dashed {
            return self.put(&DashedPathElement::new(points, 12, 8, style));
        }
        self.put(&PathElement::new(points, style))
    }

    /// Fills a rectangle.
    pub(super) fn bar(
        &self,
        from: (i32, i32),
        to: (i32, i32),
        colour: RGBColor,
    ) -> Result<(), String> {
        self.put(&Rectangle::new([from, to], colour.filled()))
    }

    /// Draws an interval with its ends marked, in ink.
    pub(super) fn whisker(&self, low: i32, high: i32, y: i32) -> Result<(), String> {
        for (from, to) in [
            ((low, y), (high, y)),
            ((low, y - 7), (low, y + 7)),
            ((high, y - 7), (high, y + 7)),
        ] {
            self.put(&PathElement::new(vec![from, to], INK.stroke_width(3)))?;
        }
        Ok(())
    }

    /// Draws a dot, hollow or full.
    pub(super) fn dot(&self, at: (i32, i32), colour: RGBColor, hollow: bool) -> Result<(), String> {
        if hollow {
            return self.put(&Circle::new(at, 9, colour.stroke_width(5)));
        }
        self.put(&Circle::new(at, 11, colour.filled()))
    }

    fn put<'e, E>(&self, element: &'e E) -> Result<(), String>
    where
        &'e E: PointCollection<'e, (i32, i32)>,
        E: Drawable<SVGBackend<'a>>,
    {
        self.area.draw(element).map_err(|error| error.to_string())
    }
}

/// Cuts a text to its room, an ellipsis telling so.
pub(super) fn fit(text: &str, room: f64, size: f64) -> String {
    let text = printable(text);
    if width_of(&text, size) <= room {
        return text;
    }
    let mut kept = String::new();
    let mut width = width_of("…", size);
    for character in text.chars() {
        width += width_of(character.encode_utf8(&mut [0; 4]), size);
        if width > room {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}

/// Returns a width that no common sans-serif face exceeds by much.
pub(super) fn width_of(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|character| match character {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '\'' | '!' | ' ' | '\u{202f}' => 0.34,
            'f' | 't' | 'r' | '-' | '(' | ')' | '[' | ']' | '/' => 0.44,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.98,
            'A'..='Z' | '&' => 0.72,
            character if character.is_ascii() => 0.63,
            '·' | '–' | '−' | '×' | '±' | '…' => 0.8,
            _ => 1.05,
        })
        .sum();
    ems * size
}

/// Replaces what XML cannot hold.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_longer_than_its_room_is_cut() {
        let cut = fit(&"x".repeat(200), 300.0, TEXT);
        assert!(cut.ends_with('…'));
        assert!(width_of(&cut, TEXT) <= 300.0);
        assert_eq!(fit("short", 300.0, TEXT), "short");
    }

    #[test]
    fn control_characters_do_not_reach_the_drawing() {
        assert_eq!(printable("a\u{0}b\nc"), "a\u{fffd}b\u{fffd}c");
    }
}
