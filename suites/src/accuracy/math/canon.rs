//! Brings expressions into an exact form: a fraction of two polynomials.

use super::{
    expr::{Expr, Function},
    poly::{Atom, Fuel, Poly},
    rational::{Rational, whole_root},
};

/// Longest spelling of something that has no exact form of its own, in bytes.
const MAX_SPELLING: usize = 400;
/// Largest exponent that is multiplied out.
const MAX_EXPONENT: i128 = 10_000;
/// Largest prime factor that is looked for under a square root.
const MAX_PRIME: i128 = 10_000;

/// A fraction of two polynomials; the lower one is not nought.
#[derive(Clone, Debug)]
pub(super) struct Fraction {
    /// The upper one.
    pub(super) num: Poly,
    /// The lower one.
    pub(super) den: Poly,
}

impl Fraction {
    /// Brings `expr` into exact form, or `None` where it has none that is small enough.
    pub(super) fn of(expr: &Expr) -> Option<Self> {
        canon(expr, &mut Fuel::full())
    }

    /// Tells whether both are the same function; `None` where the products grow too large.
    ///
    /// Points where only one is defined do not count: `x^2/x` is `x`, as it is to sympy.
    pub(super) fn same(&self, other: &Self) -> Option<bool> {
        let fuel = &mut Fuel::full();
        Some(self.num.mul(&other.den, fuel)? == other.num.mul(&self.den, fuel)?)
    }

    /// Returns `self - other`.
    pub(super) fn minus(&self, other: &Self) -> Option<Self> {
        let fuel = &mut Fuel::full();
        self.add(
            &Self {
                num: other.num.neg()?,
                den: other.den.clone(),
            },
            fuel,
        )
    }

    /// Tells whether the form knows everything about the expression: then two forms that are not
    /// the same are two functions.
    pub(super) fn is_complete(&self) -> bool {
        let opaque = |atom: &Atom| matches!(atom, Atom::Opaque(_));
        !self.num.any(opaque) && !self.den.any(opaque)
    }

    fn rational(value: Rational) -> Self {
        Self {
            num: Poly::constant(value),
            den: Poly::constant(Rational::ONE),
        }
    }

    fn atom(atom: Atom) -> Self {
        Self {
            num: Poly::atom(atom),
            den: Poly::constant(Rational::ONE),
        }
    }

    /// Makes the lower polynomial 1 where it is rational.
    fn tidy(self) -> Option<Self> {
        match self.den.as_rational() {
            Some(den) if den == Rational::ONE => Some(self),
            Some(den) => Some(Self {
                num: self.num.scale(Rational::ONE.div(den)?)?,
                den: Poly::constant(Rational::ONE),
            }),
            None => Some(self),
        }
    }

    fn as_rational(&self) -> Option<Rational> {
        self.num.as_rational()?.div(self.den.as_rational()?)
    }

    fn add(&self, other: &Self, fuel: &mut Fuel) -> Option<Self> {
        if self.den == other.den {
            return Some(Self {
                num: self.num.add(&other.num, fuel)?,
                den: self.den.clone(),
            });
        }
        let left = self.num.mul(&other.den, fuel)?;
        let right = other.num.mul(&self.den, fuel)?;
        Self {
            num: left.add(&right, fuel)?,
            den: self.den.mul(&other.den, fuel)?,
        }
        .tidy()
    }

    fn mul(&self, other: &Self, fuel: &mut Fuel) -> Option<Self> {
        Self {
            num: self.num.mul(&other.num, fuel)?,
            den: self.den.mul(&other.den, fuel)?,
        }
        .tidy()
    }

    fn invert(self) -> Option<Self> {
        if self.num.is_zero() {
            return None;
        }
        Self {
            num: self.den,
            den: self.num,
        }
        .tidy()
    }

    fn spelling(&self) -> String {
        format!("({})/({})", self.num.spelling(), self.den.spelling())
    }
}

