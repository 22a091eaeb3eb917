//! The accuracy suite: which tasks, asked how.

use std::{fs::File, io::Read as _, num::NonZeroU32};

use toml::Spanned;
use tritmark_proto::job::{AccuracySpec, ChatSpec, ScoreOn, Shard, SuiteSpec};

use super::{
    super::{PlanError, PlanModel, PlanSpec, PlanSuite, document, names},
    MAX_BATCH, MAX_FEWSHOT, MAX_TASK_BYTES, MAX_TOKENS, Reader,
};

/// A task of the plan.
struct Wanted {
    name: String,
    /// The text of its own file.
    definition: Option<String>,
    num_fewshot: u32,
    generates: bool,
    is_program: bool,
    at: usize,
}

impl Reader<'_> {
    pub(super) fn accuracy(
        &self,
        suite: &Spanned<document::Accuracy>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let document::Accuracy {
            tasks: _,
            task_files: _,
            data,
            preset,
            limit,
            num_fewshot,
            add_bos,
            chat,
            system,
            fewshot_as_multiturn,
            max_new,
            batch,
            shards,
            evalplus_compat,
            score_on,
            cache,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        if let Some(preset) = preset {
            self.known("preset", preset, &names::PRESETS)?;
        }
        let is_paper = preset
            .as_ref()
            .is_some_and(|preset| preset.get_ref() == "bitnet-2b4t");
        let all = self.wanted(suite, is_paper)?;
        if data.get_ref().is_empty() {
            return Err(self.error(data, "the path is empty"));
        }
        let positive = |number: &Option<Spanned<u32>>, max| match number {
            Some(number) => self.number(number, 1, max).map(NonZeroU32::new),
            None => Ok(None),
        };
        let limit = positive(limit, u32::MAX)?;
        let max_new = positive(max_new, MAX_TOKENS)?;
        let batch = positive(batch, MAX_BATCH)?;
        let shards = positive(shards, MAX_BATCH)?;
        let num_fewshot = match num_fewshot {
            Some(num_fewshot) => Some(self.number(num_fewshot, 0, MAX_FEWSHOT)?),
            None => None,
        };
        let data_dir = self.base_dir.join(data.get_ref());
        let chat_spec = ChatSpec {
            system: system.clone(),
            fewshot_as_multiturn: fewshot_as_multiturn.unwrap_or(false),
        };
        let (place, score_on_at) = self.place(score_on.as_ref(), &all)?;
        let mut specs = Vec::new();
        for task in all {
            // The paper asked for a chat where answers are generated.
            let is_chat = chat.unwrap_or(is_paper && task.generates);
            let spec = AccuracySpec {
                limit,
                num_fewshot: num_fewshot.unwrap_or(task.num_fewshot),
                // The models are trained with BOS before everything.
                add_bos: add_bos.unwrap_or(true),
                definition: task.definition,
                chat: is_chat.then(|| chat_spec.clone()),
                max_new: max_new.filter(|_| task.generates),
                batch,
                evalplus_compat: evalplus_compat.unwrap_or(false),
                score_on: if task.is_program {
                    place
                } else {
                    ScoreOn::Agent
                },
                cache: cache.unwrap_or(false),
                ..AccuracySpec::new(task.name, &data_dir)
            };
            specs.extend(divided(&spec, shards.unwrap_or(NonZeroU32::MIN), task.at));
        }
        let suite = self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )?;
        Ok(PlanSuite {
            score_on_at,
            ..suite
        })
    }

    /// Returns the tasks that are asked for, at least one and none twice.
    fn wanted(
        &self,
        suite: &Spanned<document::Accuracy>,
        is_paper: bool,
    ) -> Result<Vec<Wanted>, PlanError> {
        let mut all = Vec::new();
        if let Some(tasks) = &suite.get_ref().tasks {
            self.distinct(tasks, tasks.get_ref())?;
            for task in tasks.get_ref() {
                all.push(self.built_in(task, is_paper)?);
            }
        }
        if let Some(files) = &suite.get_ref().task_files {
            for file in files.get_ref() {
                all.push(self.own_task(file)?);
            }
        }
        if let Some(twice) = (1..all.len()).find(|i| {
            let same = |task: &Wanted| task.name == all[*i].name;
            all[..*i].iter().any(same)
        }) {
            let problem = format!("the task `{}` is in the plan twice", all[twice].name);
            return Err(self.locator.error(all[twice].at, problem));
        }
        if all.is_empty() {
            let problem = "the suite has no task, neither in `tasks` nor in `task_files`";
            return Err(self.locator.error(suite.span().start, problem));
        }
        Ok(all)
    }

    /// Returns where programs are scored, and the place of the key that has the coordinator do it.
    ///
    /// Of other answers nothing is left to score: their scores follow from them, on any machine.
    fn place(
        &self,
        score_on: Option<&Spanned<String>>,
        tasks: &[Wanted],
    ) -> Result<(ScoreOn, Option<usize>), PlanError> {
        let Some(score_on) = score_on else {
            return Ok((ScoreOn::Agent, None));
        };
        self.known("place", score_on, &ScoreOn::ALL.map(ScoreOn::name))?;
        let place = ScoreOn::from_name(score_on.get_ref()).expect("it is among them");
        if place == ScoreOn::Agent {
            return Ok((place, None));
        }
        if !tasks.iter().any(|task| task.is_program) {
            let problem = "none of the suite's tasks has programs for answers; all others are scored \
                           with their answers, alike on every machine";
            return Err(self.error(score_on, problem));
        }
        Ok((place, Some(score_on.span().start)))
    }

    fn built_in(&self, task: &Spanned<String>, is_paper: bool) -> Result<Wanted, PlanError> {
        let all = names::TASKS.map(|task| task.name);
        self.known("task", task, &all)?;
        let known = names::task_named(task.get_ref()).expect("it is among them");
        let paper = is_paper.then_some(known.bitnet_2b4t).flatten();
        Ok(Wanted {
            name: known.name.to_owned(),
            definition: None,
            num_fewshot: paper.unwrap_or(known.num_fewshot),
            generates: known.generates,
            is_program: known.is_program,
            at: task.span().start,
        })
    }

    /// Reads a task's own file; the worker checks all of it, the plan what it needs itself.
    fn own_task(&self, file: &Spanned<String>) -> Result<Wanted, PlanError> {
        let path = self.base_dir.join(file.get_ref());
        let problem = |what: String| self.error(file, format!("{}: {what}", path.display()));
        let mut text = String::new();
        File::open(&path)
            .and_then(|opened| opened.take(MAX_TASK_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| problem(error.to_string()))?;
        if text.len() as u64 > MAX_TASK_BYTES {
            return Err(problem(format!("has more than {MAX_TASK_BYTES} bytes")));
        }
        let table: toml::Table =
            toml::from_str(&text).map_err(|error| problem(error.to_string()))?;
        let name = table
            .get("name")
            .and_then(toml::Value::as_str)
            .ok_or_else(|| problem("key `name` is missing or no text".to_owned()))?;
        if names::task_named(name).is_some() {
            return Err(problem(format!("`{name}` is the name of a built-in task")));
        }
        let count = table
            .get("fewshot")
            .and_then(|fewshot| fewshot.get("count"))
            .and_then(toml::Value::as_integer);
        let kind = table.get("kind").and_then(toml::Value::as_str);
        Ok(Wanted {
            name: name.to_owned(),
            num_fewshot: count.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            generates: matches!(kind, Some("generate_until" | "program")),
            is_program: kind == Some("program"),
            definition: Some(text),
            at: file.span().start,
        })
    }
}

/// Returns a task's jobs: one for each of `count` shards.
fn divided(
    spec: &AccuracySpec,
    count: NonZeroU32,
    at: usize,
) -> impl Iterator<Item = PlanSpec> + use<'_> {
    (0..count.get()).map(move |index| PlanSpec {
        spec: SuiteSpec::Accuracy(AccuracySpec {
            shard: (count.get() > 1).then_some(Shard { index, count }),
            ..spec.clone()
        }),
        at,
    })
}
