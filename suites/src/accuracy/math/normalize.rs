//! Sets aside what both harnesses drop from an answer: units, degrees, percent signs, a full stop.

use super::lex::{Token, lex};

/// An answer in symbols, and what was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Normal {
    /// The symbols that are left.
    pub(super) tokens: Vec<Token>,
    /// The unit in a standard spelling, where one was written.
    pub(super) unit: Option<String>,
    /// Whether a percent sign was written.
    pub(super) percent: bool,
    /// Whether a degree sign was written.
    pub(super) degree: bool,
}

/// Words after a number that change its value or join it to something: no units.
const NOT_UNITS: [&str; 36] = [
    "or",
    "and",
    "not",
    "if",
    "when",
    "where",
    "is",
    "are",
    "million",
    "millions",
    "billion",
    "trillion",
    "thousand",
    "hundred",
    "dozen",
    "times",
    "mod",
    "modulo",
    "for",
    "base",
    "half",
    "halves",
    "third",
    "thirds",
    "quarter",
    "quarters",
    "fourths",
    "fifths",
    "tenths",
    "squared",
    "cubed",
    "factorial",
    "plus",
    "minus",
    "over",
    "to",
];

/// Spellings of units, and the one that stands for them.
const UNITS: [(&str, &str); 32] = [
    ("inches", "inch"),
    ("in", "inch"),
    ("feet", "foot"),
    ("ft", "foot"),
    ("cm", "centimeter"),
    ("mm", "millimeter"),
    ("km", "kilometer"),
    ("m", "meter"),
    ("metre", "meter"),
    ("centimetre", "centimeter"),
    ("kilometre", "kilometer"),
    ("kg", "kilogram"),
    ("g", "gram"),
    ("lb", "pound"),
    ("oz", "ounce"),
    ("sq", "square"),
    ("cub", "cubic"),
    ("hr", "hour"),
    ("h", "hour"),
    ("min", "minute"),
    ("sec", "second"),
    ("s", "second"),
    ("yd", "yard"),
    ("mi", "mile"),
    ("deg", "degree"),
    ("cent", "cent"),
    ("dollar", "dollar"),
    ("buck", "dollar"),
    ("usd", "dollar"),
    ("kmph", "kilometer hour"),
    ("mph", "hour mile"),
    ("liter", "litre"),
];

/// Words of a unit that say nothing.
const EMPTY_WORDS: [&str; 7] = ["of", "per", "the", "unit", "an", "total", "in"];

/// Cuts an answer into symbols and sets units and the like aside, and the stars of Markdown.
pub(super) fn normalize(text: &str) -> Result<Normal, String> {
    let mut normal = Normal {
        tokens: lex(text.trim_matches(['*', ' ']))?,
        unit: None,
        percent: false,
        degree: false,
    };
    normal.drop_box();
    while let Some(Token::Sign('.' | ',' | ';' | ':')) = normal.tokens.last() {
        normal.tokens.pop();
    }
    normal.drop_marks();
    normal.drop_unit();
    normal.real_line();
    Ok(normal)
}

impl Normal {
    /// Takes the answer out of a box.
    fn drop_box(&mut self) {
        while let [
            Token::Command(name),
            Token::Sign('{'),
            inner @ ..,
            Token::Sign('}'),
        ] = self.tokens.as_slice()
        {
            if name != "boxed" && name != "fbox" {
                break;
            }
            self.tokens = inner.to_vec();
        }
    }

    /// Takes out degree and percent signs.
    fn drop_marks(&mut self) {
        let mut kept: Vec<Token> = Vec::with_capacity(self.tokens.len());
        let mut rest = self.tokens.iter().peekable();
        let is = |token: Option<&Token>, wanted: &str| matches!(token, Some(Token::Command(name)) if name == wanted);
        while let Some(token) = rest.next() {
            if is(Some(token), "%") {
                self.percent = true;
            } else if is(Some(token), "circ") {
                self.degree = true;
                let braced = matches!(kept.last(), Some(Token::Sign('{')))
                    && rest.peek() == Some(&&Token::Sign('}'));
                if braced {
                    kept.pop();
                    rest.next();
                }
                if matches!(kept.last(), Some(Token::Sign('^'))) {
                    kept.pop();
                }
            } else if *token != Token::Sign('.') || !matches!(kept.last(), Some(Token::Text(_))) {
                // The full stop of an abbreviation goes too.
                kept.push(token.clone());
            }
        }
        self.tokens = kept;
    }

