//! The verdict on two answers.

use super::{
    Equality,
    canon::Fraction,
    expr::Expr,
    normalize::{Normal, normalize},
    value::Value,
};

mod numbers;
mod parts;
mod words;

use numbers::expressions;

/// Compares two answers that are not the same text.
pub(super) fn answers(given: &str, right: &str) -> Equality {
    let sides = (normalize(given), normalize(right));
    if let (Ok(a), Ok(b)) = &sides
        && a.tokens == b.tokens
    {
        return if a.tokens.is_empty() {
            Equality::undecided("there is nothing to compare")
        } else {
            units(a, b)
        };
    }
    let values = (read(&sides.0), read(&sides.1));
    if matches!(values.0, Ok(Value::Text(_))) || matches!(values.1, Ok(Value::Text(_))) {
        return words::answers((given, &values.0), (right, &values.1));
    }
    let (a, b) = match (&sides, values) {
        ((Ok(a), Ok(b)), (Ok(given), Ok(right))) => ((a, given), (b, right)),
        (_, (Err(reason), _)) => return Equality::undecided(format!("the given answer: {reason}")),
        (_, (_, Err(reason))) => return Equality::undecided(format!("the right answer: {reason}")),
        _ => return Equality::undecided("there is nothing to compare"),
    };
    verdict(a, b)
}

/// Compares two answers that were read.
fn verdict((a, given): (&Normal, Value), (b, right): (&Normal, Value)) -> Equality {
    let verdict = match (&given, &right) {
        (Value::Expr(given), Value::Expr(right)) => {
            numbers::percentages((given, a.percent), (right, b.percent))
        }
        _ => values(&given, &right),
    };
    match verdict {
        Equality::Equal => units(a, b),
        Equality::Different if a.unit.is_some() && b.unit.is_some() && a.unit != b.unit => {
            units(a, b)
        }
        Equality::Different if a.degree != b.degree && same_angle((&given, a), (&right, b)) => {
            Equality::undecided("an angle in degrees against the same in what may be radians")
        }
        Equality::Different if folded(a) == folded(b) => {
            Equality::undecided("they differ in upper and lower case only")
        }
        verdict => verdict,
    }
}

/// Reads the value of an answer that was cut into symbols.
fn read(normal: &Result<Normal, String>) -> Result<Value, String> {
    Value::read(&normal.as_ref().map_err(Clone::clone)?.tokens)
}

/// Judges two answers that are equal but for their units.
fn units(a: &Normal, b: &Normal) -> Equality {
    match (&a.unit, &b.unit) {
        (Some(given), Some(right)) if given != right => {
            Equality::undecided(format!("the units differ: `{given}` and `{right}`"))
        }
        _ => Equality::Equal,
    }
}

/// Returns the symbols without upper case.
fn folded(normal: &Normal) -> String {
    format!("{:?}", normal.tokens).to_lowercase()
}

/// Tells whether the side with the degree sign is not surely another angle than the other side in
/// radians.
fn same_angle((given, a): (&Value, &Normal), (right, _): (&Value, &Normal)) -> bool {
    let (degrees, radians) = if a.degree {
        (given, right)
    } else {
        (right, given)
    };
    let (Some(degrees), Some(radians)) = (degrees.as_expr(), radians.as_expr()) else {
        return false;
    };
    let turned = vec![
        degrees.clone(),
        Expr::Pi,
        Expr::Inverse(Box::new(Expr::whole(180))),
    ];
    expressions(&Expr::Product(turned), radians) != Equality::Different
}

