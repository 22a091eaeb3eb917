//! Equations, inequalities and memberships.

use super::{
    super::{expr::Expr, lex::Token, parse::expression},
    Value, item, split,
};

/// Reads equations, inequalities and memberships.
pub(super) fn relation(tokens: &[Token], depth: u32) -> Result<Option<Value>, String> {
    let name = |token: &Token| match token {
        Token::Sign(c @ ('=' | '<' | '>')) => Some(c.to_string()),
        Token::Command(name)
            if matches!(
                name.as_str(),
                "le" | "ge" | "ne" | "approx" | "equiv" | "in" | "to"
            ) =>
        {
            Some(name.clone())
        }
        _ => None,
    };
    let sides = split(tokens, |token| name(token).is_some())?;
    if sides.len() == 1 {
        return Ok(None);
    }
    // The signs outside brackets are the symbols right after each side but the last.
    let mut signs = Vec::new();
    let mut at = 0;
    for side in &sides[..sides.len() - 1] {
        at += side.len();
        signs.extend(name(&tokens[at]));
        at += 1;
    }
    if let ([left, right], [sign]) = (sides.as_slice(), signs.as_slice())
        && matches!(sign.as_str(), "=" | "in" | "to")
    {
        if let Some(name) = variable(left) {
            let value = item(right, depth)?;
            let recurs = value
                .as_expr()
                .is_some_and(|expr| expr.any(&|part| *part == name));
            if sign != "=" {
                return Ok(Some(value));
            }
            if !recurs {
                return Ok(Some(Value::Named(name, Box::new(value))));
            }
        }
        if sign == "=" {
            return Ok(Some(Value::Equation(expression(left)?, expression(right)?)));
        }
    }
    let sides: Vec<Expr> = sides
        .into_iter()
        .map(expression)
        .collect::<Result<_, _>>()?;
    if sides.iter().any(|side| side.plus_minus_count() > 0) {
        return Err("a plus-or-minus sign in a relation is not understood".to_owned());
    }
    Ok(Some(
        interval(&sides, &signs).unwrap_or(Value::Relation(sides, signs)),
    ))
}

/// Tells whether this is `x < 2` or the like and not an interval in brackets.
pub(super) fn is_inequality(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| match token {
        Token::Sign(c) => matches!(c, '<' | '>'),
        Token::Command(name) => name == "le" || name == "ge",
        _ => false,
    })
}

/// Reads the left side of `x = …`, `x_1 = …`, `f(x) = …` or `\text{Area} = …`.
fn variable(tokens: &[Token]) -> Option<Expr> {
    match tokens {
        [
            Token::Letter(f),
            Token::Sign('('),
            Token::Letter(x),
            Token::Sign(')'),
        ] => Some(Expr::Variable(format!("{f}({x})"))),
        [Token::Text(words)] => Some(Expr::Variable(words.clone())),
        _ => expression(tokens)
            .ok()
            .filter(|expr| matches!(expr, Expr::Variable(_))),
    }
}

/// Writes `a < x <= b`, `x > a` and the like as an interval.
fn interval(sides: &[Expr], signs: &[String]) -> Option<Value> {
    let is_variable = |expr: &Expr| matches!(expr, Expr::Variable(_));
    let has_variable = |expr: &Expr| expr.any(&|part| is_variable(part));
    let infinity = || Value::Expr(Expr::Infinity);
    let minus_infinity = || Value::Expr(Expr::Negative(Box::new(Expr::Infinity)));
    let value = |expr: &Expr| Value::Expr(expr.clone());
    let flip = |sign: &str| match sign {
        "<" => Some(">"),
        ">" => Some("<"),
        "le" => Some("ge"),
        "ge" => Some("le"),
        _ => None,
    };
    let (open, close) = (
        |strict: bool| if strict { '(' } else { '[' },
        |strict: bool| if strict { ')' } else { ']' },
    );
    match (sides, signs) {
        ([x, a], [sign]) if is_variable(x) && !has_variable(a) => match sign.as_str() {
            "<" | "le" => Some(Value::Tuple(
                '(',
                vec![minus_infinity(), value(a)],
                close(sign == "<"),
            )),
            ">" | "ge" => Some(Value::Tuple(
                open(sign == ">"),
                vec![value(a), infinity()],
                ')',
            )),
            _ => None,
        },
        ([a, x], [sign]) if is_variable(x) && !has_variable(a) => {
            interval(&[x.clone(), a.clone()], &[flip(sign)?.to_owned()])
        }
        ([a, x, b], [first, second]) if is_variable(x) && !has_variable(a) && !has_variable(b) => {
            match (first.as_str(), second.as_str()) {
                ("<" | "le", "<" | "le") => Some(Value::Tuple(
                    open(first == "<"),
                    vec![value(a), value(b)],
                    close(second == "<"),
                )),
                (">" | "ge", ">" | "ge") => Some(Value::Tuple(
                    open(second == ">"),
                    vec![value(b), value(a)],
                    close(first == ">"),
                )),
                _ => None,
            }
        }
        _ => None,
    }
}
