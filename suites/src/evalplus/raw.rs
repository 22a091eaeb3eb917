//! The values of a JSON object as text.
//!
//! Inputs of MBPP+ and HumanEval+ hold integers of any size and the word `Infinity`: Python reads
//! them, and nothing on the way may round or refuse them. What lies within a value is looked at only
//! as far as its end must be found.

use std::ops::Range;

use crate::accuracy::FieldError;

/// Returns the keys of an object, and where in the text their values stand.
pub(super) fn fields(text: &str) -> Result<Vec<(String, Range<usize>)>, FieldError> {
    let mut scan = Scan {
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut fields = Vec::new();
    scan.take(b'{', "the item")?;
    if scan.peek() != Some(b'}') {
        loop {
            scan.blanks();
            let key = scan.string("the item")?;
            let key: String = serde_json::from_str(&text[key])
                .map_err(|error| FieldError::new("the item", format!("has a bad key: {error}")))?;
            scan.take(b':', &key)?;
            scan.blanks();
            let value = scan.value(&key)?;
            if fields.iter().any(|(other, _)| *other == key) {
                return Err(FieldError::new(&key, "stands there twice"));
            }
            fields.push((key, value));
            match scan.peek() {
                Some(b',') => scan.at += 1,
                _ => break,
            }
        }
    }
    scan.take(b'}', "the item")?;
    match scan.peek() {
        None => Ok(fields),
        Some(_) => Err(scan.wrong("the item", "has something after its end")),
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn wrong(&self, key: &str, problem: &str) -> FieldError {
        FieldError::new(key, format!("{problem} at byte {}", self.at))
    }

    fn blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8, key: &str) -> Result<(), FieldError> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        let problem = format!("lacks a `{}`", char::from(wanted));
        Err(self.wrong(key, &problem))
    }

    fn string(&mut self, key: &str) -> Result<Range<usize>, FieldError> {
        let start = self.at;
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.wrong(key, "lacks a text"));
        }
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.wrong(key, "has a text without an end")),
            }
        }
        self.at += 1;
        Ok(start..self.at)
    }

    fn value(&mut self, key: &str) -> Result<Range<usize>, FieldError> {
        let start = self.at;
        let mut open = Vec::new();
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.string(key)?;
                    continue;
                }
                Some(b'[') => open.push(b']'),
                Some(b'{') => open.push(b'}'),
                Some(b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n') if open.is_empty() => break,
                Some(end @ (b']' | b'}')) if open.pop() != Some(*end) => {
                    return Err(self.wrong(key, "has brackets that do not match"));
                }
                Some(_) => {}
                None => return Err(self.wrong(key, "has a value without an end")),
            }
            self.at += 1;
        }
        if start == self.at {
            return Err(self.wrong(key, "has no value"));
        }
        Ok(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn split(text: &str) -> Result<Vec<(String, String)>, FieldError> {
        let fields = fields(text)?;
        let own = |(key, range): (String, Range<usize>)| (key, text[range].to_owned());
        Ok(fields.into_iter().map(own).collect())
    }

    #[test]
    fn what_no_number_type_holds_stays_text() {
        let text = r#" { "a" : [1e999, Infinity, 123456789012345678901234567890], "b}":"]\"," } "#;
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            split(text).unwrap(),
            [
                pair("a", "[1e999, Infinity, 123456789012345678901234567890]"),
                pair("b}", r#""]\",""#),
            ]
        );
        assert_eq!(split("{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_place() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1"#,
            r#"{"a":[1}"#,
            r#"{"a":1}x"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":"\"#,
            r#"{"a" 1}"#,
            r"{1:1}",
            r#"{"a":1,}"#,
        ] {
            assert!(split(text).is_err(), "{text}");
        }
        let error = split(r#"{"a":[1}"#).unwrap_err();
        assert_eq!(
            (error.key.as_str(), error.problem.as_str()),
            ("a", "has brackets that do not match at byte 7")
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("\\PC*", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_are_those_of_a_full_parser(
            map in prop::collection::btree_map("\\PC*", any_json(), 0..5),
        ) {
            let text = serde_json::to_string_pretty(&map).unwrap();
            let split = split(&text).unwrap();
            prop_assert_eq!(split.len(), map.len());
            for (key, value) in split {
                let value: Value = serde_json::from_str(&value).unwrap();
                prop_assert_eq!(&value, &map[&key]);
            }
        }

        #[test]
        fn any_text_is_split_or_refused(text in "[ {}\\[\\]\":,\\\\a1]*|\\PC*") {
            let _ = split(&text);
        }
    }
}
