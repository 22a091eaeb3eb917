//! Tuples, sets, matrices, equations, words and the like: cases made by hand.

use super::check;

#[test]
fn brackets_hold_parts_in_order() {
    check(
        "equal",
        &[
            ("(6, 31, -1)", "(6,31,-1)"),
            ("(0.6, 2.66667]", "\\left(\\frac{3}{5},\\frac{8}{3}\\right]"),
            ("(2, \\infty)", "(2,+\\infty)"),
            ("x>2", "(2,\\infty)"),
            ("-2 \\le x \\le 7", "x \\in [-2,7]"),
            ("x \\le 0", "(-\\infty, 0]"),
            ("(-\\infty,\\infty)", "\\mathbb{R}"),
            ("((1,2),(3,4))", "((1,2),(3,\\frac82))"),
        ],
    );
    check(
        "different",
        &[
            ("(1,2)", "(2,1)"),
            ("[3,4]", "(3,4]"),
            ("(3,4)", "(3,4]"),
            ("(1,2)", "(1,2,3)"),
            ("(1,2)", "1"),
            ("(5,\\infty)", "(5,-\\infty)"),
            ("x \\ge 2", "(2,\\infty)"),
        ],
    );
    check(
        "undecided",
        &[
            ("[1,2,3]", "(1,2,3)"),
            ("(1,2)", "1,2"),
            ("(\\frac{\\cos x}{\\sin x},1)", "(\\cot x,1)"),
            ("[5]", "5"),
        ],
    );
    check(
        "different",
        &[("(\\frac{\\cos x}{\\sin x},2)", "(\\cot x,1)")],
    );
}

#[test]
fn sets_and_lists_hold_parts_in_no_order() {
    check(
        "equal",
        &[
            ("7, 3, 5", "3, 5, 7"),
            ("\\{3,5,7\\}", "7,5,3"),
            ("1 \\text{ and } -2", "1,-2"),
            ("x = 1, x = -2", "1,-2"),
            ("1+\\sqrt{19}, 1-\\sqrt{19}", "1 \\pm \\sqrt{19}"),
            ("x = 1 \\pm \\sqrt{19}", "1 \\pm \\sqrt{19}"),
            ("-2, 1-\\sqrt5, 1+\\sqrt5", "\\{1\\pm\\sqrt{5},-2\\}"),
            ("\\emptyset", "\\{\\}"),
            ("\\frac12, 2", "2, 0.5"),
        ],
    );
    check(
        "different",
        &[
            ("3,5", "3,5,7"),
            ("3,5,8", "3,5,7"),
            ("1,1,2", "1,2,2"),
            ("1", "1,-2"),
            ("1 \\pm \\sqrt{17}", "1 \\pm \\sqrt{19}"),
            ("1 + \\sqrt{19}", "1 \\pm \\sqrt{19}"),
        ],
    );
    check(
        "undecided",
        &[
            ("\\{1,1,2\\}", "\\{1,2\\}"),
            ("\\{5\\}", "5"),
            ("1 \\pm 2 \\pm 3", "6"),
        ],
    );
}

#[test]
fn unions_hold_intervals() {
    check(
        "equal",
        &[
            (
                "(3,\\infty)\\cup(-\\infty,2)",
                "(-\\infty, 2) \\cup (3, \\infty)",
            ),
            ("(0,9) ∪ (9,36)", "(0,9) \\cup (9,36)"),
            ("x < 2 or x > 3", "(-\\infty, 2) \\cup (3, \\infty)"),
        ],
    );
    check(
        "different",
        &[
            ("(0,9]\\cup(10,36)", "(0,9) \\cup (10,36)"),
            ("(0,36)", "(0,9) \\cup (9,36)"),
            ("5", "(0,9) \\cup (9,36)"),
        ],
    );
    check(
        "undecided",
        &[
            ("(0,9]\\cup(9,36)", "(0,36)"),
            ("(0,9), (9,36)", "(0,9) \\cup (9,36)"),
            ("(0,10)\\cup(9,36)", "(0,36)"),
        ],
    );
}