fn canon(expr: &Expr, fuel: &mut Fuel) -> Option<Fraction> {
    fuel.burn(1)?;
    match expr {
        Expr::Number(value, _) => Some(Fraction::rational(*value)),
        Expr::Long(_) | Expr::Infinity | Expr::PlusMinus(_) => None,
        Expr::Pi => Some(Fraction::atom(Atom::Pi)),
        Expr::E => Some(Fraction::atom(Atom::E)),
        Expr::I => Some(Fraction::atom(Atom::I)),
        Expr::Variable(name) => Some(Fraction::atom(Atom::Variable(name.clone()))),
        Expr::Sum(parts) => parts
            .iter()
            .try_fold(Fraction::rational(Rational::ZERO), |sum, part| {
                sum.add(&canon(part, fuel)?, fuel)
            }),
        Expr::Product(parts) => parts
            .iter()
            .try_fold(Fraction::rational(Rational::ONE), |product, part| {
                product.mul(&canon(part, fuel)?, fuel)
            }),
        Expr::Negative(part) => {
            let Fraction { num, den } = canon(part, fuel)?;
            Some(Fraction {
                num: num.neg()?,
                den,
            })
        }
        Expr::Inverse(part) => canon(part, fuel)?.invert(),
        Expr::Power(base, exponent) => {
            let base = canon(base, fuel)?;
            let exponent = canon(exponent, fuel)?;
            power(base, &exponent, fuel)
        }
        Expr::Root(n, part) => root(*n, &canon(part, fuel)?, fuel),
        Expr::Call(function, part) => call(*function, &canon(part, fuel)?, fuel),
    }
}

/// Raises to a power: whole ones are multiplied out, others are known by their spelling.
fn power(base: Fraction, exponent: &Fraction, fuel: &mut Fuel) -> Option<Fraction> {
    let Some(value) = exponent.as_rational() else {
        return opaque(
            &format!("{}^{}", base.spelling(), exponent.spelling()),
            fuel,
        );
    };
    let whole = value.num();
    if whole.abs() > MAX_EXPONENT {
        return None;
    }
    let n = u32::try_from(whole.unsigned_abs()).ok()?;
    if n == 0 {
        // 0^0 has no value.
        return (!base.num.is_zero()).then(|| Fraction::rational(Rational::ONE));
    }
    let base = match value.den() {
        1 => base,
        // The even root of a negative number to a power is not the power's root.
        den => {
            let den = u32::try_from(den).ok().filter(|den| *den <= 64)?;
            if base.as_rational().is_some_and(|value| value.num() < 0) {
                return None;
            }
            root(den, &base, fuel)?
        }
    };
    let raised = Fraction {
        num: base.num.pow(n, fuel)?,
        den: base.den.pow(n, fuel)?,
    };
    if whole < 0 {
        raised.invert()
    } else {
        raised.tidy()
    }
}

/// Takes a root: of rationals as far as square roots of primes carry.
fn root(n: u32, part: &Fraction, fuel: &mut Fuel) -> Option<Fraction> {
    if let Some(value) = part.as_rational() {
        let sign = value.num() < 0;
        let (num, den) = (value.num().checked_abs()?, value.den());
        if let (Some(num), Some(den)) = (whole_root(num, n), whole_root(den, n)) {
            let exact = Fraction::rational(Rational::new(num, den)?);
            return match (sign, n) {
                (false, _) => Some(exact),
                (true, 2) => exact.mul(&Fraction::atom(Atom::I), fuel),
                (true, _) if !n.is_multiple_of(2) => {
                    exact.mul(&Fraction::rational(Rational::whole(-1)), fuel)
                }
                _ => None,
            };
        }
        if n == 2 {
            // The root of a/b is the root of ab, over b.
            let mut result = square_root(num.checked_mul(den)?, fuel)?;
            result = result.mul(&Fraction::rational(Rational::new(1, den)?), fuel)?;
            return if sign {
                result.mul(&Fraction::atom(Atom::I), fuel)
            } else {
                Some(result)
            };
        }
        if sign && n.is_multiple_of(2) {
            return None;
        }
    }
    opaque(&format!("root {n} of {}", part.spelling()), fuel)
}

