//! ARC-Challenge and ARC-Easy (Clark et al. 2018): school science with three to five choices.

use serde_json::Value;

use crate::accuracy::{
    dataset::{FieldError, text, texts},
    task::{Question, Task, multiple_choice},
};

/// ARC-Challenge.
pub(crate) const CHALLENGE: Task = Task {
    name: "arc_challenge",
    ..EASY
};

/// ARC-Easy.
pub(crate) const EASY: Task = Task {
    name: "arc_easy",
    version: 1,
    items: &["test"],
    examples: &["train"],
    has_acc_norm: true,
    question,
};

fn question(item: &Value) -> Result<Question, FieldError> {
    let asked = text(item, "question")?;
    let choices = texts(item, "choices.text")?;
    let labels = texts(item, "choices.label")?;
    let key = text(item, "answerKey")?;
    if labels.len() != choices.len() {
        let problem = format!("has {} entries for {} choices", labels.len(), choices.len());
        return Err(FieldError::new("choices.label", problem));
    }
    if let Some(i) = choices.iter().position(|choice| choice.is_empty()) {
        return Err(FieldError::new(
            "choices.text",
            format!("is empty at position {i}"),
        ));
    }
    // Some items are labelled 1 to 4, some have three or five choices.
    let gold = labels
        .iter()
        .position(|label| *label == key)
        .ok_or_else(|| {
            FieldError::new("answerKey", format!("is `{key}`, which labels no choice"))
        })?;
    let context = format!("Question: {asked}\nAnswer:");
    Ok(multiple_choice(&context, &choices, gold))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(labels: &[&str], key: &str) -> Value {
        json!({"id": "x", "question": "Which is “warm”?", "answerKey": key,
               "choices": {"text": ["ice", "café au lait", "snow"], "label": labels}})
    }

    #[test]
    fn the_key_is_looked_up_among_the_labels() {
        let asked = question(&item(&["1", "2", "3"], "2")).unwrap();
        assert_eq!(asked.gold, 1);
        assert_eq!(asked.requests.len(), 3);
        let request = &asked.requests[1];
        assert_eq!(request.context, "Question: Which is “warm”?\nAnswer:");
        assert_eq!(request.continuation, " café au lait");
        assert_eq!(request.n_chars, 12);
        assert_eq!(
            asked.solved,
            "Question: Which is “warm”?\nAnswer: café au lait"
        );
    }

    #[test]
    fn what_is_wrong_with_an_item_is_said_with_its_key() {
        let check = |item: Value, expected: &str| {
            assert_eq!(question(&item).unwrap_err().to_string(), expected);
        };
        check(
            item(&["A", "B", "C"], "E"),
            "key `answerKey` is `E`, which labels no choice",
        );
        check(
            item(&["A", "B"], "A"),
            "key `choices.label` has 2 entries for 3 choices",
        );
        let mut none = item(&["A", "B", "C"], "A");
        none["choices"]["text"][2] = json!("");
        check(none, "key `choices.text` is empty at position 2");
    }
}