    /// Takes off words (and a power of them) that end an answer which is not all words.
    fn drop_unit(&mut self) {
        let mut end = self.tokens.len();
        let power = match self.tokens.as_slice() {
            [.., Token::Text(_), Token::Sign('^'), Token::Number(n)] => {
                end -= 2;
                Some(n.clone())
            }
            [
                ..,
                Token::Text(_),
                Token::Sign('^'),
                Token::Sign('{'),
                Token::Number(n),
                Token::Sign('}'),
            ] => {
                end -= 4;
                Some(n.clone())
            }
            _ => None,
        };
        let start = self.tokens[..end]
            .iter()
            .rposition(|token| !matches!(token, Token::Text(_)));
        let Some(start) = start.map(|at| at + 1).filter(|start| *start < end) else {
            return;
        };
        // "x = even" has no unit, and neither has a list that ends in a word.
        if matches!(
            self.tokens[start - 1],
            Token::Sign('=' | ',' | '<' | '>' | '+' | '-' | '(' | '_' | '^')
        ) || matches!(&self.tokens[start - 1], Token::Command(name) if name != "pi")
            || self.tokens[..start]
                .iter()
                .all(|token| matches!(token, Token::Letter(_)))
        {
            return;
        }
        let mut words = Vec::new();
        for token in &self.tokens[start..end] {
            let Token::Text(text) = token else { return };
            if text.contains(|c: char| !c.is_ascii_alphabetic() && c != ' ' && c != '/' && c != '.')
            {
                return;
            }
            words.extend(
                text.split([' ', '/', '.'])
                    .map(str::to_ascii_lowercase)
                    .filter(|word| !word.is_empty()),
            );
        }
        let letter =
            |word: &String| word.len() == 1 && !["m", "s", "g", "h", "l"].contains(&word.as_str());
        if words
            .iter()
            .any(|word| NOT_UNITS.contains(&word.as_str()) || letter(word))
        {
            return;
        }
        if words.iter().any(|word| word == "percent") {
            self.percent = true;
            words.retain(|word| word != "percent");
        }
        match power.as_deref() {
            Some("2") => words.push("square".to_owned()),
            Some("3") => words.push("cubic".to_owned()),
            Some(_) => return,
            None => {}
        }
        let mut units: Vec<String> = words.iter().map(|word| standard(word)).collect();
        units.retain(|word| !EMPTY_WORDS.contains(&word.as_str()));
        units.sort();
        if units == ["degree"] {
            self.degree = true;
            units.clear();
        }
        self.tokens.truncate(start);
        self.unit = (!units.is_empty()).then(|| units.join(" "));
    }

    /// Writes the interval of all reals as the set of reals.
    fn real_line(&mut self) {
        let infinity = Token::Command("infty".to_owned());
        let line = [
            Token::Sign('('),
            Token::Sign('-'),
            infinity.clone(),
            Token::Sign(','),
            infinity,
            Token::Sign(')'),
        ];
        if self.tokens == line {
            self.tokens = vec![Token::Sign('{'), Token::Letter('R'), Token::Sign('}')];
        }
    }
}

/// Returns the standard spelling of one word of a unit.
fn standard(word: &str) -> String {
    let find = |word: &str| {
        UNITS
            .iter()
            .find(|(other, _)| *other == word)
            .map(|(_, unit)| (*unit).to_owned())
    };
    let single = word
        .strip_suffix('s')
        .filter(|single| single.len() > 1)
        .unwrap_or(word);
    find(word)
        .or_else(|| find(single))
        .unwrap_or_else(|| single.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, left: &str, unit: Option<&str>) {
        let normal = normalize(text).expect("the text is readable");
        assert_eq!(
            normal.tokens,
            lex(left).expect("the text is readable"),
            "of {text}"
        );
        assert_eq!(normal.unit.as_deref(), unit, "of {text}");
    }

    #[test]
    fn units_are_set_aside_in_one_spelling() {
        check("5.4 \\text{ cents}", "5.4", Some("cent"));
        check("864 \\mbox{ inches}^2", "864", Some("inch square"));
        check("864 square inches", "864", Some("inch square"));
        check("15\\mbox{ cm}^{2}", "15", Some("centimeter square"));
        check("3 sq. ft.", "3", Some("foot square"));
        check("12 units", "12", None);
        check("\\frac{270}7\\text{ degrees}", "\\frac{270}7", None);
    }

    #[test]
    fn words_that_are_not_units_stay() {
        check("5 \\text{ million}", "5 \\text{million}", None);
        check("\\text{Evelyn}", "\\text{Evelyn}", None);
        check("x = \\text{even}", "x = \\text{even}", None);
    }

    #[test]
    fn marks_are_set_aside() {
        let normal = normalize("50\\%").expect("the text is readable");
        assert!(normal.percent && normal.tokens.len() == 1);
        for text in ["90^\\circ", "90^{\\circ}", "90°", "90 degrees"] {
            let normal = normalize(text).expect("the text is readable");
            assert!(normal.degree && normal.tokens.len() == 1, "of {text}");
        }
    }
}
