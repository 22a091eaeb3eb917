//! Judges answers to mathematics problems (MATH-500) without a computer algebra system.
//!
//! The rules follow math-evaluation-harness (commit db77bc6) and the `hendrycks_math` and
//! `minerva_math` tasks of lm-evaluation-harness, whose last word is sympy. Here that last word is a
//! small one of our own, and what it cannot prove is [`Equality::Undecided`], never a guess:
//!
//! 1. The same symbols, once typography (`\left`, `\dfrac`, spaces, `$`, thousands commas, units,
//!    degrees, `%`) is set aside, are equal.
//! 2. Two numbers written in digits are equal within a relative 1e-4, and also where one is 100
//!    times the other (the harness' rule for percentages). So `13535` and `13536` are equal, as they
//!    are to the harness.
//! 3. Rational functions over the rationals, with pi, e, i and square roots of integers, have an
//!    exact form, and where the two forms are one, the answers are equal. With variables the form
//!    also proves a difference.
//! 4. Other constants are compared numerically at a relative 1e-4, which is the harness' rule
//!    (`N(a)` against `N(b)`); rounding errors are tracked, and what they could turn is undecided.
//! 5. Other expressions with variables are evaluated at sample points: where they differ at every
//!    one by more than the tracked error they are different; where they agree nothing is proved.
//! 6. Tuples, intervals, sets, lists and matrices are compared part by part.
//!
//! Harness rules not taken: single letters in its list of units (`a`, `h`, `m`), brackets of another
//! kind being the same, every comma between digits being a thousands comma, and the percentage rule
//! inside tuples.
//!
//! | module | owns |
//! |---|---|
//! | `extract` | finding the answer in a generated solution |
//! | `lex`, `normalize` | symbols, and what is set aside |
//! | `expr`, `parse`, `value` | expressions, and the values made of them |
//! | `rational`, `poly`, `canon` | exact forms |
//! | `numeric` | values with an error bound |
//! | `compare` | the verdict |

mod canon;
mod compare;
mod expr;
mod extract;
mod lex;
mod normalize;
mod numeric;
mod parse;
mod poly;
mod rational;
mod value;

#[cfg(test)]
mod tests;

pub use extract::answer;

/// Longest answer that is looked into, in bytes; a longer one is equal to itself only.
const MAX_BYTES: usize = 10_000;

/// What is known about two answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Equality {
    /// They are the same answer, by a rule of this module's documentation.
    Equal,
    /// They are not.
    Different,
    /// Neither could be shown.
    Undecided {
        /// What was not understood or not proved, in words.
        reason: String,
    },
}

impl Equality {
    /// Makes an undecided verdict.
    fn undecided(reason: impl Into<String>) -> Self {
        Self::Undecided {
            reason: reason.into(),
        }
    }
}

/// Compares a given answer with the right one; both are LaTeX or plain text.
///
/// Nothing given is different from everything.
pub fn equal(given: &str, right: &str) -> Equality {
    let (given, right) = (given.trim(), right.trim());
    if given.is_empty() {
        return Equality::Different;
    }
    if given == right {
        return Equality::Equal;
    }
    if let Some(long) = [given, right].iter().find(|text| text.len() > MAX_BYTES) {
        return Equality::undecided(format!(
            "an answer of {} bytes is too long to look into",
            long.len()
        ));
    }
    compare::answers(given, right)
}
