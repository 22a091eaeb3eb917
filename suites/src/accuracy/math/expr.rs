//! The expressions that answers are written in.

use super::rational::Rational;

/// A function of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Function {
    /// The sine of an angle in radians.
    Sin,
    /// The cosine.
    Cos,
    /// The tangent.
    Tan,
    /// The cotangent.
    Cot,
    /// The secant.
    Sec,
    /// The cosecant.
    Csc,
    /// The inverse of the sine.
    Arcsin,
    /// The inverse of the cosine.
    Arccos,
    /// The inverse of the tangent.
    Arctan,
    /// The natural logarithm.
    Ln,
    /// A logarithm that does not say its base.
    Log,
    /// The exponential function.
    Exp,
    /// The absolute value.
    Abs,
}

impl Function {
    /// Returns the function of a LaTeX name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sin" => Self::Sin,
            "cos" => Self::Cos,
            "tan" => Self::Tan,
            "cot" => Self::Cot,
            "sec" => Self::Sec,
            "csc" => Self::Csc,
            "arcsin" => Self::Arcsin,
            "arccos" => Self::Arccos,
            "arctan" => Self::Arctan,
            "ln" => Self::Ln,
            "log" => Self::Log,
            "exp" => Self::Exp,
            "abs" => Self::Abs,
            _ => return None,
        })
    }
}

/// An expression; the parser bounds its depth.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// A number written in digits, and whether it has a decimal point.
    Number(Rational, bool),
    /// A number written in digits that is too long to be exact here.
    Long(f64),
    /// The circle's number.
    Pi,
    /// The base of the natural logarithm.
    E,
    /// The imaginary unit.
    I,
    /// Infinity.
    Infinity,
    /// A variable, with its index where it has one.
    Variable(String),
    /// A sum.
    Sum(Vec<Expr>),
    /// A product.
    Product(Vec<Expr>),
    /// The negative.
    Negative(Box<Expr>),
    /// One over it.
    Inverse(Box<Expr>),
    /// A power: base, exponent.
    Power(Box<Expr>, Box<Expr>),
    /// A root: which one, of what.
    Root(u32, Box<Expr>),
    /// A function of one argument.
    Call(Function, Box<Expr>),
    /// Plus or minus it, as a part of a sum.
    PlusMinus(Box<Expr>),
}

impl Expr {
    /// Makes a whole number.
    pub(super) const fn whole(value: i128) -> Self {
        Self::Number(Rational::whole(value), false)
    }

    /// Returns the expressions that this one is made of.
    pub(super) fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Number(..)
            | Self::Long(_)
            | Self::Pi
            | Self::E
            | Self::I
            | Self::Infinity
            | Self::Variable(_) => Vec::new(),
            Self::Sum(parts) | Self::Product(parts) => parts.iter().collect(),
            Self::Negative(part)
            | Self::Inverse(part)
            | Self::Root(_, part)
            | Self::Call(_, part)
            | Self::PlusMinus(part) => vec![part],
            Self::Power(base, exponent) => vec![base, exponent],
        }
    }

    /// Tells whether this or any part of it is as asked.
    pub(super) fn any(&self, asked: &impl Fn(&Self) -> bool) -> bool {
        asked(self) || self.parts().into_iter().any(|part| part.any(asked))
    }

    /// Counts the plus-or-minus signs.
    pub(super) fn plus_minus_count(&self) -> usize {
        let own = usize::from(matches!(self, Self::PlusMinus(_)));
        own + self
            .parts()
            .into_iter()
            .map(Self::plus_minus_count)
            .sum::<usize>()
    }

    /// Returns the same with every plus-or-minus sign as the one or the other.
    pub(super) fn with_sign(&self, plus: bool) -> Self {
        let with = |part: &Self| Box::new(part.with_sign(plus));
        match self {
            Self::PlusMinus(part) if plus => part.with_sign(plus),
            Self::Sum(parts) => Self::Sum(parts.iter().map(|part| part.with_sign(plus)).collect()),
            Self::Product(parts) => {
                Self::Product(parts.iter().map(|part| part.with_sign(plus)).collect())
            }
            Self::PlusMinus(part) | Self::Negative(part) => Self::Negative(with(part)),
            Self::Inverse(part) => Self::Inverse(with(part)),
            Self::Root(n, part) => Self::Root(*n, with(part)),
            Self::Call(function, part) => Self::Call(*function, with(part)),
            Self::Power(base, exponent) => Self::Power(with(base), with(exponent)),
            leaf => leaf.clone(),
        }
    }

    /// Returns the names of the variables, each once, in order.
    pub(super) fn variables(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.gather(&mut names);
        names.sort();
        names.dedup();
        names
    }

    fn gather(&self, names: &mut Vec<String>) {
        if let Self::Variable(name) = self {
            names.push(name.clone());
        }
        for part in self.parts() {
            part.gather(names);
        }
    }
}
