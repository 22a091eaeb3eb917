//! `WikiText`: pages of the raw file, and their text as people write it.
//!
//! Pages are those of the hub's `EleutherAI/wikitext_document_level`, the text is what
//! lm-evaluation-harness scores; both are held to its goldens.

use std::sync::LazyLock;

use fancy_regex::Regex;

/// Cuts the whole file into pages: each begins at a heading of the first level. What stands before
/// the first heading is a page where it holds anything.
pub(super) fn pages(text: &str) -> Vec<String> {
    let mut pages = Vec::new();
    let mut page: Vec<&str> = Vec::new();
    for line in text.split_inclusive('\n') {
        if is_heading(line) {
            push(&mut pages, &page);
            page.clear();
        }
        page.push(line);
    }
    push(&mut pages, &page);
    pages
}

fn push(pages: &mut Vec<String>, lines: &[&str]) {
    let page = lines.concat();
    if !page.trim().is_empty() {
        pages.push(page);
    }
}

/// Tells whether a line is ` = Title = `, and neither ` = = Part = = ` nor plain text.
fn is_heading(line: &str) -> bool {
    let line = line.replace("= = =", "===").replace("= =", "==");
    let line = line.trim();
    line.starts_with("= ") && line.ends_with(" =")
}

/// Undoes the tokenization the set was published with.
pub(super) fn detokenize(page: &str) -> String {
    /// Pairs, in order.
    const WORDS: [(&str, &str); 9] = [
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ];
    const REST: [(&str, &str); 8] = [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" \u{b0} ", "\u{b0}"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ];
    static ENCLOSED: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
        [
            (r"\(\s*([^\)]*?)\s*\)", "(${1})"),
            (r"\[\s*([^\]]*?)\s*\]", "[${1}]"),
            (r"\{\s*([^}]*?)\s*\}", "{${1}}"),
            ("\"\\s*([^\"]*?)\\s*\"", "\"${1}\""),
            (r"'\s*([^']*?)\s*'", "'${1}'"),
        ]
        .map(|(pattern, with)| (Regex::new(pattern).expect("a pattern"), with))
    });
    let mut text = page.replace("s '", "s'");
    for (from, to) in WORDS {
        text = text.replace(from, to);
    }
    for (pattern, with) in &*ENCLOSED {
        text = pattern.replace_all(&text, *with).into_owned();
    }
    for (from, to) in REST {
        text = text.replace(from, to);
    }
    text
}

/// Returns the words of a text as the reference harness counts them: pieces between blanks, the
/// empty ones at both ends included (`len(re.split(r"\s+", text))`).
pub(super) fn count_words(text: &str) -> u32 {
    let is_blank = tritmark_engine::tokenizer::is_python_space;
    let words = text.split(is_blank).filter(|word| !word.is_empty()).count();
    if text.is_empty() {
        return 1;
    }
    let ends = usize::from(text.starts_with(is_blank)) + usize::from(text.ends_with(is_blank));
    // A text of nothing but blanks is one gap between two empty words.
    let count = if words == 0 { 2 } else { words + ends };
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_at_headings_of_the_first_level() {
        let raw = " \n = Tin = \n \n Tin melts . \n = = Use = = \n \n = Lead = \n Heavy . \n";
        let pages = pages(raw);
        assert_eq!(pages.len(), 2);
        assert_eq!(pages[0], " = Tin = \n \n Tin melts . \n = = Use = = \n \n");
        assert_eq!(pages[1], " = Lead = \n Heavy . \n");
    }

    #[test]
    fn words_are_pythons() {
        // len(re.split(r"\s+", s)) of CPython 3.11.
        for (text, words) in [("", 1), (" ", 2), ("a", 1), (" a b\n", 4), ("a  b", 2)] {
            assert_eq!(count_words(text), words, "{text:?}");
        }
    }

    #[test]
    fn spaces_of_the_tokenizer_are_taken_out() {
        let page = " = = A = = \n He said : \" yes \" ( 4 @.@ 5 % ) , the dogs ' toys . ";
        assert_eq!(
            detokenize(page),
            " == A ==\nHe said: \"yes\" (4.5 %), the dogs' toys. "
        );
    }
}
