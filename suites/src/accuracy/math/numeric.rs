//! Evaluates expressions to complex floats with a bound on the error.

use std::f64::consts;

use super::expr::{Expr, Function};

/// The relative error charged for one floating-point operation, a few units in the last place.
const EPSILON: f64 = 8.0 * f64::EPSILON;
/// Largest whole exponent.
const MAX_EXPONENT: f64 = 1e6;

/// A complex number and a bound on the distance to the true value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Approx {
    re: f64,
    im: f64,
    error: f64,
}

impl Approx {
    /// Makes a number that is exact up to rounding.
    fn real(re: f64) -> Self {
        let exact = re.fract() == 0.0 && re.abs() < 9e15;
        Self {
            re,
            im: 0.0,
            error: if exact { 0.0 } else { EPSILON * re.abs() },
        }
    }

    /// Returns the absolute value.
    pub(super) fn size(self) -> f64 {
        self.re.hypot(self.im)
    }

    /// Returns the value where it is surely real, with its error.
    pub(super) fn as_real(self) -> Option<(f64, f64)> {
        (self.im == 0.0).then_some((self.re, self.error))
    }

    /// Tells whether the two are within `relative` of the larger, or `None` where the errors leave
    /// both possible.
    pub(super) fn is_close(self, other: Self, relative: f64) -> Option<bool> {
        let distance = (self.re - other.re).hypot(self.im - other.im);
        let tolerance = relative * self.size().max(other.size());
        let noise = 2.0 * (self.error + other.error);
        if distance + noise <= tolerance {
            Some(true)
        } else if distance - noise > tolerance {
            Some(false)
        } else {
            None
        }
    }

    fn checked(self) -> Result<Self, String> {
        if self.re.is_finite() && self.im.is_finite() && self.error.is_finite() {
            Ok(self)
        } else {
            Err("a value is too large".to_owned())
        }
    }

    fn add(self, other: Self) -> Self {
        let (re, im) = (self.re + other.re, self.im + other.im);
        Self {
            re,
            im,
            error: self.error + other.error + EPSILON * re.hypot(im),
        }
    }

    fn mul(self, other: Self) -> Self {
        let re = self.re * other.re - self.im * other.im;
        let im = self.re * other.im + self.im * other.re;
        let (a, b) = (self.size(), other.size());
        let error = a * other.error + b * self.error + self.error * other.error + EPSILON * a * b;
        Self { re, im, error }
    }

    fn invert(self) -> Result<Self, String> {
        let size = self.size();
        if size <= 2.0 * self.error || size == 0.0 {
            return Err("a division by nought".to_owned());
        }
        let square = size * size;
        let error = self.error / (size * (size - self.error)) + EPSILON / size;
        Self {
            re: self.re / square,
            im: -self.im / square,
            error,
        }
        .checked()
    }

    fn whole_power(self, exponent: u32) -> Result<Self, String> {
        let mut result = Self::real(1.0);
        let (mut square, mut left) = (self, exponent);
        while left > 0 {
            if left & 1 == 1 {
                result = result.mul(square).checked()?;
            }
            left >>= 1;
            if left > 0 {
                square = square.mul(square).checked()?;
            }
        }
        Ok(result)
    }

    /// Applies a real function whose slope near here is at most `slope`.
    fn mapped(value: f64, error: f64, slope: f64) -> Result<Self, String> {
        Self {
            re: value,
            im: 0.0,
            error: 2.0 * error * slope + EPSILON * value.abs(),
        }
        .checked()
    }
}