#[test]
fn matrices_are_compared_by_their_cells() {
    let right = "\\begin{pmatrix} -1/3 \\\\ 2/3 \\\\ 5/3 \\end{pmatrix}";
    check(
        "equal",
        &[
            (
                "\\begin{bmatrix} -\\frac13 \\\\ \\frac23 \\\\ \\frac53 \\end{bmatrix}",
                right,
            ),
            (
                "\\left(\\begin{array}{c} -1/3 \\\\ 2/3 \\\\ 5/3 \\\\ \\end{array}\\right)",
                right,
            ),
            (
                "\\begin{pmatrix} -1 & 0 \\\\ 0 & -1 \\end{pmatrix}",
                "\\begin{pmatrix} -1&0\\\\0&\\frac{-2}{2} \\end{pmatrix}",
            ),
        ],
    );
    check(
        "different",
        &[
            (
                "\\begin{pmatrix} 1/3 \\\\ 2/3 \\\\ 5/3 \\end{pmatrix}",
                right,
            ),
            (
                "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
                "\\begin{pmatrix} 1 & 3 \\\\ 2 & 4 \\end{pmatrix}",
            ),
            ("5", right),
            ("(1,2)", right),
        ],
    );
    check(
        "undecided",
        &[
            ("(-\\frac13, \\frac23, \\frac53)", right),
            ("\\begin{pmatrix} -1/3 & 2/3 & 5/3 \\end{pmatrix}", right),
            ("\\begin{pmatrix} 1 & 2 \\\\ 3 \\end{pmatrix}", right),
            ("\\begin{vmatrix} 1 \\end{vmatrix}", "1"),
        ],
    );
}

#[test]
fn equations_are_compared_up_to_their_sign() {
    let right = "5x - 7y + 11z + 4 = 0";
    check(
        "equal",
        &[
            ("-5x + 7y - 11z - 4 = 0", right),
            ("5x + 11z + 4 = 7y", right),
            ("2x + 3", "y = 2x + 3"),
            ("y = 3 + 2x", "y = 2x + 3"),
            ("y - 2x = 3", "y = 2x + 3"),
            ("5", "x=5"),
            ("n = 5", "5"),
            ("f(x) = 2x", "2x"),
            ("\\text{Area} = 5", "5"),
            ("x_1 = 5", "5"),
        ],
    );
    check(
        "different",
        &[
            ("5x - 7y + 11z + 5 = 0", right),
            ("y = 2x + 4", "y = 2x + 3"),
            ("x = 6", "x=5"),
            ("y = 3x", "y = -2x"),
            ("60", right),
        ],
    );
    check(
        "undecided",
        &[
            ("10x - 14y + 22z + 8 = 0", right),
            ("y = 5", "x = 5"),
            ("x^2 = 4", "x^2 + y^2 = 4"),
            ("2x = 10", "5"),
            ("x = 2 + 3 = 5", "5"),
            ("x < y", "5"),
        ],
    );
}

#[test]
fn words_are_compared_without_case() {
    check(
        "equal",
        &[
            ("evelyn", "\\text{Evelyn}"),
            ("\\textbf{Evelyn}", "\\text{Evelyn}"),
            ("C", "\\text{(C)}"),
            ("(c)", "\\text{(C)}"),
            ("\\textbf{(C)}", "\\text{(C)}"),
            ("Odd", "odd"),
            ("\\text{No Solution.}", "no solution"),
        ],
    );
    check(
        "different",
        &[
            ("Navin", "\\text{Evelyn}"),
            ("B", "\\text{(C)}"),
            ("odd", "\\text{even}"),
            ("5", "\\text{even}"),
            ("no solution", "5"),
            ("(1,2)", "\\text{ellipse}"),
        ],
    );
    check(
        "undecided",
        &[
            ("not even", "\\text{even}"),
            ("(C) 5", "\\text{(C)}"),
            ("the answer is five", "5"),
            ("infinitely many", "\\infty"),
            ("no solution", "\\emptyset"),
            ("about 5 or so", "5"),
        ],
    );
}

#[test]
fn bases_are_compared_exactly() {
    check(
        "equal",
        &[
            ("4210_5", "4210_{5}"),
            ("1011_{2}", "1011_2"),
            ("(52)_8", "(52)_8"),
        ],
    );
    check(
        "different",
        &[
            ("52_8", "53_8"),
            ("52_8", "52_9"),
            ("53", "52_8"),
            ("\\frac12", "52_8"),
            ("5200_8", "52_8"),
            ("11\\sqrt2", "52_8"),
            ("1+274i", "4210_{5}"),
            ("(1,2)", "52_8"),
        ],
    );
    check(
        "undecided",
        &[
            ("52", "52_8"),
            ("42", "52_8"),
            ("101010_2", "52_8"),
            ("92_8", "52_8"),
        ],
    );
}

#[test]
fn mixed_numbers_have_two_readings() {
    check(
        "equal",
        &[
            ("1 \\frac{4}{5}", "1\\frac45"),
            ("1\\frac{8}{10}", "1\\frac{4}{5}"),
            ("0\\frac{0}{5}", "0"),
        ],
    );
    check(
        "different",
        &[
            ("2", "1\\frac{4}{5}"),
            ("1\\frac{3}{5}", "1\\frac{4}{5}"),
            ("x", "1\\frac45"),
        ],
    );
    check(
        "undecided",
        &[
            ("\\frac95", "1\\frac{4}{5}"),
            ("0.8", "1\\frac{4}{5}"),
            ("137.5", "137 \\frac{1}{2}"),
        ],
    );
}