/// Takes the square root of a positive whole number apart into roots of primes.
fn square_root(value: i128, fuel: &mut Fuel) -> Option<Fraction> {
    let mut result = Fraction::rational(Rational::ONE);
    let mut left = value;
    let mut prime = 2;
    while prime <= MAX_PRIME && prime * prime <= left {
        let mut count = 0;
        while left % prime == 0 {
            left /= prime;
            count += 1;
        }
        if count > 0 {
            let atom = Fraction::atom(Atom::Surd(prime));
            let raised = Fraction {
                num: atom.num.pow(count, fuel)?,
                den: atom.den,
            };
            result = result.mul(&raised, fuel)?;
        }
        prime += 1;
    }
    // What is left has no factor up to the last one tried: 1, a prime, a square, or not known.
    let rest = if left == 1 {
        return Some(result);
    } else if prime * prime > left {
        Fraction::atom(Atom::Surd(left))
    } else if let Some(whole) = whole_root(left, 2) {
        Fraction::rational(Rational::whole(whole))
    } else {
        opaque(&format!("root 2 of {left}"), fuel)?
    };
    result.mul(&rest, fuel)
}

/// Applies a function; all but a few values are known by their spelling.
fn call(function: Function, part: &Fraction, fuel: &mut Fuel) -> Option<Fraction> {
    match (function, part.as_rational()) {
        (Function::Abs, Some(value)) => {
            let value = if value.num() < 0 { value.neg()? } else { value };
            Some(Fraction::rational(value))
        }
        (Function::Exp, _) => power(Fraction::atom(Atom::E), part, fuel),
        _ => opaque(&format!("{function:?} {}", part.spelling()), fuel),
    }
}

/// Makes an atom of a spelling.
fn opaque(spelling: &str, fuel: &mut Fuel) -> Option<Fraction> {
    fuel.burn(spelling.len() / 8)?;
    (spelling.len() <= MAX_SPELLING).then(|| Fraction::atom(Atom::Opaque(spelling.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{lex::lex, parse::expression},
        *,
    };

    fn form(text: &str) -> Fraction {
        let expr = expression(&lex(text).expect("readable")).expect("an expression");
        Fraction::of(&expr).expect("an exact form")
    }

    fn same(a: &str, b: &str) -> Option<bool> {
        form(a).same(&form(b))
    }

    #[test]
    fn one_value_has_one_form() {
        for (a, b) in [
            ("(x+1)^2", "x^2 + 2x + 1"),
            ("\\frac{x+2}{7}", "\\frac{x}{7}+\\frac27"),
            ("\\frac{1}{\\sqrt3}", "\\frac{\\sqrt{3}}{3}"),
            ("\\sqrt{50}", "5\\sqrt2"),
            ("\\sqrt6", "\\sqrt2\\sqrt3"),
            ("\\sqrt{\\frac{3}{4}}", "\\frac{\\sqrt3}{2}"),
            ("\\sqrt{-4}", "2i"),
            ("(1+i)^2", "2i"),
            ("\\sqrt[3]{-8}", "-2"),
            ("\\frac{x^2-1}{x-1}", "x+1"),
            ("2^{-3}", "\\frac18"),
            ("\\cot x + 1", "1 + \\cot(x)"),
            ("8^{2/3}", "4"),
        ] {
            assert_eq!(same(a, b), Some(true), "of {a} and {b}");
        }
        assert_eq!(same("x+1", "x+2"), Some(false));
        assert_eq!(same("\\sqrt2", "\\sqrt3"), Some(false));
    }

    #[test]
    fn what_has_no_value_has_no_form() {
        for text in [
            "\\frac{1}{0}",
            "0^0",
            "(-2)^{1/2}",
            "\\sqrt[4]{-2}",
            "2^{100000}",
        ] {
            let expr = expression(&lex(text).expect("readable")).expect("an expression");
            assert!(Fraction::of(&expr).is_none(), "of {text}");
        }
    }

    #[test]
    fn large_primes_under_a_root_are_handled() {
        assert_eq!(same("\\sqrt{200000033}", "\\sqrt{200000033}"), Some(true));
        assert!(!form("\\sqrt{1000000016000000063}").is_complete());
    }
}
