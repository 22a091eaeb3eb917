//! The rules on cases made by hand, on the 500 problems, and on noise.

use std::env;

use proptest::prelude::*;

use super::{Equality, answer, equal};

mod cases;
mod kinds;
mod math500;

/// Names the kind of a verdict.
fn kind(verdict: &Equality) -> &'static str {
    match verdict {
        Equality::Equal => "equal",
        Equality::Different => "different",
        Equality::Undecided { .. } => "undecided",
    }
}

/// Checks the verdict from both sides.
fn check(expected: &str, cases: &[(&str, &str)]) {
    for (given, right) in cases {
        let verdict = equal(given, right);
        assert_eq!(
            kind(&verdict),
            expected,
            "{given} against {right}: {verdict:?}"
        );
        let back = equal(right, given);
        assert_eq!(kind(&back), expected, "{right} against {given}: {back:?}");
    }
}

/// Symbols that answers are made of.
const SOUP: [&str; 62] = [
    "\\frac",
    "\\sqrt",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\\{",
    "\\}",
    "1",
    "2",
    "12",
    "0.5",
    "x",
    "y",
    "e",
    "i",
    "^",
    "_",
    "+",
    "-",
    "*",
    "/",
    "\\cdot",
    "\\pi",
    "\\pm",
    ",",
    "=",
    "<",
    "\\le",
    "\\cup",
    "\\infty",
    "|",
    "!",
    "\\sin",
    "\\log",
    "\\text{even}",
    "\\text{ cm}",
    "^\\circ",
    "\\%",
    "\\$",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "&",
    "\\\\",
    "\\left(",
    "\\right)",
    "999999999999",
    "\\binom",
    "\\in",
    "even",
    " ",
    "cm",
    "\\theta",
    ".",
    "\\boxed{",
    "and",
    "\\text{",
    "\\mathbb{R}",
    "1,\\!000",
    "\\langle",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&SOUP[..]), 0..24).prop_map(|words| words.concat())
}

/// Answers that are well formed, so that their verdicts are worth more than a parse error.
fn formula() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "2",
        "3",
        "0.5",
        "x",
        "y",
        "\\pi",
        "i",
        "\\sqrt{2}",
        "\\infty",
    ]);
    let leaf = leaf.prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("\\frac{{{a}}}{{{b}}}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) + ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})({b})")),
            (inner.clone(), 0..5_u8).prop_map(|(a, n)| format!("({a})^{n}")),
            inner.clone().prop_map(|a| format!("\\sqrt{{{a}}}")),
            inner.clone().prop_map(|a| format!("\\sin({a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a}, {b}]")),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_judged(a in any::<String>(), b in any::<String>()) {
        let _ = answer(&a);
        prop_assert_eq!(kind(&equal(&a, &b)), kind(&equal(&a, &b)));
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = answer(&text);
        let _ = equal(&text, "\\frac{1}{2}");
    }

    #[test]
    fn a_soup_of_symbols_is_judged_alike_from_both_sides(a in soup(), b in soup()) {
        let _ = answer(&a);
        if !a.trim().is_empty() && !b.trim().is_empty() {
            prop_assert_eq!(kind(&equal(&a, &b)), kind(&equal(&b, &a)));
            prop_assert_eq!(equal(&a, &a), Equality::Equal);
        }
    }

    #[test]
    fn formulas_are_judged_alike_from_both_sides(a in formula(), b in formula()) {
        prop_assert_eq!(kind(&equal(&a, &b)), kind(&equal(&b, &a)));
        prop_assert_ne!(equal(&format!("({a})"), &a), Equality::Different);
        prop_assert_ne!(equal(&format!("1\\cdot {a}"), &a), Equality::Different);
    }

    #[test]
    fn what_algebra_allows_is_never_different(a in formula(), b in formula(), c in formula()) {
        let spread = format!("({a})({b}) + ({a})({c})");
        prop_assert_ne!(equal(&format!("({a})(({b}) + ({c}))"), &spread), Equality::Different);
        let sum = format!("\\frac{{({a})({c}) + ({b})({c})}}{{({c})^2}}");
        prop_assert_ne!(equal(&format!("\\frac{{({a}) + ({b})}}{{{c}}}"), &sum), Equality::Different);
    }

    #[test]
    fn twice_a_formula_is_the_formula_only_if_it_is_nought(a in formula()) {
        if equal(&format!("2({a})"), &a) == Equality::Equal {
            prop_assert_ne!(equal(&a, "0"), Equality::Different);
        }
    }

    #[test]
    fn fractions_of_small_numbers_are_always_decided(a in -50..50_i32, b in 1..50_i32, c in -50..50_i32, d in 1..50_i32) {
        let verdict = equal(&format!("\\frac{{{a}}}{{{b}}}"), &format!("{c}/{d}"));
        let expected = if a * d == c * b { Equality::Equal } else { Equality::Different };
        prop_assert_eq!(verdict, expected);
    }

    #[test]
    fn a_quadratic_is_its_factors(a in -9..9_i32, b in -9..9_i32, c in -9..9_i32) {
        let verdict = equal(&format!("(x + {a})(x + {b})"), &format!("x^2 + {}x + {}", a + b, a * b + c));
        prop_assert_eq!(verdict, if c == 0 { Equality::Equal } else { Equality::Different });
    }
}

