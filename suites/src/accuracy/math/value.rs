//! The values that answers are: numbers and formulas, and tuples, sets, lists, matrices, equations
//! and words made of them.

mod relation;

use super::{
    expr::Expr,
    lex::Token,
    parse::{describe, expression, whole_fraction},
    rational::Rational,
};

/// Deepest nesting of brackets.
const MAX_DEPTH: u32 = 12;
/// Most parts of a list or matrix; parts are compared each with each.
const MAX_PARTS: usize = 100;

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A formula or number.
    Expr(Expr),
    /// A whole number before a fraction: the mixed number, and the product.
    Mixed(Rational, Rational),
    /// Digits in a base: the value, what the digits alone say, the base.
    Based(i128, i128, u32),
    /// Words.
    Text(String),
    /// Parts in order between two brackets: a tuple or an interval.
    Tuple(char, Vec<Value>, char),
    /// Parts in no order, in braces.
    Set(Vec<Value>),
    /// Parts in no order with commas between them.
    List(Vec<Value>),
    /// A union of sets or intervals.
    Union(Vec<Value>),
    /// Rows of a matrix, all of one length.
    Matrix(Vec<Vec<Value>>),
    /// A name and what it is equal to.
    Named(Expr, Box<Value>),
    /// An equation.
    Equation(Expr, Expr),
    /// A chain of expressions and the signs between them.
    Relation(Vec<Expr>, Vec<String>),
}

impl Value {
    /// Reads a whole answer, or says what is not understood.
    pub(super) fn read(tokens: &[Token]) -> Result<Self, String> {
        let value = read(tokens, MAX_DEPTH)?;
        // Nested sets compare each part with each, so that all parts count and not one level's.
        if value.leaves() > MAX_PARTS {
            return Err("it has too many parts".to_owned());
        }
        Ok(value)
    }

    /// Counts the parts that have no parts, empty sets among them.
    fn leaves(&self) -> usize {
        let sum = |parts: &[Self]| parts.iter().map(Self::leaves).sum::<usize>().max(1);
        match self {
            Self::Tuple(_, parts, _)
            | Self::Set(parts)
            | Self::List(parts)
            | Self::Union(parts) => sum(parts),
            Self::Matrix(rows) => rows.iter().map(|row| sum(row)).sum(),
            Self::Named(_, value) => value.leaves(),
            _ => 1,
        }
    }

    /// Returns the formula where this is one.
    pub(super) fn as_expr(&self) -> Option<&Expr> {
        match self {
            Self::Expr(expr) => Some(expr),
            _ => None,
        }
    }
}

fn read(tokens: &[Token], depth: u32) -> Result<Value, String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("it is nested too deep".to_owned());
    };
    if tokens.is_empty() {
        return Err("there is nothing to compare".to_owned());
    }
    if let Some(words) = words(tokens) {
        return Ok(Value::Text(words));
    }
    let pieces = split(tokens, is_comma)?;
    if pieces.len() > 1 {
        let values = parts(&pieces, depth)?;
        // `x < 2 or x > 3` is a union; `(1,2) or (3,4)` may be two points.
        let ors = split(tokens, is_or)?.len() == pieces.len();
        let intervals = values.len() == pieces.len()
            && values.iter().all(|value| matches!(value, Value::Tuple(..)));
        if ors && intervals && pieces.iter().all(|piece| relation::is_inequality(piece)) {
            return Ok(Value::Union(values));
        }
        return Ok(Value::List(values));
    }
    item(tokens, depth)
}

/// Reads one answer that is no list.
fn item(tokens: &[Token], depth: u32) -> Result<Value, String> {
    if let Some(words) = words(tokens) {
        return Ok(Value::Text(words));
    }
    if let Some(value) = relation::relation(tokens, depth)? {
        return Ok(value);
    }
    let pieces = split(tokens, |token| is_command(token, "cup"))?;
    if pieces.len() > 1 {
        return Ok(Value::Union(parts(&pieces, depth)?));
    }
    if let Some(value) = matrix(tokens, depth)? {
        return Ok(value);
    }
    if let Some(value) = bracketed(tokens, depth)? {
        return Ok(value);
    }
    if let Some(value) = based(tokens)? {
        return Ok(value);
    }
    if let Some(value) = mixed(tokens) {
        return Ok(value);
    }
    let expr = expression(tokens)?;
    match expr.plus_minus_count() {
        0 => Ok(Value::Expr(expr)),
        1 => Ok(Value::List(vec![
            Value::Expr(expr.with_sign(true)),
            Value::Expr(expr.with_sign(false)),
        ])),
        _ => Err("several plus-or-minus signs are not understood".to_owned()),
    }
}

/// Reads the parts of a list; a part with a plus-or-minus sign is two.
fn parts(pieces: &[&[Token]], depth: u32) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let Some(depth) = depth.checked_sub(1) else {
            return Err("it is nested too deep".to_owned());
        };
        match item(piece, depth)? {
            Value::List(inner) => values.extend(inner),
            value => values.push(value),
        }
        if values.len() > MAX_PARTS {
            return Err("it has too many parts".to_owned());
        }
    }
    Ok(values)
}

