use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// Keys that mean something to a task, or nothing.
const KEYS: [&str; 22] = [
    "question",
    "choices",
    "text",
    "label",
    "answerKey",
    "passage",
    "answer",
    "title",
    "sentence",
    "option1",
    "option2",
    "",
    "id",
    "goal",
    "sol1",
    "endings",
    "ctx_a",
    "ctx_b",
    "question_stem",
    "subject",
    "mc2_targets",
    "page",
];

fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["", "_", "A", "1", "2", "\u{1f600} _ x", "no"])
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..8).prop_map(
                |entries| {
                    let entries = entries.into_iter().map(|(k, v)| (k.to_owned(), v));
                    Value::Object(entries.collect::<Map<_, _>>())
                }
            ),
        ]
    })
}

proptest! {
    #[test]
    fn a_hostile_item_is_a_question_or_an_error(item in hostile()) {
        for name in Task::names() {
            let task = Task::named(name).unwrap();
            if let Ok(Question::Choice(question)) = task.question(&item) {
                prop_assert_eq!(question.requests.len(), question.right.len());
                prop_assert!(question.right[question.gold()]);
            }
            let _ = task.group(&item);
            let _ = task.description(&item);
            let _ = task.solved(&item);
        }
    }
}

fn choice(task: &str, item: &Value) -> ChoiceQuestion {
    match Task::named(task).unwrap().question(item).unwrap() {
        Question::Choice(question) => question,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(task: &str, item: &Value, expected: &str) {
    let error = Task::named(task).unwrap().question(item).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn an_unknown_task_is_told_which_there_are() {
    let error = Task::named("arc").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unknown task `arc` (there are arc_challenge, arc_easy, boolq, "),
        "{error}"
    );
}

#[test]
fn the_built_in_tasks_hold_and_are_sorted() {
    let names = Task::names();
    assert!(names.is_sorted());
    for name in names {
        assert_eq!(Task::named(name).unwrap().name(), name);
    }
}

fn arc(labels: &[&str], key: &str) -> Value {
    json!({"id": "x", "question": "Which is “warm”?", "answerKey": key,
           "choices": {"text": ["ice", "café au lait", "snow"], "label": labels}})
}

#[test]
fn arc_looks_its_key_up_among_the_labels() {
    let item = arc(&["1", "2", "3"], "2");
    let asked = choice("arc_easy", &item);
    assert_eq!(asked.gold(), 1);
    assert_eq!(asked.requests.len(), 3);
    let request = &asked.requests[1];
    assert_eq!(request.context, "Question: Which is “warm”?\nAnswer:");
    assert_eq!(request.continuation, " café au lait");
    assert_eq!(request.n_chars, 12);
    let solved = Task::named("arc_easy").unwrap().solved(&item).unwrap();
    assert_eq!(solved.answer, "café au lait");
    refused(
        "arc_easy",
        &arc(&["A", "B", "C"], "E"),
        "`E` is not in the list",
    );
    let mut none = arc(&["A", "B", "C"], "A");
    none["choices"]["text"][2] = json!("");
    refused(
        "arc_easy",
        &none,
        "key `prompt.choices` is empty at position 2",
    );
}

#[test]
fn both_forms_of_boolq_ask_the_same() {
    let plain = json!({"question": "is tin a metal", "passage": "Tin melts.", "title": "Tin",
                       "answer": true});
    let superglue = json!({"question": "is tin a metal", "passage": "Tin melts.", "label": 1,
                           "idx": 7});
    let asked = choice("boolq", &plain);
    assert_eq!(asked, choice("boolq", &superglue));
    assert_eq!(asked.gold(), 1);
    assert_eq!(
        asked.requests[0].context,
        "Tin melts.\nQuestion: is tin a metal?\nAnswer:"
    );
    assert_eq!(asked.requests[0].continuation, " no");
    let words = json!({"question": "q", "passage": "p", "answer": "yes"});
    refused(
        "boolq",
        &words,
        "key `prompt.gold` is \"yes\", which is none of 2 choices",
    );
}

#[test]
fn winogrande_puts_the_options_into_the_context() {
    let item = json!({"sentence": "Ann gave Bea a pen, so _  wrote_ it. ", "option1": "Ann",
                      "option2": "Bea", "answer": "2"});
    let asked = choice("winogrande", &item);
    assert_eq!(asked.gold(), 1);
    assert_eq!(asked.requests[0].context, "Ann gave Bea a pen, so Ann");
    assert_eq!(asked.requests[1].context, "Ann gave Bea a pen, so Bea");
    for request in &asked.requests {
        assert_eq!(request.continuation, " wrote_ it.");
        assert_eq!(request.n_chars, 10);
    }
    let gapless = json!({"sentence": "Ann wrote.", "option1": "a", "option2": "b", "answer": "1"});
    refused("winogrande", &gapless, "key `prompt.continuation`");
}

#[test]
fn hellaswag_is_cleaned_as_its_harness_does() {
    let item = json!({"activity_label": "Baking", "ctx_a": "[header] A [title] cake.",
                      "ctx_b": "she BAKES", "label": "3",
                      "endings": ["a  b.", " [step] c", "d [substeps] e", "f"]});
    let asked = choice("hellaswag", &item);
    assert_eq!(asked.gold(), 3);
    assert_eq!(asked.requests[0].context, "Baking: A. cake. She bakes");
    let endings: Vec<&str> = asked
        .requests
        .iter()
        .map(|r| r.continuation.as_str())
        .collect();
    assert_eq!(endings, [" a b.", "  c", " d e", " f"]);
}

#[test]
fn mmlu_says_the_subject_first() {
    let task = Task::named("mmlu").unwrap();
    let item = json!({"question": " Two? ", "subject": "abstract_algebra",
                      "choices": ["a", "b", "c", "d"], "answer": 2});
    assert_eq!(
        task.group(&item).unwrap().as_deref(),
        Some("abstract_algebra")
    );
    assert_eq!(
        task.description(&item).unwrap(),
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
    );
    let asked = choice("mmlu", &item);
    assert_eq!(
        asked.requests[2].context,
        "Two?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    );
    assert_eq!(asked.requests[2].continuation, " C");
    assert_eq!(asked.gold(), 2);
}

#[test]
fn a_definition_that_cannot_be_compiled_says_where() {
    let text = BUILT_IN[0].1.replace("{{ question }}", "{{ question");
    let error = Task::parse(&text).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`prompt.question`: syntax error"),
        "{error}"
    );
}