/// Repeats `part` up to the longest answer that is looked into.
fn long(part: &str) -> String {
    part.repeat(super::MAX_BYTES / part.len())
}

#[test]
fn long_and_deep_answers_are_judged_soon() {
    let began = std::time::Instant::now();
    let parts = [
        "(",
        "{",
        "[",
        "\\{",
        "-",
        "+",
        "!",
        "|",
        "\\sqrt",
        "\\frac",
        "\\frac{",
        "x^",
        "x^{",
        "2^",
        "1,",
        "(1,",
        "x+",
        "(x+y)",
        "(x+y+z)",
        "\\frac{1}{x}+",
        "\\frac{1}{x+1}+",
        "1/",
        "\\sin",
        "\\sin(",
        "\\pm",
        "9",
        "x=",
        "a\\cup ",
        "\\begin{pmatrix}",
        "1&",
        "\\sqrt{2+",
        "\\boxed{",
        "\\text{a}",
        "\\text{",
        "i^",
        "\\pi(",
        "3!",
        "x_1",
        "$",
        "\\sin x+",
        "|x|+",
        "(1,2)\\cup",
        "\\sqrt{999999999999999999989}+",
        "x^{9999}",
        "(1+x)^{99}",
        "e^{e^",
        "9^{9}",
        "\\log_",
        "word ",
        "^\\circ",
        "\\left.",
        ",\\!000",
        "a_{",
        "=",
        "\\mathrm{",
        "(x+1)^{9}+",
    ];
    for part in parts {
        let given = long(part);
        let _ = equal(&given, "x+1");
        let _ = equal(&format!("{}1", &given[..given.len() - part.len()]), &given);
        let _ = answer(&given);
    }
    // Seven seconds without optimisation on a busy machine.
    assert!(
        began.elapsed().as_secs() < 60,
        "it took {:?}",
        began.elapsed()
    );
}

#[test]
fn an_answer_that_is_too_long_is_only_equal_to_itself() {
    let given = "1+".repeat(6000);
    assert_eq!(equal(&given, &given), Equality::Equal);
    assert_eq!(kind(&equal(&given, "1")), "undecided");
}

/// Returns the folder of the evaluation data, or says on stderr that a test is skipped.
fn data() -> Option<std::path::PathBuf> {
    let folder = env::var_os("TRITMARK_DATA");
    if folder.is_none() {
        eprintln!("NOT RUN: the answers of MATH-500 need TRITMARK_DATA");
    }
    folder.map(Into::into)
}