fn is_command(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Command(name) if name == wanted)
}

fn is_or(token: &Token) -> bool {
    matches!(token, Token::Text(words) if words.eq_ignore_ascii_case("or"))
}

fn is_comma(token: &Token) -> bool {
    match token {
        Token::Sign(',' | ';') => true,
        Token::Text(words) => matches!(
            words.to_ascii_lowercase().as_str(),
            "and" | "or" | ", and" | ", or"
        ),
        _ => false,
    }
}

/// Tells whether a symbol opens (1) or closes (-1) a bracket of any kind.
fn step(token: &Token) -> i32 {
    match token {
        Token::Sign('(' | '[' | '{') | Token::Begin(_) => 1,
        Token::Sign(')' | ']' | '}') | Token::End(_) => -1,
        Token::Command(name) if name == "{" || name == "langle" => 1,
        Token::Command(name) if name == "}" || name == "rangle" => -1,
        _ => 0,
    }
}

/// Cuts at the symbols outside brackets that `cut` asks for.
fn split(tokens: &[Token], cut: impl Fn(&Token) -> bool) -> Result<Vec<&[Token]>, String> {
    let mut pieces = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, token) in tokens.iter().enumerate() {
        depth += step(token);
        if depth < 0 {
            return Err(format!("{} closes nothing", describe(token)));
        }
        if depth == 0 && cut(token) {
            pieces.push(&tokens[start..at]);
            start = at + 1;
        }
    }
    if depth > 0 {
        return Err("a bracket is not closed".to_owned());
    }
    pieces.push(&tokens[start..]);
    Ok(pieces)
}

