use std::path::PathBuf;

use proptest::prelude::*;
use tritmark_proto::job::AccuracySpec;

use super::*;
use crate::accuracy::{Data as Items, Question, definition::Metric};

fn without_files(name: &str) -> Result<String, String> {
    Err(format!("no file {name}"))
}

#[track_caller]
fn converted(yaml: &str) -> Task {
    let converted = convert(yaml, &mut without_files).unwrap_or_else(|error| panic!("{error:?}"));
    Task::parse(&converted.toml).unwrap()
}

#[track_caller]
fn refused(yaml: &str, expected: &str) {
    let error = convert(yaml, &mut without_files).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

const CHOICE: &str = r#"
tag: [own]
task: own_choice
dataset_path: someone/own
dataset_name: main
output_type: multiple_choice
training_split: train
test_split: test
description: "Answer in one word.\n\n"
doc_to_text: "Q: {{stem}}\nA:"
doc_to_target: key
doc_to_choice: ["no", "it's"]
target_delimiter: ""
num_fewshot: 2
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 2.0
"#;

const GENERATE: &str = r#"
task: own_answer
dataset_path: someone/own
output_type: generate_until
validation_split: validation
fewshot_split: dev
doc_to_text: question
doc_to_target: "{{answer}}"
fewshot_delimiter: "\n\n\n"
fewshot_config: {sampler: first_n}
generation_kwargs: {until: ["\n"], do_sample: false, temperature: 0.0, max_new_tokens: 32}
filter_list:
  - name: number
    filter:
      - {function: regex, group_select: -1, regex_pattern: '(\d+)', fallback: none}
      - function: remove_whitespace
      - function: take_first
metric_list:
  - metric: exact_match
    ignore_case: true
    regexes_to_ignore: [","]
"#;

#[test]
fn a_choice_is_written_as_a_definition() {
    let Converted { toml, warnings } = convert(CHOICE, &mut without_files).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let expected = r#"# own_choice, converted from lm-evaluation-harness, version 2.0.
name = "own_choice"
version = 2
kind = "multiple_choice"
metrics = ["acc"]

[data]
items = ["test"]
examples = ["train"]

[data.hub]
repo = "someone/own"
revision = "refs/convert/parquet"

[data.hub.files]
test = ["main/test/*.parquet"]
train = ["main/train/*.parquet"]

[prompt]
description = """
Answer in one word.

"""
question = "Q: {{stem}}\nA:"
choices = "['no', 'it\\'s']"
gold = "key if key is not string else ['no', 'it\\'s'].index(key)"
target_delimiter = ""

[fewshot]
count = 2
"#;
    assert_eq!(toml, expected);
}

#[test]
fn a_generated_answer_is_written_as_a_definition() {
    let definition = converted(GENERATE).definition;
    assert_eq!(definition.kind, Kind::GenerateUntil);
    assert_eq!(definition.data.items, ["validation"]);
    assert_eq!(definition.data.examples, ["dev"]);
    let hub = definition.data.hub.unwrap();
    assert_eq!(hub.files["dev"], ["default/dev/*.parquet"]);
    assert_eq!(
        definition.prompt.question.as_deref(),
        Some("{{ question }}")
    );
    let target = definition.prompt.target.as_deref();
    assert_eq!(target, Some("{{ (answer) | one_text }}"));
    assert_eq!(definition.fewshot.sampler, Sampler::FirstN);
    assert!(!definition.fewshot.draws_one_more);
    assert_eq!(definition.fewshot.delimiter.as_deref(), Some("\n\n\n"));
    let generation = definition.generation.unwrap();
    assert_eq!(generation.until, ["\n"]);
    assert_eq!(generation.max_new, 32);
    assert_eq!(definition.filters.len(), 1);
    assert_eq!(definition.filters[0].steps.len(), 2);
    assert!(definition.exact_match.ignore_case);
    assert_eq!(definition.exact_match.ignore, [","]);
}

#[test]
fn a_rolling_task_scores_its_target() {
    let yaml = "task: own_text\ndataset_path: someone/own\noutput_type: loglikelihood_rolling\n\
                test_split: test\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n";
    let definition = converted(yaml).definition;
    assert_eq!(definition.prompt.text.as_deref(), Some("{{text}}"));
    assert_eq!(definition.metrics.len(), 3);
    assert!(definition.fewshot.fixed);
    assert!(definition.data.examples.is_empty());
}

#[test]
fn a_target_is_a_position_in_digits_or_a_choices_text() {
    let yaml = CHOICE.replace("doc_to_target: key", "doc_to_target: '{{key}}'");
    let task = converted(&yaml);
    let right = |key: serde_json::Value| {
        let item = serde_json::json!({"stem": "?", "key": key});
        task.question(&item).map(|question| match question {
            Question::Choice(question) => question.gold(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(right("it's".into()).unwrap(), 1);
    assert_eq!(right(1.into()).unwrap(), 1);
    assert_eq!(right("0".into()).unwrap(), 0);
    assert!(
        right("2".into())
            .unwrap_err()
            .to_string()
            .contains("none of 2")
    );
    assert!(right("yes".into()).is_err());
    assert!(right(true.into()).is_err());
}

#[test]
fn a_field_is_a_position_or_a_choices_text() {
    let task = converted(CHOICE);
    let right = |key: serde_json::Value| {
        let item = serde_json::json!({"stem": "?", "key": key});
        task.question(&item).map(|question| match question {
            Question::Choice(question) => question.gold(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(right("it's".into()).unwrap(), 1);
    assert_eq!(right(0.into()).unwrap(), 0);
    assert_eq!(right(true.into()).unwrap(), 1);
    assert!(right("1".into()).is_err());
}

#[test]
fn what_includes_gives_way_to_the_including_file() {
    let yaml = "include: sub/_base\ntask: own_child\ndescription: null\n";
    let base = CHOICE.replace("tag: [own]", "include: ../_root.yaml\ntask_list: [a]");
    let base = base.replace("dataset_name: main", "");
    let mut asked = Vec::new();
    let converted = convert(yaml, &mut |name| {
        asked.push(name.to_owned());
        match name {
            "sub/_base" => Ok(base.clone()),
            "sub/../_root.yaml" => Ok("dataset_name: small\nrepeats: 1\n".to_owned()),
            _ => Err("is not there".to_owned()),
        }
    });
    let definition = Task::parse(&converted.unwrap().toml).unwrap().definition;
    assert_eq!(asked, ["sub/_base", "sub/../_root.yaml"]);
    assert_eq!(definition.name, "own_child");
    assert_eq!(definition.prompt.description, None);
    let hub = definition.data.hub.unwrap();
    assert_eq!(hub.files["test"], ["small/test/*.parquet"]);
}

#[test]
fn a_file_that_includes_itself_is_refused() {
    let error = convert("include: a\n", &mut |_| Ok("include: a\n".to_owned())).unwrap_err();
    // `a` in the folder of `a` is `a`.
    assert!(error.to_string().contains("included file `a`"), "{error}");
    refused("include: a\n", "no file a");
}

#[test]
fn python_hooks_are_refused_by_their_names() {
    let with = |line: &str| format!("{CHOICE}{line}\n");
    refused(
        &with("process_docs: !function utils.process_docs\nprocess_results: !function u.r"),
        "`process_docs` is the Python hook utils.process_docs; \
         `process_results` is the Python hook u.r",
    );
    refused(
        &CHOICE.replace("metric: acc", "metric: !function utils.f1"),
        "`metric_list[0].metric` is the Python hook utils.f1",
    );
    refused(
        "class: !function task.Own\n",
        "`class` is the Python hook task.Own",
    );
}

#[test]
fn what_a_definition_cannot_say_is_refused_by_its_key() {
    let with = |line: &str| format!("{CHOICE}{line}\n");
    let not = "is not supported";
    refused(&with("gen_prefix: x"), &format!("`gen_prefix` {not}"));
    refused(&with("use_prompt: x"), &format!("`use_prompt` {not}"));
    refused(&with("doc_to_image: x"), &format!("`doc_to_image` {not}"));
    refused(&with("repeats: 3"), "`repeats` is 3");
    refused(
        &with("fewshot_config: {fewshot_indices: [1]}"),
        "`fewshot_config.fewshot_indices`",
    );
    refused(
        &with("fewshot_config: {doc_to_text: x}"),
        "`fewshot_config.doc_to_text`",
    );
    refused(
        &with("fewshot_config: {samples: [{a: null}]}"),
        "holds a null",
    );
    refused(
        &CHOICE.replace("metric: acc", "metric: f1"),
        "the metric `f1`",
    );
    refused(
        &CHOICE.replace("aggregation: mean", "aggregation: max"),
        "`max`",
    );
    refused(
        &CHOICE.replace("\"no\"", "no"),
        "`doc_to_choice[0]` is the truth value false",
    );
    refused(
        &CHOICE.replace("doc_to_target: key", "doc_to_target: [0]"),
        "several right",
    );
    refused(
        &CHOICE.replace("doc_to_target: key", ""),
        "`doc_to_target` is missing",
    );
    refused(
        &CHOICE.replace("test_split: test", "test_split: 'test[:9]'"),
        "plain name",
    );
    refused(
        &CHOICE.replace("test_split: test", ""),
        "`test_split` is missing",
    );
    refused(
        &CHOICE.replace("multiple_choice", "loglikelihood"),
        "is `loglikelihood`",
    );
    let text = "doc_to_text: \"Q: {{stem}}\\nA:\"";
    refused(
        &CHOICE.replace(text, "doc_to_text: label"),
        "one context for each choice",
    );
    refused(
        &CHOICE.replace(text, "doc_to_text: '{{ stem'"),
        "does not hold",
    );
    let choices = "doc_to_choice: [\"no\", \"it's\"]";
    refused(
        &CHOICE.replace(choices, "doc_to_choice: '[\"{{a}}\"]'"),
        "not one expression",
    );
    refused("group: g\ntask: [a, b]\n", "group of tasks");
    let answer = |from: &str, to: &str| GENERATE.replace(from, to);
    refused(
        &answer("do_sample: false, temperature: 0.0", "do_sample: true"),
        "samples the answer",
    );
    refused(
        &answer("do_sample: false, temperature: 0.0", "temperature: 0.7"),
        "samples the answer",
    );
    refused(
        &answer("temperature: 0.0", "seed: 1"),
        "`generation_kwargs.seed`",
    );
    refused(
        &answer("function: remove_whitespace", "function: custom"),
        "the filter `custom`",
    );
    refused(
        &answer("      - function: take_first\n", ""),
        "lacks `take_first`",
    );
    refused(&answer("ignore_case", "ignore_numbers"), "ignore_numbers");
}

#[test]
fn what_looks_like_no_field_is_warned_of() {
    let yaml = GENERATE.replace("doc_to_text: question", "doc_to_text: the question");
    let yaml = yaml.replace("dataset_path: someone/own", "dataset_path: json");
    let warnings = convert(&yaml, &mut without_files).unwrap().warnings;
    assert!(
        warnings[0].contains("validation.jsonl and dev.jsonl"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].contains("constant text `the question`"),
        "{warnings:?}"
    );
}

proptest! {
    #[test]
    fn any_values_convert_or_are_refused(
        at in prop::collection::vec((0_usize..40, "\\PC{0,12}|[-0-9a-z{}'\"\\[\\]: |!]{0,14}"), 1..4)
    ) {
        for whole in [CHOICE, GENERATE] {
            let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
            for (line, value) in &at {
                let line = line % lines.len();
                let key = lines[line].split_inclusive(':').next().unwrap_or_default().to_owned();
                lines[line] = format!("{key} {value}");
            }
            let _ = convert(&lines.join("\n"), &mut without_files);
        }
    }
}

/// Stock tasks of lm-evaluation-harness (MIT licence), as far as they say what is asked.
const STOCK: [(&str, &str, u32); 7] = [
    (
        "arc_easy",
        r#"
training_split: train
validation_split: validation
test_split: test
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
"#,
        0,
    ),
    (
        "boolq",
        r#"
training_split: train
validation_split: validation
doc_to_text: "{{passage}}\nQuestion: {{question}}?\nAnswer:"
doc_to_target: label
doc_to_choice: ["no", "yes"]
metric_list: [{metric: acc}]
"#,
        0,
    ),
    (
        "piqa",
        r#"
training_split: train
validation_split: validation
test_split: null
doc_to_text: "Question: {{goal}}\nAnswer:"
doc_to_target: label
doc_to_choice: "{{[sol1, sol2]}}"
"#,
        0,
    ),
    (
        "openbookqa",
        r#"
training_split: train
validation_split: validation
test_split: test
doc_to_text: question_stem
doc_to_target: "{{choices.label.index(answerKey.lstrip())}}"
doc_to_choice: "{{choices.text}}"
"#,
        5,
    ),
    (
        "commonsense_qa",
        r#"
training_split: train
validation_split: validation
doc_to_text: "Question: {{ question.strip() }}\nA. {{choices['text'][0]}}\nB. {{choices['text'][1]}}\nC. {{choices['text'][2]}}\nD. {{choices['text'][3]}}\nE. {{choices['text'][4]}}\nAnswer:"
doc_to_target: answerKey
doc_to_choice: ['A', 'B', 'C', 'D', 'E']
metric_list: [{metric: acc}]
"#,
        7,
    ),
    (
        "gsm8k",
        r#"
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 5
generation_kwargs: {until: ["Question:", "</s>", "<|im_end|>"], do_sample: false}
filter_list:
  - name: "strict-match"
    filter:
      - function: "regex"
        regex_pattern: "\#\#\#\# (\\-?[0-9\\.\\,]+)"
      - function: "take_first"
  - name: "flexible-extract"
    filter:
      - function: "regex"
        group_select: -1
        regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"
      - function: "take_first"
metric_list:
  - metric: exact_match
    ignore_case: true
    regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]
"#,
        5,
    ),
    (
        "gsm8k_cot",
        r"
output_type: generate_until
test_split: test
doc_to_target: '{{answer.split(''####'')[-1].strip() if answer is defined else target}}'
doc_to_text: 'Q: {{question}}

  A:'
num_fewshot: 8
generation_kwargs: {until: ['Q:', </s>, <|im_end|>]}
fewshot_config:
  sampler: first_n
  samples: SAMPLES
",
        8,
    ),
];

/// Returns a stock task's YAML, with the examples that the built-in task has.
fn stock(name: &str, text: &str, built_in: &Task) -> String {
    let samples = &built_in.definition.fewshot.samples;
    let samples = serde_json::to_string(samples).unwrap();
    let kind = if text.contains("output_type") {
        ""
    } else {
        "output_type: multiple_choice\n"
    };
    // JSON is YAML.
    let text = text.replace("SAMPLES", &samples).replace(r"\#", "#");
    format!("task: {name}\n{kind}{text}")
}

#[test]
fn stock_tasks_become_the_built_in_definitions() {
    for (name, text, _) in STOCK {
        let built_in = Task::named(name).unwrap();
        let task = converted(&stock(name, text, &built_in));
        let (ours, own) = (&task.definition, &built_in.definition);
        assert_eq!(ours.kind, own.kind, "{name}");
        // The built-in BoolQ draws no more examples than it needs.
        if name != "boolq" {
            assert_eq!(ours.fewshot, own.fewshot, "{name}");
        }
        assert_eq!(ours.data.items, own.data.items, "{name}");
        assert_eq!(ours.generation, own.generation, "{name}");
        if name == "gsm8k" {
            assert_eq!(ours.filters, own.filters, "{name}");
            assert_eq!(ours.exact_match, own.exact_match, "{name}");
        }
        if name != "gsm8k_cot" {
            assert_eq!(ours.metrics, own.metrics, "{name}");
        }
    }
    assert_eq!(converted(CHOICE).definition.metrics, [Metric::Acc]);
}

#[test]
fn stock_tasks_ask_what_the_built_in_ones_ask() {
    let Some(data_dir) = std::env::var_os("TRITMARK_DATA").map(PathBuf::from) else {
        eprintln!("NOT RUN: the comparison of prompts needs TRITMARK_DATA");
        return;
    };
    for (name, text, num_fewshot) in STOCK {
        let built_in = Task::named(name).unwrap();
        // The set at hand is the plain one, whose answers are true and false.
        let text = match name {
            "boolq" => text.replace("doc_to_target: label", "doc_to_target: answer"),
            _ => text.to_owned(),
        };
        let mut task = converted(&stock(name, &text, &built_in));
        task.definition
            .data
            .folder
            .clone_from(&built_in.definition.data.folder);
        let spec = AccuracySpec {
            num_fewshot,
            limit: std::num::NonZeroU32::new(200),
            ..AccuracySpec::new(name, &data_dir)
        };
        let expected = Items::open(&built_in, &spec).unwrap();
        let mut n = 0;
        for (ours, expected) in Items::open(&task, &spec).unwrap().zip(expected) {
            assert_eq!(ours.unwrap().question, expected.unwrap().question, "{name}");
            n += 1;
        }
        assert!(n >= 164, "{name}: {n} items");
        eprintln!("{name}: {n} prompts are the same");
    }
}
