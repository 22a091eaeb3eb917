//! The built-in tasks. Prompts, choices, metrics and fixed examples are those of
//! lm-evaluation-harness (MIT licence), whose definitions they restate; `docs/tasks.md` says where
//! each comes from.

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("tasks/", $name, ".toml")))),*]
    };
}

/// Name and definition of every built-in task, sorted by name.
pub(super) const BUILT_IN: &[(&str, &str)] = built_in![
    "arc_challenge",
    "arc_easy",
    "boolq",
    "commonsense_qa",
    "gsm8k",
    "gsm8k_cot",
    "hellaswag",
    "humaneval",
    "humaneval_plus",
    "math500",
    "mbpp_plus",
    "mmlu",
    "openbookqa",
    "piqa",
    "truthfulqa_mc2",
    "wikitext2",
    "winogrande",
];
