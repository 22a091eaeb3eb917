//! Values made of parts against each other.

use super::{
    super::{Equality, expr::Expr, numeric::evaluate, value::Value},
    values,
};

/// Joins the verdicts on parts: one that is different decides, one that is undecided leaves open.
pub(super) fn all(verdicts: impl Iterator<Item = Equality>) -> Equality {
    let mut joined = Equality::Equal;
    for verdict in verdicts {
        match verdict {
            Equality::Different => return Equality::Different,
            Equality::Undecided { .. } if joined == Equality::Equal => joined = verdict,
            _ => {}
        }
    }
    joined
}

/// Judges two values of unlike kinds whose parts compare as `verdict`.
pub(super) fn unlike(verdict: Equality, reason: &str) -> Equality {
    match verdict {
        Equality::Equal => Equality::undecided(reason),
        verdict => verdict,
    }
}

/// Compares parts one by one.
pub(super) fn in_order(given: &[Value], right: &[Value]) -> Equality {
    if given.len() != right.len() {
        return Equality::Different;
    }
    all(given.iter().zip(right).map(|(a, b)| values(a, b)))
}

/// Compares tuples and intervals. Of two parts the brackets say what an interval holds; of any other
/// number they are a matter of taste, but nothing says so.
pub(super) fn tuples(given: (char, &[Value], char), right: (char, &[Value], char)) -> Equality {
    let verdict = in_order(given.1, right.1);
    if (given.0, given.2) == (right.0, right.2) {
        return verdict;
    }
    if given.1.len() == 2 && given.0 != '<' && right.0 != '<' {
        return Equality::Different;
    }
    unlike(verdict, "the same parts in other brackets")
}

/// Compares matrices.
pub(super) fn matrices(given: &[Vec<Value>], right: &[Vec<Value>]) -> Equality {
    if given.len() != right.len() {
        let (a, b): (Vec<_>, Vec<_>) = (
            given.iter().flatten().cloned().collect(),
            right.iter().flatten().cloned().collect(),
        );
        let vectors = [given, right]
            .iter()
            .all(|rows| rows.len() == 1 || rows.iter().all(|row| row.len() == 1));
        return if vectors {
            unlike(in_order(&a, &b), "a row against a column")
        } else {
            Equality::Different
        };
    }
    all(given.iter().zip(right).map(|(a, b)| in_order(a, b)))
}

/// Compares parts in no order, each as often as it is there.
pub(super) fn multisets(given: &[Value], right: &[Value]) -> Equality {
    let table: Vec<Vec<Equality>> = given
        .iter()
        .map(|a| right.iter().map(|b| values(a, b)).collect())
        .collect();
    if given.len() != right.len() {
        let rows = table
            .iter()
            .all(|row| row.iter().any(|verdict| *verdict != Equality::Different));
        let columns =
            (0..right.len()).all(|at| table.iter().any(|row| row[at] != Equality::Different));
        let open = rows && columns && !given.is_empty() && !right.is_empty();
        return if open {
            Equality::undecided("the same parts, some more than once")
        } else {
            Equality::Different
        };
    }
    let mut free: Vec<usize> = (0..right.len()).collect();
    let mut left = Vec::new();
    for row in &table {
        match free.iter().position(|at| row[*at] == Equality::Equal) {
            Some(found) => {
                free.remove(found);
            }
            None => left.push(row),
        }
    }
    if left.is_empty() {
        return Equality::Equal;
    }
    let hopeless = |row: &&Vec<Equality>| row.iter().all(|verdict| *verdict == Equality::Different);
    let lonely = |at: &usize| table.iter().all(|row| row[*at] == Equality::Different);
    if left.iter().any(hopeless) || free.iter().any(lonely) {
        return Equality::Different;
    }
    // The open pairs say why, and where there are none the same parts are there in other numbers.
    let open = left.iter().flat_map(|row| free.iter().map(|at| &row[*at]));
    match open
        .into_iter()
        .find(|verdict| matches!(verdict, Equality::Undecided { .. }))
    {
        Some(verdict) => verdict.clone(),
        None => Equality::Different,
    }
}

/// Compares unions of intervals. The same pieces are equal; other pieces are another set only where
/// both unions are written with pieces that neither meet nor overlap.
pub(super) fn unions(given: &Value, right: &Value) -> Equality {
    let pieces = |value: &Value| match value {
        Value::Union(pieces) => pieces.clone(),
        other => vec![other.clone()],
    };
    let (a, b) = (pieces(given), pieces(right));
    match multisets(&a, &b) {
        Equality::Different if !(apart(&a) && apart(&b)) => Equality::undecided(
            "two unions whose pieces are not the same but may make up the same set",
        ),
        verdict => verdict,
    }
}

/// Tells whether the pieces are intervals of numbers that neither meet nor overlap.
fn apart(pieces: &[Value]) -> bool {
    let mut spans = Vec::new();
    for piece in pieces {
        let Value::Tuple(open @ ('(' | '['), ends, close @ (')' | ']')) = piece else {
            return false;
        };
        let [Value::Expr(low), Value::Expr(high)] = ends.as_slice() else {
            return false;
        };
        let (Some(low), Some(high)) = (end(low), end(high)) else {
            return false;
        };
        if low >= high {
            return false;
        }
        spans.push((low, *open, high, *close));
    }
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    spans.windows(2).all(|pair| {
        let ((_, _, high, close), (low, open, _, _)) = (pair[0], pair[1]);
        high < low - 1e-9 || ((high - low).abs() <= 1e-9 && close == ')' && open == '(')
    })
}

/// Returns the value of the end of an interval.
fn end(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Infinity => Some(f64::INFINITY),
        Expr::Negative(part) if **part == Expr::Infinity => Some(f64::NEG_INFINITY),
        expr => Some(evaluate(expr, &|_| None).ok()?.as_real()?.0),
    }
}
