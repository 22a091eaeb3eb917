//! Reads symbols into expressions.
//!
//! Where a way of writing has two readings (a product after a slash, `\sqrt12`, a whole number
//! before a fraction inside a formula) there is no expression, and the reason says so.

mod commands;

use super::{
    expr::{Expr, Function},
    lex::Token,
    rational::Rational,
};

/// Deepest nesting that is read.
const MAX_DEPTH: u32 = 40;

/// Greek letters and the like that are variables.
const VARIABLES: [&str; 20] = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "rho",
    "sigma",
    "tau",
    "phi",
    "varphi",
    "omega",
    "ell",
];

/// Reads all of `tokens` as one expression.
pub(super) fn expression(tokens: &[Token]) -> Result<Expr, String> {
    let mut parser = Parser {
        tokens: tokens.to_vec(),
        at: 0,
        depth: 0,
        bars: 0,
    };
    let expr = parser.sum()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expr),
        Some(token) => Err(format!("{} is not understood here", describe(token))),
    }
}

/// Names a symbol for a reason.
pub(super) fn describe(token: &Token) -> String {
    match token {
        Token::Number(text) => format!("the number `{text}`"),
        Token::Letter(c) | Token::Sign(c) => format!("`{c}`"),
        Token::Command(name) => format!("`\\{name}`"),
        Token::Text(words) => format!("the text `{words}`"),
        Token::Begin(name) | Token::End(name) => format!("the environment `{name}`"),
    }
}

