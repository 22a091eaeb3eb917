//! Numbers and formulas against each other.

use super::super::{
    Equality,
    canon::Fraction,
    expr::Expr,
    numeric::{Approx, evaluate},
    rational::Rational,
    value::Value,
};

/// How far two numbers may be apart, relative to the larger; the harness' `isclose(rel_tol=1e-4)`.
const TOLERANCE: f64 = 1e-4;

/// How far two values of a formula must be apart at a point to be different there, relative to the
/// larger: far above the tracked error, far below any difference of two formulas that people write.
const MARGIN: f64 = 1e-7;

/// Values of the first variable at the sample points; others take the ones that follow.
///
/// Positive, negative and whole ones, as a problem may mean its variables to be only one of these.
const SAMPLES: [f64; 11] = [
    0.618_25, 1.375, 2.734_375, 0.171_875, 3.0, 2.0, 5.0, 7.0, -1.414, -0.3125, -2.0,
];

/// Compares two whole answers, where a percentage counts as a hundredth too.
///
/// As in the harness the rule holds for any two numbers in digits. Where a percent sign was written
/// it holds for fractions too: 50 % is one half.
pub(super) fn percentages(
    (given, given_mark): (&Expr, bool),
    (right, right_mark): (&Expr, bool),
) -> Equality {
    let verdict = expressions(given, right);
    if verdict != Equality::Different {
        return verdict;
    }
    let (Some(a), Some(b)) = (rational(given), rational(right)) else {
        return verdict;
    };
    let hundred = Rational::whole(100);
    let times = |value: Rational, other: Rational| {
        value.mul(hundred).is_some_and(|value| close(value, other)) && !value.is_zero()
    };
    let plain = digits(given) && digits(right);
    let (up, down) = (times(a, b), times(b, a));
    if (plain && (up || down))
        || (given_mark && !right_mark && down)
        || (right_mark && !given_mark && up)
    {
        return Equality::Equal;
    }
    verdict
}

/// Compares two formulas.
pub(super) fn expressions(given: &Expr, right: &Expr) -> Equality {
    if given == right {
        return Equality::Equal;
    }
    if let Some(verdict) = infinities(given, right) {
        return verdict;
    }
    if let (Some(a), Some(b)) = (rational(given), rational(right)) {
        // Two exact fractions are the same or not; a decimal may have been rounded.
        let rounded = (digits(given) && digits(right)) || has_decimal(given) || has_decimal(right);
        return decided(a == b || (rounded && close(a, b)));
    }
    let forms = Fraction::of(given).zip(Fraction::of(right));
    let same = forms.as_ref().and_then(|(a, b)| a.same(b));
    if same == Some(true) {
        return Equality::Equal;
    }
    let mut names = given.variables();
    names.extend(right.variables());
    names.sort();
    names.dedup();
    if names.is_empty() {
        return constants(given, right);
    }
    let complete = forms.is_some_and(|(a, b)| a.is_complete() && b.is_complete());
    if same == Some(false) && complete {
        return Equality::Different;
    }
    sampled(given, right, &names)
}

/// Compares two constants by their values.
fn constants(given: &Expr, right: &Expr) -> Equality {
    let value = |expr: &Expr| evaluate(expr, &|_| None);
    match (value(given), value(right)) {
        (Ok(a), Ok(b)) => match a.is_close(b, TOLERANCE) {
            Some(close) => decided(close),
            None => Equality::undecided("the values are too near to nought to tell"),
        },
        (Err(reason), _) => Equality::undecided(format!("the given answer: {reason}")),
        (_, Err(reason)) => Equality::undecided(format!("the right answer: {reason}")),
    }
}

/// Compares two formulas at sample points.
///
/// Values that are further apart than [`MARGIN`] and the tracked error do differ at that point. Only
/// where they differ at every point are the formulas called different, as at some points alone the
/// problem's domain would decide (`\sqrt{x^2}` and `x`).
fn sampled(given: &Expr, right: &Expr, names: &[String]) -> Equality {
    let (mut same, mut different) = (0, 0);
    for start in 0..SAMPLES.len() {
        let value_of = |name: &str| {
            let at = names.iter().position(|other| other == name)?;
            // Beyond the table's length the values would come again: x against another variable.
            let round = (at / SAMPLES.len()) as f64;
            Some(SAMPLES[(start + at) % SAMPLES.len()] + round)
        };
        let (Ok(a), Ok(b)) = (evaluate(given, &value_of), evaluate(right, &value_of)) else {
            continue;
        };
        match a.is_close(b, MARGIN) {
            Some(true) => same += 1,
            Some(false) if far(a, b) => different += 1,
            _ => {}
        }
    }
    match (same, different) {
        (0, 4..) => Equality::Different,
        (_, 0) if same > 0 => Equality::undecided("equal at sample points, which proves nothing"),
        (0, _) => Equality::undecided("there are too few points at which both have a value"),
        _ => Equality::undecided("equal at some sample points only, so that the domain decides"),
    }
}

/// Tells whether two values are apart by more than the margin in absolute terms too.
fn far(a: Approx, b: Approx) -> bool {
    a.size().max(b.size()) > 1e-9
}

