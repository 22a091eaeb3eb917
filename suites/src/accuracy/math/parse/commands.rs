//! Letters, constants, roots, fractions and functions.

use super::{
    super::expr::{Expr, Function},
    Parser, Token, VARIABLES, number,
};

impl Parser {
    /// Reads a letter that was taken: a constant, or a variable with its index.
    pub(super) fn letter(&mut self, c: char) -> Result<Expr, String> {
        if self.take('_') {
            return self.index(c.to_string());
        }
        match c {
            'e' => Ok(Expr::E),
            'i' => Ok(Expr::I),
            'f' | 'g' | 'h' | 'P' | 'Q' if self.sign('(') => {
                Err(format!("`{c}(` may be a function or a product"))
            }
            _ => Ok(Expr::Variable(c.to_string())),
        }
    }

    /// Reads the index of a variable.
    fn index(&mut self, name: String) -> Result<Expr, String> {
        let braced = self.take('{');
        let mut full = name + "_";
        loop {
            match self.peek() {
                Some(Token::Number(digits)) => full.push_str(digits),
                Some(Token::Letter(c)) => full.push(*c),
                Some(Token::Text(words)) => full.push_str(words),
                _ => return Err("an index is not understood".to_owned()),
            }
            self.at += 1;
            if !braced || self.take('}') {
                return Ok(Expr::Variable(full));
            }
        }
    }

    /// Reads what a command that was taken says.
    pub(super) fn named(&mut self, name: &str) -> Result<Expr, String> {
        match name {
            "pi" => Ok(Expr::Pi),
            "infty" => Ok(Expr::Infinity),
            "frac" => {
                let (over, under) = (self.argument(name)?, self.argument(name)?);
                Ok(Expr::Product(vec![over, Expr::Inverse(Box::new(under))]))
            }
            "binom" => {
                let (n, k) = (self.argument(name)?, self.argument(name)?);
                binomial(&n, &k)
            }
            "sqrt" => self.root(),
            _ if VARIABLES.contains(&name) => {
                if self.take('_') {
                    self.index(name.to_owned())
                } else {
                    Ok(Expr::Variable(name.to_owned()))
                }
            }
            _ => match Function::named(name) {
                Some(function) => self.call(function),
                None => Err(format!("`\\{name}` is not understood")),
            },
        }
    }

    fn root(&mut self) -> Result<Expr, String> {
        let mut n = 2;
        if self.take('[') {
            n = match self.peek() {
                Some(Token::Number(digits)) => digits.parse().ok().filter(|n| (2..=64).contains(n)),
                _ => None,
            }
            .ok_or("the kind of a root is not understood")?;
            self.at += 1;
            self.expect(']')?;
        }
        if let Some(Token::Number(digits)) = self.peek()
            && digits.len() > 1
        {
            return Err(format!("`\\sqrt{digits}` has two readings"));
        }
        let inner = if self.take('(') {
            self.deeper(|parser| parser.grouped(')'))?
        } else {
            self.argument("sqrt")?
        };
        Ok(Expr::Root(n, Box::new(inner)))
    }

    /// Reads the argument of a command: a group, one digit, a letter or a constant.
    fn argument(&mut self, name: &str) -> Result<Expr, String> {
        match self.peek().cloned() {
            Some(Token::Sign('{')) => {
                self.at += 1;
                self.deeper(|parser| parser.grouped('}'))
            }
            Some(Token::Number(digits)) => {
                // TeX takes one digit; the others follow.
                let (first, others) = digits.split_at(1);
                if others.is_empty() {
                    self.at += 1;
                } else {
                    self.tokens[self.at] = Token::Number(others.to_owned());
                }
                number(first)
            }
            Some(Token::Letter(c)) => {
                self.at += 1;
                self.letter(c)
            }
            Some(Token::Command(inner))
                if inner == "pi" || inner == "sqrt" || VARIABLES.contains(&inner.as_str()) =>
            {
                self.deeper(Self::primary)
            }
            _ => Err(format!("an argument of `\\{name}` is missing")),
        }
    }

    fn call(&mut self, function: Function) -> Result<Expr, String> {
        let mut base = None;
        if function == Function::Log && self.take('_') {
            base = Some(self.argument("log")?);
        }
        let mut power = None;
        if self.take('^') {
            let exponent = self.exponent()?;
            if !matches!(&exponent, Expr::Number(n, false) if n.den() == 1 && n.num() > 0) {
                return Err("a function to that power is not understood".to_owned());
            }
            power = Some(exponent);
        }
        let argument = if self.sign('(') || self.sign('{') {
            self.deeper(Self::primary)?
        } else {
            self.bare_argument()?
        };
        let mut expr = match base {
            Some(base) => Expr::Product(vec![
                Expr::Call(Function::Ln, Box::new(argument)),
                Expr::Inverse(Box::new(Expr::Call(Function::Ln, Box::new(base)))),
            ]),
            None => Expr::Call(function, Box::new(argument)),
        };
        if let Some(power) = power {
            expr = Expr::Power(Box::new(expr), Box::new(power));
        }
        Ok(expr)
    }

    /// Reads the argument of a function without brackets: `2x`, `\frac{x}{2}`, `\theta`.
    fn bare_argument(&mut self) -> Result<Expr, String> {
        let mut factors = Vec::new();
        loop {
            let goes_on = match self.peek() {
                Some(Token::Number(_)) => factors.is_empty(),
                Some(Token::Letter(_)) => true,
                Some(Token::Command(name)) => {
                    matches!(name.as_str(), "frac" | "sqrt" | "pi")
                        || VARIABLES.contains(&name.as_str())
                }
                _ => false,
            };
            if !goes_on {
                break;
            }
            factors.push(self.factor()?);
        }
        if factors.is_empty() {
            return Err("the argument of a function is missing".to_owned());
        }
        if matches!(self.command(), Some("/")) {
            return Err("a function before a slash has two readings".to_owned());
        }
        Ok(if factors.len() == 1 {
            factors.remove(0)
        } else {
            Expr::Product(factors)
        })
    }
}

/// Works out a binomial coefficient of small whole numbers.
fn binomial(n: &Expr, k: &Expr) -> Result<Expr, String> {
    let (Expr::Number(n, false), Expr::Number(k, false)) = (n, k) else {
        return Err("a binomial coefficient of that is not understood".to_owned());
    };
    match (n.as_whole(), k.as_whole()) {
        (Some(n @ 0..=100), Some(k)) if (0..=n).contains(&k) => {
            // Each step is a binomial coefficient itself; the largest, C(100, 50) * 100, is below 2^104.
            let value = (0..k.min(n - k)).fold(1_i128, |value, j| value * (n - j) / (j + 1));
            Ok(Expr::whole(value))
        }
        _ => Err("a binomial coefficient of that is not understood".to_owned()),
    }
}