/// Evaluates `expr` with the variables that `value_of` knows.
pub(super) fn evaluate(
    expr: &Expr,
    value_of: &impl Fn(&str) -> Option<f64>,
) -> Result<Approx, String> {
    let eval = |part: &Expr| evaluate(part, value_of);
    match expr {
        Expr::Number(value, _) => {
            let near = Approx::real(value.to_f64());
            Ok(if value.den() == 1 {
                near
            } else {
                Approx {
                    error: EPSILON * near.re.abs(),
                    ..near
                }
            })
        }
        Expr::Long(value) => Ok(Approx {
            error: EPSILON * value.abs(),
            ..Approx::real(*value)
        }),
        Expr::Pi => Ok(Approx::real(consts::PI)),
        Expr::E => Ok(Approx::real(consts::E)),
        Expr::I => Ok(Approx {
            re: 0.0,
            im: 1.0,
            error: 0.0,
        }),
        Expr::Infinity => Err("infinity inside an expression".to_owned()),
        Expr::PlusMinus(_) => Err("a plus-or-minus sign inside an expression".to_owned()),
        Expr::Variable(name) => value_of(name)
            .map(Approx::real)
            .ok_or_else(|| format!("the variable `{name}` has no value")),
        Expr::Sum(parts) => parts.iter().try_fold(Approx::real(0.0), |sum, part| {
            sum.add(eval(part)?).checked()
        }),
        Expr::Product(parts) => parts.iter().try_fold(Approx::real(1.0), |product, part| {
            product.mul(eval(part)?).checked()
        }),
        Expr::Negative(part) => {
            let Approx { re, im, error } = eval(part)?;
            Ok(Approx {
                re: -re,
                im: 0.0 - im,
                error,
            })
        }
        Expr::Inverse(part) => eval(part)?.invert(),
        Expr::Power(base, exponent) => power(eval(base)?, eval(exponent)?),
        Expr::Root(n, part) => root(*n, eval(part)?),
        Expr::Call(function, part) => call(*function, eval(part)?),
    }
}

fn power(base: Approx, exponent: Approx) -> Result<Approx, String> {
    let Some((n, n_error)) = exponent.as_real() else {
        return Err("a complex exponent".to_owned());
    };
    if n_error == 0.0 && n.fract() == 0.0 && n.abs() <= MAX_EXPONENT {
        if n == 0.0 && base.size() <= base.error {
            return Err("nought to the power of nought".to_owned());
        }
        #[expect(clippy::cast_sign_loss, reason = "an absolute value")]
        let raised = base.whole_power(n.abs() as u32)?;
        return if n < 0.0 { raised.invert() } else { Ok(raised) };
    }
    match base.as_real() {
        Some((x, error)) if x > 2.0 * error => {
            let value = x.powf(n);
            let relative =
                n.abs() * error / (x - error) + x.ln().abs() * n_error + EPSILON * (1.0 + n.abs());
            if relative > 1e-3 {
                return Err("a power is not exact enough".to_owned());
            }
            Approx {
                re: value,
                im: 0.0,
                error: 2.0 * relative * value,
            }
            .checked()
        }
        _ => Err("a power of a base that is not positive".to_owned()),
    }
}

fn root(n: u32, part: Approx) -> Result<Approx, String> {
    let Some((x, error)) = part.as_real() else {
        return Err("a root of a complex number".to_owned());
    };
    if x == 0.0 && error == 0.0 {
        return Ok(part);
    }
    if x.abs() <= 2.0 * error {
        return Err("a root of something too near to nought".to_owned());
    }
    let size = x.abs().powf(1.0 / f64::from(n));
    let error = 2.0 * size * (error / (x.abs() - error) + EPSILON);
    match (x > 0.0, n) {
        (true, _) => Ok(Approx {
            re: size,
            im: 0.0,
            error,
        }),
        (false, 2) => Ok(Approx {
            re: 0.0,
            im: size,
            error,
        }),
        (false, _) if !n.is_multiple_of(2) => Ok(Approx {
            re: -size,
            im: 0.0,
            error,
        }),
        _ => Err("an even root of a negative number".to_owned()),
    }
}

