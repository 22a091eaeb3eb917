//! Finds the answer in a generated solution.
//!
//! The order is that of math-evaluation-harness. Two places read more carefully: a box that never
//! closes (the text was cut) is passed over, and a spoken answer ends with its formula, sentence or
//! line rather than with the text.

/// Returns the answer that a generated solution states, or `None` where it states none.
///
/// Looks for, in this order: `final answer is $…$. I hope`; the last `\boxed{…}` or `\fbox{…}` that
/// closes; the last `he answer is …`; the last `final answer is …`; the last number.
pub fn answer(text: &str) -> Option<String> {
    minerva(text)
        .or_else(|| boxed(text))
        .or_else(|| spoken(text, "he answer is"))
        .or_else(|| spoken(text, "final answer is"))
        .or_else(|| last_number(text))
        .map(|found| tidy(&found))
        .filter(|found| !found.is_empty())
}

/// Finds what the few-shot prompt of Minerva asks for.
fn minerva(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("final answer is $")?;
    let (found, _) = rest.split_once("$. I hope")?;
    Some(found.to_owned())
}

/// Finds the content of the last box that closes.
fn boxed(text: &str) -> Option<String> {
    let mut end = text.len();
    // A text of nothing but open boxes would be read once for each.
    for _ in 0..64 {
        let start = ["\\boxed", "\\fbox"]
            .iter()
            .filter_map(|name| text[..end].rfind(name))
            .max()?;
        let name_len = if text[start..].starts_with("\\boxed") {
            6
        } else {
            5
        };
        let rest = text[start + name_len..].trim_start();
        let found = match rest.strip_prefix('{') {
            Some(inner) => braced(inner),
            None => rest
                .split(['$', '\n'])
                .next()
                .map(str::trim)
                .filter(|word| !word.is_empty()),
        };
        if let Some(found) = found {
            return Some(found.to_owned());
        }
        end = start;
    }
    None
}

/// Returns what stands before the brace that closes an already open one.
fn braced(inner: &str) -> Option<&str> {
    let mut depth = 1_u32;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&inner[..at]);
                }
            }
            _ => {}
        }
    }
    None
}

/// Finds what follows the last `phrase`: a formula in dollars, or the rest of the sentence.
fn spoken(text: &str, phrase: &str) -> Option<String> {
    let at = text.rfind(phrase)?;
    let rest = text[at + phrase.len()..].trim_start_matches([':', ' ', '\n', '\t', '*']);
    if let Some(formula) = rest
        .trim_start_matches('$')
        .split('$')
        .next()
        .filter(|_| rest.starts_with('$'))
    {
        return Some(formula.to_owned());
    }
    let line = rest.lines().next().unwrap_or("");
    let sentence = line.split(". ").next().unwrap_or(line);
    Some(sentence.to_owned())
}

/// Finds the last number, thousands commas taken out.
fn last_number(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| *c != ',').collect();
    let bytes = text.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    let digits = |end: usize| {
        bytes[..end]
            .iter()
            .rposition(|b| !b.is_ascii_digit())
            .map_or(0, |at| at + 1)
    };
    let mut start = digits(end);
    if start > 0 && bytes[start - 1] == b'.' {
        start = digits(start - 1);
    }
    if start > 0 && bytes[start - 1] == b'-' {
        start -= 1;
    }
    Some(text[start..end].to_owned())
}

/// Takes off the spaces, line breaks and punctuation round an answer.
fn tidy(found: &str) -> String {
    let lines: Vec<&str> = found.lines().map(str::trim).collect();
    let joined = lines.join(" ");
    let inner = joined.trim().trim_start_matches(':').trim();
    inner
        .trim_end_matches(['.', '/', '*', ' '])
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(answer(text).as_deref(), expected, "of {text:?}");
    }

    #[test]
    fn the_places_are_tried_in_order() {
        check(
            "so \\boxed{1}. The final answer is $2$. I hope it is correct.",
            Some("2"),
        );
        check(
            "\\boxed{1} then \\boxed{\\frac{1}{2}}",
            Some("\\frac{1}{2}"),
        );
        check("\\fbox{7}", Some("7"));
        check("\\boxed{1} and then \\fbox{3}", Some("3"));
        check("$\\boxed 5$ and 6", Some("5"));
        check("The answer is 12.5. It was 7.", Some("12.5"));
        check("The answer is: $x + 1$ since 4", Some("x + 1"));
        check("My final answer is (C).\nGoodbye", Some("(C)"));
        check("we count 3, then 1,234 of them", Some("1234"));
        check("it is -3.50 exactly", Some("-3.50"));
        check("nothing at all", None);
        check("", None);
    }

    #[test]
    fn braces_are_matched_and_escaped_ones_are_not_counted() {
        check("\\boxed{\\{1, 2\\}}", Some("\\{1, 2\\}"));
        check("\\boxed{\\left\\{ x \\right.}", Some("\\left\\{ x \\right"));
        check("\\boxed{a \\\\ {b}}", Some("a \\\\ {b}"));
    }

    #[test]
    fn a_box_that_was_cut_is_passed_over() {
        check("\\boxed{4} no, wait: \\boxed{\\frac{1}", Some("4"));
        check("so it is \\boxed{12", Some("12"));
    }

    #[test]
    fn text_is_cut_between_characters() {
        check("é\\boxed{π}é", Some("π"));
        check("final answer is é", Some("é"));
        check("−5 → ５", Some("5"));
    }
}
