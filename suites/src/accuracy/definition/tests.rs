use proptest::prelude::*;

use super::*;

const CHOICE: &str = r#"
name = "t"
version = 1
kind = "multiple_choice"
metrics = ["acc"]
[data]
items = ["test"]
[prompt]
question = "{{ q }}"
choices = "c"
gold = "g"
"#;

#[track_caller]
fn refused(from: &str, to: &str, expected: &str) {
    assert!(CHOICE.contains(from), "{from}");
    let error = Definition::parse(&CHOICE.replace(from, to)).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_definition_says_which_key_is_wrong() {
    Definition::parse(CHOICE).unwrap();
    refused(
        "gold = \"g\"",
        "",
        "one of `prompt.gold`, `prompt.right` and `prompt.target`",
    );
    refused("choices = \"c\"", "", "`prompt.choices` is missing");
    refused("gold =", "golden =", "unknown field `golden`");
    refused(
        "\"acc\"",
        "\"exact_match\"",
        "metric `exact_match` means nothing",
    );
    refused("\"acc\"", "\"mc2\"", "metric `mc2` needs `prompt.right`");
    refused("metrics = [\"acc\"]", "metrics = []", "`metrics` is empty");
    refused("items = [\"test\"]", "", "`data.items` is missing");
    refused(
        "\"{{ q }}\"",
        "\"{{ q }}\"\ntarget = \"x\"",
        "one of `prompt.gold`, `prompt.right` and `prompt.target`",
    );
}

#[test]
fn no_file_outside_the_data_folder_can_be_named() {
    refused("\"test\"", "\"../../etc/passwd\"", "no plain file name");
    refused("\"test\"", "\"/etc/passwd\"", "no plain file name");
    refused("items =", "folder = \"..\"\nitems =", "no plain file name");
    refused("name = \"t\"", "name = \"a/b\"", "`name` must be");
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    refused("version = 1", "version =", "line 3");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*", cut in 0..CHOICE.len()) {
        let _ = Definition::parse(&text);
        let _ = Definition::parse(&CHOICE[..cut]);
        let _ = Definition::parse(&format!("{}{text}{}", &CHOICE[..cut], &CHOICE[cut..]));
    }
}