/// The place among the symbols.
struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
    /// How many absolute-value bars are open: the next bar closes one.
    bars: u32,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn sign(&self, c: char) -> bool {
        self.peek() == Some(&Token::Sign(c))
    }

    fn command(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Command(name)) => Some(name),
            _ => None,
        }
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.sign(c);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.take(c) {
            Ok(())
        } else {
            Err(format!("a `{c}` is missing"))
        }
    }

    /// Runs `read` one level deeper.
    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Expr, String>,
    ) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deep".to_owned());
        }
        let expr = read(self);
        self.depth -= 1;
        expr
    }

    fn sum(&mut self) -> Result<Expr, String> {
        self.deeper(|parser| {
            let mut parts = Vec::new();
            loop {
                // A run of signs, as in `x - -1`.
                let (mut negative, mut both, mut any) = (false, false, false);
                loop {
                    if parser.take('-') {
                        negative = !negative;
                    } else if matches!(parser.command(), Some("pm" | "mp")) {
                        if both || parser.command() == Some("mp") {
                            return Err("several plus-or-minus signs are not understood".to_owned());
                        }
                        parser.at += 1;
                        both = true;
                    } else if !parser.take('+') {
                        break;
                    }
                    any = true;
                }
                if !parts.is_empty() && !any {
                    break;
                }
                let mut term = parser.product()?;
                if both {
                    term = Expr::PlusMinus(Box::new(term));
                }
                parts.push(if negative {
                    Expr::Negative(Box::new(term))
                } else {
                    term
                });
            }
            Ok(if parts.len() == 1 {
                parts.remove(0)
            } else {
                Expr::Sum(parts)
            })
        })
    }

    fn product(&mut self) -> Result<Expr, String> {
        let mut factors = vec![self.factor()?];
        let mut slashed = false;
        loop {
            let slash = match self.command() {
                Some("/") => Some(true),
                Some("cdot") => Some(false),
                _ => None,
            };
            if let Some(slash) = slash {
                self.at += 1;
                let negative = self.take('-');
                let mut factor = self.factor()?;
                if negative {
                    factor = Expr::Negative(Box::new(factor));
                }
                factors.push(if slash {
                    Expr::Inverse(Box::new(factor))
                } else {
                    factor
                });
                slashed = slash;
            } else if self.starts_factor() {
                if slashed {
                    return Err("a product after a slash has two readings".to_owned());
                }
                let after_number =
                    matches!(factors.last(), Some(Expr::Number(value, false)) if value.den() == 1);
                let fraction = self.command() == Some("frac");
                let factor = self.factor()?;
                if after_number && fraction && whole_fraction(&factor).is_some() {
                    return Err("a whole number before a fraction has two readings".to_owned());
                }
                factors.push(factor);
            } else {
                break;
            }
        }
        Ok(if factors.len() == 1 {
            factors.remove(0)
        } else {
            Expr::Product(factors)
        })
    }

    /// Tells whether a factor follows without a sign of multiplication.
    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Letter(_) | Token::Sign('(' | '{')) => true,
            Some(Token::Sign('|')) => self.bars == 0,
            Some(Token::Command(name)) => {
                matches!(name.as_str(), "frac" | "sqrt" | "pi" | "binom" | "infty")
                    || Function::named(name).is_some()
                    || VARIABLES.contains(&name.as_str())
            }
            _ => false,
        }
    }

    fn factor(&mut self) -> Result<Expr, String> {
        self.deeper(|parser| {
            let mut expr = parser.primary()?;
            for _ in 0..3 {
                if parser.take('!') {
                    expr = factorial(&expr)?;
                } else if parser.take('^') {
                    let exponent = parser.exponent()?;
                    expr = Expr::Power(Box::new(expr), Box::new(exponent));
                } else {
                    return Ok(expr);
                }
            }
            Err("too many powers of one factor".to_owned())
        })
    }

    /// Reads an exponent; `x^12` is read as people mean it, not as TeX sets it.
    fn exponent(&mut self) -> Result<Expr, String> {
        if self.take('{') {
            let expr = self.sum()?;
            self.expect('}')?;
            return Ok(expr);
        }
        let negative = self.take('-');
        let expr = self.deeper(Self::primary)?;
        if self.sign('^') {
            return Err("a power of a power has two readings".to_owned());
        }
        Ok(if negative {
            Expr::Negative(Box::new(expr))
        } else {
            expr
        })
    }

    fn primary(&mut self) -> Result<Expr, String> {
        let Some(token) = self.peek().cloned() else {
            return Err("something is missing at the end".to_owned());
        };
        self.at += 1;
        match token {
            Token::Number(digits) => number(&digits),
            Token::Letter(c) => self.letter(c),
            Token::Sign('(') => self.grouped(')'),
            Token::Sign('[') => self.grouped(']'),
            Token::Sign('{') => self.grouped('}'),
            Token::Sign('|') => {
                self.bars += 1;
                let inner = self.sum()?;
                self.expect('|')?;
                self.bars -= 1;
                Ok(Expr::Call(Function::Abs, Box::new(inner)))
            }
            Token::Command(name) => self.named(&name),
            other => Err(format!("{} is not understood here", describe(&other))),
        }
    }

    /// Reads what stands up to a closing bracket; bars outside it do not count inside.
    fn grouped(&mut self, close: char) -> Result<Expr, String> {
        let bars = std::mem::take(&mut self.bars);
        let expr = self.sum()?;
        self.bars = bars;
        self.expect(close)?;
        Ok(expr)
    }
}

/// Reads a number.
fn number(digits: &str) -> Result<Expr, String> {
    if let Some(value) = Rational::parse(digits) {
        return Ok(Expr::Number(value, digits.contains('.')));
    }
    let value: f64 = digits
        .parse()
        .map_err(|_| format!("the number `{digits}` is not understood"))?;
    if value.is_finite() {
        Ok(Expr::Long(value))
    } else {
        Err("a number is too large".to_owned())
    }
}

/// Returns the numerator and denominator of a fraction of two whole numbers.
pub(super) fn whole_fraction(expr: &Expr) -> Option<(i128, i128)> {
    let Expr::Product(parts) = expr else {
        return None;
    };
    let [Expr::Number(over, false), Expr::Inverse(under)] = parts.as_slice() else {
        return None;
    };
    let Expr::Number(under, false) = under.as_ref() else {
        return None;
    };
    Some((over.as_whole()?, under.as_whole()?))
}

/// Works out a factorial of a small whole number.
fn factorial(expr: &Expr) -> Result<Expr, String> {
    let whole = match expr {
        Expr::Number(value, _) => value.as_whole(),
        _ => None,
    };
    match whole {
        Some(n @ 0..=33) => Ok(Expr::whole((1..=n).product())),
        _ => Err("a factorial of that is not understood".to_owned()),
    }
}
