use proptest::prelude::*;
use serde_json::json;

use super::*;

#[track_caller]
fn renders(source: &str, item: &Json, expected: &str) {
    let mut templates = Templates::new();
    templates.template("question", source).unwrap();
    assert_eq!(
        templates.render("question", &context(item)).unwrap(),
        expected
    );
}

#[track_caller]
fn evaluates(source: &str, item: &Json, expected: &Json) {
    let mut templates = Templates::new();
    templates.expression("gold", source).unwrap();
    assert_eq!(
        &templates.evaluate("gold", &context(item)).unwrap(),
        expected
    );
}

#[test]
fn values_print_as_python_prints_them_and_nothing_is_escaped() {
    let item = json!({"a": true, "b": null, "c": "<x> & 'y'\n", "d": 2, "e": 1.0, "f": 9_007_199_254_740_993_u64});
    renders(
        "{{ a }} {{ b }} {{ c }}{{ d }} {{ e }} {{ f }}\n",
        &item,
        "True None <x> & 'y'\n2 1.0 9007199254740993\n",
    );
}

#[test]
fn lists_print_as_python_prints_them() {
    let item =
        json!({"l": ["a", "it's", "say \"it's\"", 1, true, null, ["\n\\"]], "d": {"k": [1.5]}});
    renders(
        "{{ l }} {{ d }}",
        &item,
        r#"['a', "it's", 'say "it\'s"', 1, True, None, ['\n\\']] {'k': [1.5]}"#,
    );
}

#[test]
fn several_right_answers_are_no_one_text() {
    renders("{{ a | one_text }}", &json!({"a": "x"}), "x");
    renders("{{ a | one_text }}", &json!({"a": 7}), "7");
    let mut templates = Templates::new();
    templates.template("target", "{{ a | one_text }}").unwrap();
    let item = context(&json!({"a": ["x", "y"]}));
    let error = templates.render("target", &item).unwrap_err();
    assert!(error.to_string().contains("is a list"), "{error}");
}

#[test]
fn pythons_methods_are_there() {
    let item = json!({"s": "\u{1f} \u{3000}abC dEF\n", "l": ["A", "B"], "n": ["1", "2"]});
    renders("{{ s.strip().capitalize() }}|", &item, "Abc def|");
    renders("[{{ s.rstrip() }}]", &item, "[\u{1f} \u{3000}abC dEF]");
    evaluates("l.index('B')", &item, &json!(1));
    evaluates("n.index('2')", &item, &json!(1));
    evaluates("'a_b_c'.split('_', 1)", &item, &json!(["a", "b_c"]));
    renders(
        "{{ 'x [a] y' | regex_replace('\\\\[.*?\\\\]', '$0') }}",
        &item,
        "x $0 y",
    );
}

#[test]
fn what_is_missing_is_an_error_under_its_key() {
    let mut templates = Templates::new();
    templates
        .template("question", "{{ nothing.at.all }}")
        .unwrap();
    let error = templates
        .render("question", &context(&json!({})))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("key `question` undefined value"),
        "{error}"
    );
    templates.expression("gold", "l.index(key)").unwrap();
    let item = json!({"l": ["A"], "key": "E"});
    let error = templates.evaluate("gold", &context(&item)).unwrap_err();
    assert!(
        error.to_string().contains("`E` is not in the list"),
        "{error}"
    );
    let error = templates.template("question", "{% if %}").unwrap_err();
    assert!(error.starts_with("`question`: syntax error"), "{error}");
    let error = templates.expression("gold", "a }} {{ b").unwrap_err();
    assert!(error.starts_with("`gold`: syntax error"), "{error}");
}

#[test]
fn a_template_cannot_run_for_ever_or_fill_the_memory() {
    let mut templates = Templates::new();
    let item = context(&json!({"s": "x".repeat(1 << 20)}));
    let endless = "{% for i in range(10000) %}{% for i in range(10000) %}x{% endfor %}{% endfor %}";
    templates.template("question", endless).unwrap();
    assert!(templates.render("question", &item).is_err());
    templates
        .template("question", "{% for i in range(100) %}{{ s }}{% endfor %}")
        .unwrap();
    let error = templates.render("question", &item).unwrap_err();
    assert!(error.to_string().contains("makes more than"), "{error}");
}

proptest! {
    #[test]
    fn no_template_panics(source in "[{}%| a-z.()'\"\\[\\]0-9,_]{0,40}", text in "\\PC{0,20}") {
        let mut templates = Templates::new();
        let item = context(&json!({"a": text, "b": [1, "x"], "c": {"d": null}}));
        if templates.template("question", &source).is_ok() {
            let _ = templates.render("question", &item);
        }
        if templates.expression("gold", &source).is_ok() {
            let _ = templates.evaluate("gold", &item);
        }
    }
}