/// Compares two values.
fn values(given: &Value, right: &Value) -> Equality {
    use Value::{Based, Equation, List, Matrix, Mixed, Named, Relation, Set, Text, Tuple, Union};
    match (given, right) {
        (Value::Expr(a), Value::Expr(b)) => expressions(a, b),
        (Text(a), Text(b)) => words::texts(a, b),
        (Named(a, given), Named(b, right)) => named((a, given), (b, right)),
        (Named(name, value), other) | (other, Named(name, value)) => match other {
            Equation(left, right) => match value.as_expr() {
                Some(value) => equations((name, value), (left, right)),
                None => Equality::undecided("an equation against something else"),
            },
            Relation(..) => Equality::undecided("an equation against another relation"),
            other => values(value, other),
        },
        (Equation(a, b), Equation(c, d)) => equations((a, b), (c, d)),
        (Relation(a, signs), Relation(b, others)) if signs == others && a.len() == b.len() => {
            match parts::all(a.iter().zip(b).map(|(a, b)| expressions(a, b))) {
                Equality::Equal => Equality::Equal,
                _ => Equality::undecided("two relations that are not the same"),
            }
        }
        (Equation(a, b), Value::Expr(other)) | (Value::Expr(other), Equation(a, b)) => {
            // A value may solve an equation in one variable, and nothing else.
            let mut names = a.variables();
            names.extend(b.variables());
            names.sort();
            names.dedup();
            if names.len() > 1 && other.variables().is_empty() {
                Equality::Different
            } else {
                Equality::undecided("an equation against a formula")
            }
        }
        (Equation(..) | Relation(..), _) | (_, Equation(..) | Relation(..)) => {
            Equality::undecided("a relation against something else")
        }
        (Mixed(..), _) | (_, Mixed(..)) => numbers::mixed(given, right),
        (Based(..), _) | (_, Based(..)) => numbers::based(given, right),
        (Tuple(open, a, close), Tuple(left, b, end)) => {
            parts::tuples((*open, a, *close), (*left, b, *end))
        }
        (Matrix(a), Matrix(b)) => parts::matrices(a, b),
        (Set(a) | List(a), Set(b) | List(b)) => parts::multisets(a, b),
        (Union(_) | Tuple(..), Union(_) | Tuple(..)) => parts::unions(given, right),
        (Tuple(_, a, _), Set(b) | List(b)) | (Set(b) | List(b), Tuple(_, a, _)) => parts::unlike(
            parts::multisets(a, b),
            "a tuple against a list of the same parts",
        ),
        (Tuple(_, a, _), Matrix(rows)) | (Matrix(rows), Tuple(_, a, _)) => {
            let cells: Vec<Value> = rows.iter().flatten().cloned().collect();
            parts::unlike(
                parts::in_order(a, &cells),
                "a tuple against a matrix of the same parts",
            )
        }
        (List(a), Union(b)) | (Union(b), List(a)) => parts::unlike(
            parts::unions(&Union(a.clone()), &Union(b.clone())),
            "a list of intervals against their union",
        ),
        (Set(a) | List(a), other) | (other, Set(a) | List(a)) => parts::unlike(
            parts::multisets(a, std::slice::from_ref(other)),
            "a list against its only part",
        ),
        (Tuple(_, a, _), other) | (other, Tuple(_, a, _)) => match a.as_slice() {
            [part] => parts::unlike(values(part, other), "one part in brackets against the part"),
            _ => Equality::Different,
        },
        (Matrix(rows), other) | (other, Matrix(rows)) => match rows.as_slice() {
            [row] if row.len() == 1 => {
                parts::unlike(values(&row[0], other), "a matrix against its only part")
            }
            _ => Equality::Different,
        },
        (Union(_) | Text(_), _) | (_, Union(_) | Text(_)) => Equality::Different,
    }
}

/// Compares `x = 5` with `x = 5`; of two names, the values alone do not tell.
fn named((a, given): (&Expr, &Value), (b, right): (&Expr, &Value)) -> Equality {
    let same = values(given, right);
    if a == b {
        return same;
    }
    match (given.as_expr(), right.as_expr()) {
        _ if same == Equality::Equal => Equality::undecided("equal values of two names"),
        (Some(c), Some(d)) => equations((a, c), (b, d)),
        _ => Equality::undecided("values of two names"),
    }
}

/// Compares two equations by the difference of their sides, up to its sign.
///
/// A rational factor leaves the solutions as they are, but a problem may ask for one form. Linear
/// equations that are no multiples of each other have other solutions.
fn equations((a, b): (&Expr, &Expr), (c, d): (&Expr, &Expr)) -> Equality {
    let difference = |left: &Expr, right: &Expr| -> Option<Fraction> {
        Fraction::of(left)?.minus(&Fraction::of(right)?)
    };
    let (Some(first), Some(second)) = (difference(a, b), difference(c, d)) else {
        return Equality::undecided("two equations that have no exact form");
    };
    if first.same(&second) == Some(true) {
        return Equality::Equal;
    }
    let (whole, polynomial) = (
        |form: &Fraction| form.den.as_rational().is_some(),
        |form: &Fraction| form.is_complete(),
    );
    if [&first, &second]
        .into_iter()
        .all(|form| whole(form) && polynomial(form))
    {
        match first.num.ratio(&second.num) {
            Some(factor) if factor.num() == -1 && factor.den() == 1 => return Equality::Equal,
            Some(_) => {
                return Equality::undecided("two equations that are multiples of each other");
            }
            None if first.num.is_plain_linear() && second.num.is_plain_linear() => {
                return Equality::Different;
            }
            None => {}
        }
    }
    Equality::undecided("two equations that are not the same but may have the same solutions")
}