/// Returns the words of an answer that is nothing else.
fn words(tokens: &[Token]) -> Option<String> {
    let mut text = String::new();
    let mut any = false;
    for token in tokens {
        match token {
            Token::Text(words) => {
                any = true;
                text.push(' ');
                text.push_str(words);
                text.push(' ');
            }
            Token::Letter(c) => text.push(*c),
            Token::Sign('.' | '\'' | '"' | '-' | '!' | '?' | ':') => text.push(' '),
            _ => return None,
        }
    }
    any.then(|| text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Reads a matrix that is the whole answer.
fn matrix(tokens: &[Token], depth: u32) -> Result<Option<Value>, String> {
    let [Token::Begin(name), inner @ .., Token::End(end)] = tokens else {
        return Ok(None);
    };
    // `\begin{a}…\end{a} … \begin{a}…\end{a}` begins and ends in the same way.
    if name != end || split(inner, |_| false).is_err() {
        return Err(format!("the environment `{name}` is not understood here"));
    }
    if !matches!(
        name.as_str(),
        "pmatrix" | "bmatrix" | "Bmatrix" | "matrix" | "smallmatrix" | "array"
    ) {
        return Err(format!("the environment `{name}` is not understood"));
    }
    let mut rows = Vec::new();
    for row in split(inner, |token| is_command(token, "\\"))? {
        if row.is_empty() {
            continue;
        }
        let cells = split(row, |token| *token == Token::Sign('&'))?;
        let cells: Vec<Value> = cells
            .into_iter()
            .map(|cell| read(cell, depth))
            .collect::<Result<_, _>>()?;
        rows.push(cells);
    }
    let width = rows.first().map_or(0, Vec::len);
    if rows.iter().any(|row| row.len() != width) {
        return Err("the rows of a matrix are not of one length".to_owned());
    }
    if width * rows.len() > MAX_PARTS {
        return Err("it has too many parts".to_owned());
    }
    Ok(Some(Value::Matrix(rows)))
}

/// Reads a tuple, interval or set that is the whole answer; a lone part in round brackets is itself.
fn bracketed(tokens: &[Token], depth: u32) -> Result<Option<Value>, String> {
    if matches!(tokens, [token] if is_command(token, "varnothing")) {
        return Ok(Some(Value::Set(Vec::new())));
    }
    let [first, inner @ .., last] = tokens else {
        return Ok(None);
    };
    if step(first) != 1 || step(last) != -1 || split(inner, |_| false).is_err() {
        return Ok(None);
    }
    let pieces = split(inner, is_comma)?;
    match (first, last) {
        (Token::Command(open), Token::Command(close)) if open == "{" && close == "}" => {
            Ok(Some(Value::Set(parts(&pieces, depth)?)))
        }
        (Token::Command(_), Token::Command(_)) => {
            Ok(Some(Value::Tuple('<', ordered(&pieces, depth)?, '>')))
        }
        (Token::Sign('{'), Token::Sign('}')) => {
            if pieces.len() > 1 {
                return Ok(Some(Value::Set(parts(&pieces, depth)?)));
            }
            read(inner, depth).map(Some)
        }
        (Token::Sign(open @ ('(' | '[')), Token::Sign(close @ (')' | ']'))) => {
            if pieces.len() > 1 || (*open, *close) == ('[', ']') {
                return Ok(Some(Value::Tuple(*open, ordered(&pieces, depth)?, *close)));
            }
            if (*open, *close) == ('(', ')') {
                return read(inner, depth).map(Some);
            }
            Err("the brackets do not fit each other".to_owned())
        }
        _ => Err("the brackets do not fit each other".to_owned()),
    }
}

/// Reads parts whose order counts.
fn ordered(pieces: &[&[Token]], depth: u32) -> Result<Vec<Value>, String> {
    if pieces.len() > MAX_PARTS {
        return Err("it has too many parts".to_owned());
    }
    let values: Vec<Value> = pieces
        .iter()
        .map(|piece| read(piece, depth))
        .collect::<Result<_, _>>()?;
    if values.iter().any(|value| matches!(value, Value::List(_))) {
        return Err("a plus-or-minus sign in a tuple is not understood".to_owned());
    }
    Ok(values)
}

/// Reads `1011_2`.
fn based(tokens: &[Token]) -> Result<Option<Value>, String> {
    let ([Token::Number(digits), Token::Sign('_'), Token::Number(base)]
    | [
        Token::Number(digits),
        Token::Sign('_'),
        Token::Sign('{'),
        Token::Number(base),
        Token::Sign('}'),
    ]) = tokens
    else {
        return Ok(None);
    };
    let wrong = || format!("`{digits}` in base `{base}` is not a number");
    let base = base
        .parse()
        .ok()
        .filter(|base| (2..=36).contains(base))
        .ok_or_else(wrong)?;
    let value = i128::from_str_radix(digits, base).map_err(|_| wrong())?;
    let plain = digits.parse().map_err(|_| wrong())?;
    Ok(Some(Value::Based(value, plain, base)))
}

/// Reads a whole number before a fraction of whole numbers, as `1\frac{4}{5}`.
fn mixed(tokens: &[Token]) -> Option<Value> {
    let (negative, rest) = match tokens {
        [Token::Sign('-'), rest @ ..] => (true, rest),
        _ => (false, tokens),
    };
    let [Token::Number(whole), fraction @ ..] = rest else {
        return None;
    };
    if !is_command(fraction.first()?, "frac") {
        return None;
    }
    let whole = Rational::whole(Rational::parse(whole)?.as_whole()?);
    let (over, under) = whole_fraction(&expression(fraction).ok()?)?;
    let fraction = Rational::new(over, under)?;
    let (sum, product) = (whole.add(fraction)?, whole.mul(fraction)?);
    Some(if negative {
        Value::Mixed(sum.neg()?, product.neg()?)
    } else {
        Value::Mixed(sum, product)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::lex::lex, *};

    fn value(text: &str) -> Value {
        Value::read(&lex(text).expect("readable"))
            .unwrap_or_else(|reason| panic!("{text}: {reason}"))
    }

    #[test]
    fn kinds_are_told_apart() {
        assert!(matches!(value("2x+1"), Value::Expr(_)));
        assert!(matches!(value("1\\frac{4}{5}"), Value::Mixed(..)));
        assert!(matches!(value("4210_{5}"), Value::Based(555, 4210, 5)));
        assert!(matches!(value("\\text{no solution}"), Value::Text(_)));
        assert!(matches!(value("(3,4]"), Value::Tuple('(', _, ']')));
        assert!(matches!(value("\\{1\\pm\\sqrt{5},-2\\}"), Value::Set(parts) if parts.len() == 3));
        assert!(matches!(value("1 \\pm x"), Value::List(parts) if parts.len() == 2));
        assert!(matches!(value("1, 2 \\text{ and } 3"), Value::List(parts) if parts.len() == 3));
        assert!(matches!(value("(0,9) \\cup (9,36)"), Value::Union(parts) if parts.len() == 2));
        assert!(matches!(value("y = 2x"), Value::Named(..)));
        assert!(matches!(value("x + y = 2"), Value::Equation(..)));
        assert!(matches!(value("x = 2x"), Value::Equation(..)));
        assert!(
            matches!(value("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}"), Value::Matrix(rows) if rows.len() == 2)
        );
        assert_eq!(value("-2 \\le x < 7"), value("[-2, 7)"));
        assert_eq!(value("7 > x \\ge -2"), value("[-2, 7)"));
        assert_eq!(value("x \\in [-2,7]"), value("[-2,7]"));
        assert_eq!(value("3 < x"), value("(3,\\infty)"));
        assert_eq!(
            value("x < 2 \\text{ or } x > 3"),
            value("(-\\infty,2)\\cup(3,\\infty)")
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, expected) in [
            ("(1,2", "not closed"),
            ("1)", "closes nothing"),
            ("\\frac{1", "not closed"),
            ("\\foo{1}", "`\\foo`"),
            ("2 \\text{ million } + 1", "million"),
            ("1/2x", "two readings"),
            ("\\sqrt12", "two readings"),
            ("x + 1\\frac{4}{5}", "two readings"),
            ("92_8", "base `8`"),
            ("\\begin{vmatrix} 1 \\end{vmatrix}", "vmatrix"),
            (
                &format!("\\{{{}\\}}", "\\{1,2,3,4\\},".repeat(26)),
                "too many parts",
            ),
        ] {
            let reason = Value::read(&lex(text).expect("readable")).expect_err(text);
            assert!(reason.contains(expected), "of {text}: {reason}");
        }
    }
}
