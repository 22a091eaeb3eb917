//! Typography, numbers and formulas: cases made by hand.

use super::{super::equal, check, kind};

#[test]
fn nothing_given_is_different() {
    assert_eq!(kind(&equal("", "5")), "different");
    assert_eq!(kind(&equal("  ", "")), "different");
}

#[test]
fn typography_does_not_count() {
    check(
        "equal",
        &[
            (
                "\\left(3,\\frac{\\pi}{2}\\right)",
                "\\left( 3, \\frac{\\pi}{2} \\right)",
            ),
            ("\\dfrac{1}{2}", "\\tfrac12"),
            ("\\frac 59", "5/9"),
            ("\\frac{270}7", "270/7"),
            ("$5$", "5"),
            ("5.", "5"),
            ("\\boxed{5}", "5"),
            (".5", "0.5"),
            ("\\mathbf{v}", "v"),
            ("11\\sqrt2", "11 \\sqrt{2}"),
            ("10,\\!080", "10080"),
            ("10,080", "10{,}080"),
            ("\\$32,\\!348", "32348"),
            ("3 \\times 5", "15"),
            ("π/2", "\\frac{\\pi}{2}"),
            ("x²", "x^2"),
            ("x**2", "x^2"),
            ("**5**", "5"),
        ],
    );
}

#[test]
fn units_are_dropped_unless_they_differ() {
    check(
        "equal",
        &[
            ("90", "90^\\circ"),
            ("90 degrees", "90^{\\circ}"),
            ("5.4", "5.4 \\text{ cents}"),
            ("864 square inches", "864 \\mbox{ inches}^2"),
            ("864 \\text{ in}^2", "864 \\mbox{ inches}^2"),
            ("15 cm", "15\\text{ centimeters}"),
            ("12 apples", "12"),
            ("\\text{6 ways}", "6"),
            ("8 \\pi \\text{ cm}", "8\\pi"),
        ],
    );
    check(
        "different",
        &[
            ("91^\\circ", "90^\\circ"),
            ("5 \\text{ cm}", "6"),
            ("12 apples", "13 apples"),
            ("90^\\circ", "\\pi"),
        ],
    );
    check(
        "undecided",
        &[
            ("5 \\text{ cm}", "5 \\text{ m}"),
            ("500 \\text{ cm}", "5 \\text{ m}"),
            ("5 \\text{ million}", "5"),
            ("90^\\circ", "\\frac{\\pi}{2}"),
            ("\\frac{\\pi}{4}", "45^\\circ"),
        ],
    );
}

#[test]
fn numbers_are_equal_within_one_in_ten_thousand() {
    check(
        "equal",
        &[
            ("0.33333", "\\frac13"),
            ("1.4142", "\\sqrt{2}"),
            ("3.14159", "\\pi"),
            ("13535", "13536"),
        ],
    );
    check(
        "different",
        &[
            ("0.333", "\\frac13"),
            ("1.41", "\\sqrt2"),
            ("3.14", "\\pi"),
            ("-5", "5"),
            ("0", "0.00001"),
        ],
    );
    check(
        "equal",
        &[(
            "123456789012345678901234567890123456789012",
            "123456789012345678901234567890123456789013",
        )],
    );
    check(
        "different",
        &[("123456789012345678901234567890123456789012", "5")],
    );
}

#[test]
fn percentages_count_as_hundredths_too() {
    check(
        "equal",
        &[
            ("50\\%", "50"),
            ("50", "0.5"),
            ("4", "400"),
            ("50\\%", "\\frac12"),
            ("15 percent", "0.15"),
            ("12.5\\%", "1/8"),
        ],
    );
    check(
        "different",
        &[
            ("50", "\\frac12"),
            ("51\\%", "\\frac12"),
            ("0", "1"),
            ("(1,2)", "(100,200)"),
        ],
    );
}

#[test]
fn exact_forms_decide() {
    check(
        "equal",
        &[
            ("\\frac{2}{4}", "\\frac12"),
            ("\\frac{1}{\\sqrt3}", "\\frac{\\sqrt{3}}{3}"),
            ("\\sqrt{75}", "5\\sqrt3"),
            ("2^{10}", "1024"),
            ("5!", "120"),
            ("\\binom{5}{2}", "10"),
            ("\\sqrt[3]{27}", "3"),
            ("|-3|", "3"),
            ("2\\pi+18", "18+2\\pi"),
            ("9i+6", "6+9i"),
            ("\\frac{11+9a}{20}", "\\frac{11}{20}+\\frac{9}{20}a"),
            ("(b+2)(a+5)", "(a+5)(b+2)"),
            ("ab+2a+5b+10", "(a+5)(b+2)"),
            ("-x^4+x^5+x^3-x^2+x-1", "x^5 - x^4 + x^3 - x^2 + x - 1"),
            ("q-p", "-(p-q)"),
            ("\\cot(x)", "\\cot x"),
            ("x^10", "x^{10}"),
            ("\\log_2 8", "3"),
            ("e^{2x}", "e^{x+x}"),
        ],
    );
    check(
        "different",
        &[
            ("2k+2", "2k+1"),
            ("2k", "2n"),
            ("p-q", "q-p"),
            ("x^2", "x^3"),
            ("5", "x"),
            ("6-5i", "6+5i"),
            ("\\sqrt{2}x", "\\sqrt{3}x"),
            ("\\tan x", "\\cot x"),
            ("\\frac{1}{x}", "x"),
        ],
    );
}

#[test]
fn what_is_not_proved_is_undecided() {
    check(
        "undecided",
        &[
            ("\\frac{\\cos x}{\\sin x}", "\\cot x"),
            ("\\sqrt{x^2}", "x"),
            ("3r^2", "3R^2"),
            ("\\frac10", "5"),
            ("1/2x", "x/2"),
            ("\\sqrt12", "2\\sqrt{3}"),
            ("\\int x", "5"),
            ("f(2)", "2f"),
            ("x^{y^{z^{100}}}!", "5"),
            ("2^{100000}", "5"),
            ("5 ♥", "5"),
            ("\\frac12 \\text{ or } 0.5", "\\frac12"),
            ("\\frac{1", "1"),
            ("5abcd", "5"),
            ("\\sqrt{3+2\\sqrt2}-1-\\sqrt2", "0"),
        ],
    );
}