/// Judges where either side is infinite as a whole.
fn infinities(given: &Expr, right: &Expr) -> Option<Equality> {
    let sign = |expr: &Expr| match expr {
        Expr::Infinity => Some(true),
        Expr::Negative(part) if **part == Expr::Infinity => Some(false),
        _ => None,
    };
    match (sign(given), sign(right)) {
        (Some(a), Some(b)) => Some(decided(a == b)),
        (Some(_), None) | (None, Some(_)) => {
            let other = if sign(given).is_some() { right } else { given };
            let inside = other.any(&|part| *part == Expr::Infinity);
            Some(if inside {
                Equality::undecided("infinity inside an expression")
            } else {
                Equality::Different
            })
        }
        (None, None) => None,
    }
}

/// Compares where one side is a mixed number, which has two readings.
///
/// Two mixed numbers are read alike. Against anything else they are equal only if both readings are.
pub(super) fn mixed(given: &Value, right: &Value) -> Equality {
    if let (Value::Mixed(a, b), Value::Mixed(c, d)) = (given, right) {
        return match (a == c, b == d) {
            (true, true) => Equality::Equal,
            (false, false) => Equality::Different,
            _ => Equality::undecided("a whole number before a fraction has two readings"),
        };
    }
    let ((Value::Mixed(sum, product), other) | (other, Value::Mixed(sum, product))) =
        (given, right)
    else {
        return Equality::undecided("not a mixed number");
    };
    let Value::Expr(other) = other else {
        return Equality::Different;
    };
    let against = |value: &Rational| expressions(&Expr::Number(*value, false), other);
    match (against(sum), against(product)) {
        (Equality::Equal, Equality::Equal) => Equality::Equal,
        (Equality::Different, Equality::Different) => Equality::Different,
        _ => Equality::undecided("a whole number before a fraction has two readings"),
    }
}

/// Compares where one side is a number in a written base. No tolerance: such numbers are exact.
pub(super) fn based(given: &Value, right: &Value) -> Equality {
    match (given, right) {
        (Value::Based(a, _, base), Value::Based(b, _, other)) if base == other => decided(a == b),
        (Value::Based(a, ..), Value::Based(b, ..)) if a == b => {
            Equality::undecided("the same number in two bases, of which one may be asked for")
        }
        (Value::Based(value, plain, _), Value::Expr(other))
        | (Value::Expr(other), Value::Based(value, plain, _)) => {
            let against = |value: i128| expressions(&Expr::whole(value), other);
            match (against(*value), against(*plain)) {
                (Equality::Different, Equality::Different) => Equality::Different,
                _ => Equality::undecided("the base is written on one side only"),
            }
        }
        _ => Equality::Different,
    }
}

/// Makes a verdict of a decision.
fn decided(equal: bool) -> Equality {
    if equal {
        Equality::Equal
    } else {
        Equality::Different
    }
}

/// Tells whether two fractions are within the tolerance.
fn close(a: Rational, b: Rational) -> bool {
    let (a, b) = (a.to_f64(), b.to_f64());
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

/// Returns the exact value where it is rational.
fn rational(expr: &Expr) -> Option<Rational> {
    let form = Fraction::of(expr)?;
    form.num.as_rational()?.div(form.den.as_rational()?)
}

/// Tells whether this is a number in digits and nothing else.
fn digits(expr: &Expr) -> bool {
    match expr {
        Expr::Number(..) | Expr::Long(_) => true,
        Expr::Negative(part) => digits(part),
        _ => false,
    }
}

/// Tells whether a decimal point is in it.
fn has_decimal(expr: &Expr) -> bool {
    expr.any(&|part| matches!(part, Expr::Number(_, true)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{lex::lex, parse::expression},
        *,
    };

    fn check(a: &str, b: &str, expected: &Equality) {
        let expr = |text: &str| expression(&lex(text).expect("readable")).expect("an expression");
        assert_eq!(&expressions(&expr(a), &expr(b)), expected, "of {a} and {b}");
        assert_eq!(&expressions(&expr(b), &expr(a)), expected, "of {b} and {a}");
    }

    #[test]
    fn fractions_are_exact_and_decimals_are_not() {
        check("\\frac{10001}{2}", "\\frac{10002}{2}", &Equality::Different);
        check("\\frac{10001}{3}", "3333.7", &Equality::Equal);
        check("13535", "13536", &Equality::Equal);
        check("13535", "13537", &Equality::Different);
        check("-\\infty", "\\infty", &Equality::Different);
        check("5", "\\infty", &Equality::Different);
    }

    #[test]
    fn formulas_beyond_the_exact_form_are_sampled() {
        let proves_nothing = Equality::undecided("equal at sample points, which proves nothing");
        check("\\sin^2 x + \\cos^2 x", "1", &proves_nothing);
        check("\\sin 2x", "\\cos x", &Equality::Different);
        check("\\cot x", "\\tan x", &Equality::Different);
        check(
            "\\sqrt{x^2}",
            "x",
            &Equality::undecided("equal at some sample points only, so that the domain decides"),
        );
        check(
            "\\log x",
            "x",
            &Equality::undecided("there are too few points at which both have a value"),
        );
    }
}
