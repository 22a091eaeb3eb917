//! Cuts an answer into symbols; what is only typography disappears here.

mod tables;

use tables::{LOOKS, NAMES, SHORT_UNITS, SHORT_WORDS, SYNONYMS, UNICODE, WORDS};

/// One symbol of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Digits with at most one decimal point, thousands commas taken out.
    Number(String),
    /// One letter of a formula.
    Letter(char),
    /// A LaTeX command without its backslash, or a plain word that means one (`sqrt`).
    Command(String),
    /// Words: the content of `\text{…}`, or a plain word that is no formula.
    Text(String),
    /// The beginning of an environment, with its name.
    Begin(String),
    /// The end of an environment, with its name.
    End(String),
    /// Anything else of one character.
    Sign(char),
}

/// Cuts `text` into symbols, or says what it cannot read.
pub(super) fn lex(text: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer {
        chars: &chars,
        at: 0,
        tokens: Vec::new(),
        brackets: 0,
        unclosed: false,
    };
    while lexer.at < chars.len() {
        lexer.step()?;
    }
    Ok(lexer.tokens)
}

/// The place in the text and what was read.
struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    tokens: Vec<Token>,
    brackets: u32,
    /// Whether a group was found not to close; then none before it that is open does either, and
    /// looking again each time would take quadratic time.
    unclosed: bool,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn step(&mut self) -> Result<(), String> {
        let c = self.chars[self.at];
        match c {
            '\\' => return self.command(),
            '0'..='9' => self.number(),
            '.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => self.number(),
            'a'..='z' | 'A'..='Z' => return self.word(),
            _ => {
                self.at += 1;
                self.sign(c)?;
            }
        }
        Ok(())
    }

    fn sign(&mut self, c: char) -> Result<(), String> {
        match c {
            _ if c.is_whitespace() => return Ok(()),
            '$' | '~' | '\u{200b}' => return Ok(()),
            '(' | '[' => self.brackets += 1,
            ')' | ']' => self.brackets = self.brackets.saturating_sub(1),
            _ => {}
        }
        let token = match c {
            '−' | '–' => Token::Sign('-'),
            '*' if self.peek(0) == Some('*') => {
                self.at += 1;
                Token::Sign('^')
            }
            '*' => Token::Command("cdot".to_owned()),
            '/' | '%' => Token::Command(c.to_string()),
            '²' | '³' => {
                let digit = if c == '²' { "2" } else { "3" };
                self.tokens.push(Token::Sign('^'));
                Token::Number(digit.to_owned())
            }
            '+' | '-' | '^' | '_' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | ',' | ';' | ':'
            | '=' | '<' | '>' | '!' | '&' | '\'' | '.' | '?' | '"' => Token::Sign(c),
            _ => match UNICODE.iter().find(|(known, _)| *known == c) {
                Some((_, "R")) => Token::Letter('R'),
                Some((_, name)) => Token::Command((*name).to_owned()),
                None => {
                    return Err(format!(
                        "the character `{}` is not understood",
                        c.escape_debug()
                    ));
                }
            },
        };
        self.tokens.push(token);
        Ok(())
    }

    /// Reads digits, and the thousands groups after them.
    fn number(&mut self) {
        let mut digits = self.digits();
        let leads = (1..=3).contains(&digits.len()) && !digits.starts_with('0');
        while leads && let Some(skip) = self.thousands() {
            self.at += skip;
            for _ in 0..3 {
                digits.push(self.chars[self.at]);
                self.at += 1;
            }
        }
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|next| next.is_ascii_digit()) {
            self.at += 1;
            digits.push('.');
            let part = self.digits();
            digits.push_str(&part);
            // 3.50 is 3.5, and 3.0 is 3.
            let kept = digits.trim_end_matches('0').trim_end_matches('.').len();
            digits.truncate(kept);
        }
        let kept = digits.trim_start_matches('0');
        let token = match kept.chars().next() {
            None => "0".to_owned(),
            Some('.') => format!("0{kept}"),
            Some(_) => kept.to_owned(),
        };
        self.tokens.push(Token::Number(token));
    }

    fn digits(&mut self) -> String {
        let run: String = self.chars[self.at..]
            .iter()
            .take_while(|c| c.is_ascii_digit())
            .collect();
        self.at += run.len();
        run
    }

    /// Returns how many characters stand before a thousands group that follows here.
    ///
    /// A bare comma is one outside brackets only: `(1,200)` is a pair. `{,}` and `,\!` always are.
    fn thousands(&self) -> Option<usize> {
        let rest = &self.chars[self.at..];
        let starts = |prefix: &str| {
            prefix.chars().zip(rest).filter(|(a, b)| a == *b).count() == prefix.len()
        };
        let mut skip = if starts("{,}") {
            3
        } else if starts(",\\!") {
            3 + rest[3..].iter().take_while(|c| **c == ' ').count()
        } else if starts(",") && self.brackets == 0 {
            1
        } else {
            return None;
        };
        while rest[skip..].starts_with(&['\\', '!']) {
            skip += 2;
        }
        let run = rest[skip..]
            .iter()
            .take_while(|c| c.is_ascii_digit())
            .count();
        (run == 3).then_some(skip)
    }

    /// Reads a run of letters: a known name, a word, or a product of letters.
    fn word(&mut self) -> Result<(), String> {
        let run: String = self.chars[self.at..]
            .iter()
            .take_while(|c| c.is_ascii_alphabetic())
            .collect();
        let before = self.at.checked_sub(1).and_then(|at| self.chars.get(at));
        let apart =
            before.is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ',' | '~' | '$' | '='));
        self.at += run.len();
        let lower = run.to_ascii_lowercase();
        if let Some((_, name)) = NAMES.iter().find(|(word, _)| *word == lower) {
            self.tokens.push(Token::Command((*name).to_owned()));
        } else if SHORT_UNITS.contains(&lower.as_str())
            || (apart && SHORT_WORDS.contains(&lower.as_str()))
        {
            self.tokens.push(Token::Text(run));
        } else if run.len() > 3 && !apart {
            return Err(format!("`{run}` may be a word or a product"));
        } else if run.len() > 3 {
            self.tokens.push(Token::Text(run));
        } else {
            self.tokens.extend(run.chars().map(Token::Letter));
        }
        Ok(())
    }

    fn command(&mut self) -> Result<(), String> {
        self.at += 1;
        let Some(first) = self.peek(0) else {
            return Ok(());
        };
        if !first.is_ascii_alphabetic() {
            self.at += 1;
            match first {
                '{' | '}' => {
                    // A set is a bracket too: no thousands commas in it.
                    self.brackets = if first == '{' {
                        self.brackets + 1
                    } else {
                        self.brackets.saturating_sub(1)
                    };
                    self.tokens.push(Token::Command(first.to_string()));
                }
                '%' | '\\' | '|' => self.tokens.push(Token::Command(first.to_string())),
                '!' | ',' | ';' | ':' | ' ' | '$' | '(' | ')' | '[' | ']' | '\n' | '>' => {}
                _ => {
                    return Err(format!(
                        "the command `\\{}` is not understood",
                        first.escape_debug()
                    ));
                }
            }
            return Ok(());
        }
        let name: String = self.chars[self.at..]
            .iter()
            .take_while(|c| c.is_ascii_alphabetic())
            .collect();
        self.at += name.len();
        if LOOKS.contains(&name.as_str()) {
            // `\right.` draws nothing.
            if matches!(name.as_str(), "left" | "right") && self.peek(0) == Some('.') {
                self.at += 1;
            }
        } else if WORDS.contains(&name.as_str()) {
            if let Some(words) = self.group() {
                self.text(words.trim());
            }
        } else if name == "begin" || name == "end" {
            let environment = self.group().ok_or("an environment without a name")?;
            if name == "begin" && environment == "array" {
                self.group();
            }
            self.tokens.push(if name == "begin" {
                Token::Begin(environment)
            } else {
                Token::End(environment)
            });
        } else {
            let name = SYNONYMS
                .iter()
                .find(|(other, _)| *other == name)
                .map_or(name.as_str(), |(_, name)| *name);
            self.tokens.push(match name {
                "|" | "[" | "]" | "(" => Token::Sign(name.chars().next().unwrap_or('|')),
                "lt" => Token::Sign('<'),
                "gt" => Token::Sign('>'),
                _ => Token::Command(name.to_owned()),
            });
        }
        Ok(())
    }

    /// Takes words in; a lone constant (`\mathrm{e}`) or number is a formula.
    fn text(&mut self, words: &str) {
        let mut letters = words.chars();
        match (letters.next(), letters.next()) {
            (None, _) => {}
            (Some(letter @ ('e' | 'i')), None) => self.tokens.push(Token::Letter(letter)),
            _ if words.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.tokens.push(Token::Number(words.to_owned()));
            }
            // `\text{5 cm}` is a number with a unit.
            (Some('0'..='9'), _)
                if !words.contains('\\')
                    && let Ok(tokens) = lex(words) =>
            {
                self.tokens.extend(tokens);
            }
            _ => self.tokens.push(Token::Text(
                words.split_whitespace().collect::<Vec<_>>().join(" "),
            )),
        }
    }

    /// Reads the group in braces that comes next, where one does.
    fn group(&mut self) -> Option<String> {
        let start = self.at
            + self.chars[self.at..]
                .iter()
                .take_while(|c| c.is_whitespace())
                .count();
        if self.unclosed || self.chars.get(start) != Some(&'{') {
            return None;
        }
        let mut depth = 0_u32;
        for (offset, c) in self.chars[start..].iter().enumerate() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.at = start + offset + 1;
                return Some(self.chars[start + 1..start + offset].iter().collect());
            }
        }
        self.unclosed = true;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes symbols down with a space between them.
    fn show(text: &str) -> String {
        let tokens = lex(text).expect("the text is readable");
        let words: Vec<String> = tokens
            .into_iter()
            .map(|token| match token {
                Token::Number(text) => text,
                Token::Letter(c) | Token::Sign(c) => c.to_string(),
                Token::Command(name) => format!("\\{name}"),
                Token::Text(words) => format!("'{words}'"),
                Token::Begin(name) => format!("begin:{name}"),
                Token::End(name) => format!("end:{name}"),
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn typography_disappears() {
        assert_eq!(
            show("\\left( \\dfrac{1}{2}, x \\right]"),
            "( \\frac { 1 } { 2 } , x ]"
        );
        assert_eq!(show("$\\$ 18.90$"), "18.9");
        assert_eq!(show("\\mathbf{v}\\cdot 2"), "{ v } \\cdot 2");
        assert_eq!(
            show("\\begin{array}{cc} 1 & 2 \\end{array}"),
            "begin:array 1 & 2 end:array"
        );
        assert_eq!(show("007 .5 3.0"), "7 0.5 3");
    }

    #[test]
    fn thousands_commas_are_told_from_lists() {
        assert_eq!(show("58,500"), "58500");
        assert_eq!(show("11,\\! 111,\\! 111,\\! 100"), "11111111100");
        assert_eq!(show("10{,}080.5"), "10080.5");
        assert_eq!(show("(1,200)"), "( 1 , 200 )");
        assert_eq!(show("1, 200"), "1 , 200");
        assert_eq!(show("1,2000"), "1 , 2000");
        assert_eq!(show("0,123"), "0 , 123");
    }

    #[test]
    fn words_are_told_from_products() {
        assert_eq!(show("2xy"), "2 x y");
        assert_eq!(show("even"), "'even'");
        assert_eq!(show("odd"), "'odd'");
        assert_eq!(show("sqrt(3)"), "\\sqrt ( 3 )");
        assert_eq!(show("\\text{ degrees}"), "'degrees'");
        assert_eq!(show("\\mathrm{e}"), "e");
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(
            lex("5 ♥"),
            Err("the character `♥` is not understood".to_owned())
        );
    }
}