fn call(function: Function, part: Approx) -> Result<Approx, String> {
    let (x, error) = match part.as_real() {
        Some(real) => real,
        None if function == Function::Abs => {
            let size = part.size();
            let error = part.error + EPSILON * size;
            return Ok(Approx {
                re: size,
                im: 0.0,
                error,
            });
        }
        None => return Err("a function of a complex number".to_owned()),
    };
    if function != Function::Abs && (x.abs() > 1e6 || error > 1e-3) {
        return Err("the argument of a function is too large or not exact enough".to_owned());
    }
    let angle = |value: f64| Approx {
        re: value,
        im: 0.0,
        error: error + EPSILON * (1.0 + x.abs()),
    };
    let (sin, cos) = (angle(x.sin()), angle(x.cos()));
    match function {
        Function::Sin => Ok(sin),
        Function::Cos => Ok(cos),
        Function::Tan => Ok(sin.mul(cos.invert()?)),
        Function::Cot => Ok(cos.mul(sin.invert()?)),
        Function::Sec => cos.invert(),
        Function::Csc => sin.invert(),
        Function::Arctan => Approx::mapped(x.atan(), error, 1.0),
        Function::Arcsin | Function::Arccos => {
            let value = if function == Function::Arcsin {
                x.asin()
            } else {
                x.acos()
            };
            let room = 1.0 - x * x;
            if room == 0.0 && error == 0.0 {
                return Ok(Approx {
                    error: EPSILON * 4.0,
                    ..Approx::real(value)
                });
            }
            if room <= 4.0 * error + 1e-12 {
                return Err("an inverse function at or beyond its end".to_owned());
            }
            Approx::mapped(value, error + EPSILON, 2.0 / room.sqrt())
        }
        Function::Ln if x > 2.0 * error => {
            Approx::mapped(x.ln(), error + EPSILON * x, 1.0 / (x - error))
        }
        Function::Ln => Err("a logarithm of something that is not positive".to_owned()),
        Function::Log => Err("a logarithm that does not say its base".to_owned()),
        Function::Exp => Approx::mapped(x.exp(), error + EPSILON * (1.0 + x.abs()), x.exp()),
        Function::Abs => Ok(Approx {
            re: x.abs(),
            im: 0.0,
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{lex::lex, parse::expression},
        *,
    };

    fn value(text: &str) -> Result<Approx, String> {
        evaluate(
            &expression(&lex(text).expect("readable")).expect("an expression"),
            &|name| (name == "x").then_some(0.5),
        )
    }

    #[test]
    fn values_are_within_their_error() {
        for (text, expected) in [
            ("\\frac{1}{3}", 1.0 / 3.0),
            ("\\sqrt[3]{-27}", -3.0),
            ("\\sin\\frac{\\pi}{6}", 0.5),
            ("\\log_2 8", 3.0),
            ("|3 - 5|", 2.0),
            ("i^2", -1.0),
            ("4x^2", 1.0),
            ("2^{0.5}", consts::SQRT_2),
            ("\\arctan 1", consts::FRAC_PI_4),
            ("e^{\\ln 2}", 2.0),
        ] {
            let got = value(text).expect("a value");
            assert!(
                (got.re - expected).hypot(got.im) <= 2.0 * got.error + 1e-15,
                "of {text}: {got:?}"
            );
            assert!(got.error < 1e-12, "of {text}: {got:?}");
        }
    }

    #[test]
    fn what_has_no_value_says_why() {
        for text in [
            "\\frac10",
            "\\ln 0",
            "\\log 5",
            "(-8)^{0.3}",
            "\\arcsin 2",
            "2^{9999}",
            "y",
            "\\frac{1}{\\sin\\pi}",
        ] {
            assert!(value(text).is_err(), "of {text}");
        }
    }

    #[test]
    fn closeness_is_open_where_errors_are_large() {
        let (a, b) = (
            value("\\sqrt2\\sqrt2-2").expect("a value"),
            value("0").expect("a value"),
        );
        assert_eq!(a.is_close(b, 1e-4), None);
        assert_eq!(
            value("1.0")
                .expect("a value")
                .is_close(value("1.00005").expect("a value"), 1e-4),
            Some(true)
        );
        assert_eq!(
            value("1")
                .expect("a value")
                .is_close(value("1.001").expect("a value"), 1e-4),
            Some(false)
        );
    }
}
