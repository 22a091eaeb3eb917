//! Questions in full, made anew from the data that a run was asked from.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};
use tritmark_proto::job::{AccuracySpec, SuiteSpec};
use tritmark_reports::{
    bundle::Bundle,
    export::{Asked, Questions},
};
use tritmark_suites::accuracy::{Data, DataError, DataFile, Prompt, Question, Task};

/// Makes the questions of all accuracy jobs of a bundle whose data are here, in `data` or where the
/// plan has them. What cannot be made is left out, with a warning: an export does without.
pub(super) fn of(bundle: &Bundle, data: Option<&Path>) -> Questions {
    let mut questions = Questions::default();
    let mut done = BTreeSet::new();
    for outcome in &bundle.manifest.jobs {
        let SuiteSpec::Accuracy(spec) = &outcome.job.suite else {
            continue;
        };
        let mut spec = spec.clone();
        // All of them at once; which is whose is told by their hashes.
        spec.shard = None;
        if let Some(data) = data {
            data.clone_into(&mut spec.data_dir);
        }
        let name = format!("{spec:?}");
        if !done.insert(name) {
            continue;
        }
        if spec.chat.is_some() {
            tracing::warn!(
                task = spec.task,
                "asked in a chat, whose form is the model's: the export has no prompts"
            );
            continue;
        }
        if let Err(problem) = add(&mut questions, &spec) {
            tracing::warn!(task = spec.task, problem, "the export has no questions");
        }
    }
    questions
}

fn add(questions: &mut Questions, spec: &AccuracySpec) -> Result<(), String> {
    let task = match &spec.definition {
        Some(text) => Task::parse(text).map_err(|error| error.to_string())?,
        None => Task::named(&spec.task).map_err(|error| error.to_string())?,
    };
    let said = |error: DataError| tritmark_suites::chain(&error);
    let definition = &task.definition;
    let folder = spec.data_dir.join(definition.folder());
    let file = DataFile::find(&folder, &definition.data.items, definition.data.format);
    let lines = file.and_then(|file| file.lines()).map_err(said)?;
    let generation = definition.generation.as_ref().map_or(Value::Null, |how| {
        json!({
            "until": how.until,
            "do_sample": false,
            "max_gen_toks": spec.max_new.map_or(how.max_new, std::num::NonZeroU32::get),
        })
    });
    let prompts = Data::open(&task, spec).map_err(said)?;
    for (prompt, line) in prompts.zip(lines) {
        let (prompt, line) = (prompt.map_err(said)?, line.map_err(said)?);
        let asked = Asked {
            // Numbers that no JSON reader takes are in programs' tests alone.
            document: serde_json::from_slice(&line.bytes).unwrap_or_else(|_| json!({})),
            requests: requests(&prompt),
            generation: generation.clone(),
        };
        questions.add(prompt.hash(), asked);
    }
    Ok(())
}

fn requests(prompt: &Prompt) -> Vec<(String, String)> {
    let alone = |text: &str| vec![(text.to_owned(), String::new())];
    match &prompt.question {
        Question::Choice(choice) => choice
            .requests
            .iter()
            .map(|request| (request.context.clone(), request.continuation.clone()))
            .collect(),
        Question::Generate { context, .. } => alone(context),
        Question::Rolling { text, .. } => alone(text),
        Question::Program(problem) => alone(problem.context()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, path::PathBuf};

    use flate2::read::GzDecoder;

    use super::*;

    fn made(spec: &AccuracySpec) -> Vec<Asked> {
        let mut questions = Questions::default();
        add(&mut questions, spec).unwrap();
        let task = Task::named(&spec.task).unwrap();
        Data::open(&task, spec)
            .unwrap()
            .map(|prompt| questions.get(&prompt.unwrap().hash()).unwrap().clone())
            .collect()
    }

    #[test]
    fn questions_are_whole() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mini");
        let mut spec = AccuracySpec::new("arc_easy", &data);
        spec.limit = std::num::NonZeroU32::new(3);
        let asked = made(&spec);
        assert_eq!(asked.len(), 3);
        for asked in asked {
            let question = asked.document["question"].as_str().unwrap();
            let texts = asked.document["choices"]["text"].as_array().unwrap();
            assert_eq!(asked.requests.len(), texts.len());
            for ((context, answer), text) in asked.requests.iter().zip(texts) {
                assert_eq!(*context, format!("Question: {question}\nAnswer:"));
                assert_eq!(*answer, format!(" {}", text.as_str().unwrap()));
            }
            assert_eq!(asked.generation, Value::Null);
        }
        spec.data_dir = "/nonexistent".into();
        let problem = add(&mut Questions::default(), &spec).unwrap_err();
        assert!(problem.contains("/nonexistent/arc_easy"), "{problem}");
    }

    /// The hash of each document is the reference's, in runs that it wrote itself.
    #[test]
    fn documents_have_the_hashes_of_lm_eval() {
        let Some(data) = std::env::var_os("TRITMARK_DATA").map(PathBuf::from) else {
            eprintln!("NOT RUN: documents_have_the_hashes_of_lm_eval needs TRITMARK_DATA");
            return;
        };
        let golden = data.join("golden/lm-eval/llama-tiny.f32.json.gz");
        let mut text = String::new();
        GzDecoder::new(std::fs::File::open(golden).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        let golden: Value = serde_json::from_str(&text).unwrap();
        let mut n = 0;
        // Without hellaswag, whose documents the reference changes first, and boolq, which it had from
        // another copy of the data set.
        for name in [
            "arc_challenge",
            "arc_easy",
            "winogrande",
            "openbookqa",
            "piqa",
            "gsm8k",
        ] {
            let items = &golden["tasks"][format!("{name}:0shot")]["items"];
            let asked = made(&AccuracySpec::new(name, &data));
            for item in items.as_array().unwrap() {
                let at = usize::try_from(item["doc_id"].as_u64().unwrap()).unwrap();
                assert_eq!(item["doc_hash"], asked[at].doc_hash(), "{name} {at}");
                n += 1;
            }
        }
        assert_eq!(n, 400);
    }
}
