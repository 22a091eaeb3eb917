//! Solved examples before the question (few-shot).
//!
//! As the reference harness's samplers do it. `random`: one generator, seeded with 1234, runs on
//! through the documents, and each document draws its examples out of the whole pool. `first_n`:
//! the pool's first. A task in parts (MMLU's subjects) has a pool and a generator for each.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    dataset::{DataError, DataFile},
    definition::Sampler,
    random::PythonRandom,
    task::{Solved, Task},
};

/// Seed of the draws; the reference harness's default.
const SEED: u32 = 1234;

/// What the examples of every document are drawn from.
#[derive(Debug)]
pub struct Examples {
    pools: BTreeMap<Option<String>, Pool>,
    sampler: Sampler,
    draws_one_more: bool,
    count: u32,
}

#[derive(Debug)]
struct Pool {
    examples: Vec<Example>,
    random: PythonRandom,
}

#[derive(Debug)]
struct Example {
    solved: Solved,
    /// The example's line, to know the item itself by.
    line: blake3::Hash,
}

impl Examples {
    /// Reads the whole pool, adding its lines to `hasher`.
    pub fn read(
        file: &DataFile,
        task: &Task,
        count: u32,
        hasher: &mut blake3::Hasher,
    ) -> Result<Self, DataError> {
        let mut all = Self::of(task, count);
        for line in file.lines()? {
            let line = line?;
            hasher.update(&line.bytes);
            hasher.update(b"\n");
            let (group, solved) = line.parse(&file.path, |item| {
                Ok((task.group(item)?, task.solved(item)?))
            })?;
            all.push(group, solved, blake3::hash(&line.bytes));
        }
        for pool in all.pools.values() {
            let items = pool.examples.len() as u64;
            if items < u64::from(all.drawn()) {
                return Err(DataError::FewExamples {
                    path: file.path.clone(),
                    items,
                    count: all.drawn(),
                });
            }
        }
        Ok(all)
    }

    /// Takes the examples that stand in the task's definition.
    pub(super) fn fixed(task: &Task, count: u32) -> Result<Self, DataError> {
        let mut all = Self::of(task, count);
        let samples = &task.definition.fewshot.samples;
        if (samples.len() as u64) < u64::from(all.drawn()) {
            return Err(DataError::FewExamples {
                path: format!("the definition of {}", task.name()).into(),
                items: samples.len() as u64,
                count: all.drawn(),
            });
        }
        for (number, sample) in (1..).zip(samples) {
            let item = serde_json::to_value(sample).unwrap_or(Value::Null);
            let solved = task.solved(&item).map_err(|source| DataError::Field {
                path: format!("the definition of {}", task.name()).into(),
                line: number,
                source,
            })?;
            all.push(None, solved, blake3::hash(&number.to_le_bytes()));
        }
        Ok(all)
    }

    /// Returns a pool of nothing, for questions without examples.
    pub(super) fn none(task: &Task) -> Self {
        Self::of(task, 0)
    }

    fn of(task: &Task, count: u32) -> Self {
        let fewshot = &task.definition.fewshot;
        Self {
            pools: BTreeMap::new(),
            sampler: fewshot.sampler,
            draws_one_more: fewshot.draws_one_more,
            count,
        }
    }

    fn push(&mut self, group: Option<String>, solved: Solved, line: blake3::Hash) {
        let pool = self.pools.entry(group).or_insert_with(|| Pool {
            examples: Vec::new(),
            random: PythonRandom::new(SEED),
        });
        pool.examples.push(Example { solved, line });
    }

    fn drawn(&self) -> u32 {
        self.count + u32::from(self.draws_one_more)
    }

    /// Returns the examples of the next document, in the order they stand in; `None` where its part
    /// of the task has none.
    ///
    /// Has to be called for every document from the first on, as each draw moves the generator.
    pub(super) fn next(
        &mut self,
        group: Option<&str>,
        document: &blake3::Hash,
    ) -> Option<Vec<Solved>> {
        if self.count == 0 {
            return Some(Vec::new());
        }
        let drawn = self.drawn();
        let sampler = self.sampler;
        let pool = self.pools.get_mut(&group.map(str::to_owned))?;
        let indices = match sampler {
            Sampler::Random => pool.random.sample(pool.examples.len() as u32, drawn)?,
            Sampler::FirstN => (0..drawn).collect(),
        };
        let is_itself = |example: &&Example| self.draws_one_more && example.line == *document;
        let examples = indices
            .into_iter()
            .map(|i| &pool.examples[i as usize])
            .filter(|example| !is_itself(example))
            .take(self.count as usize)
            .map(|example| example.solved.clone());
        Some(examples.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::definition::Format;

    fn pool(n: u32) -> (tempfile::TempDir, DataFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.jsonl");
        let line =
            |i| format!(r#"{{"sentence":"s{i} _ is","option1":"a","option2":"b","answer":"1"}}"#);
        let text: Vec<String> = (0..n).map(line).collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        let format = Format::JsonLines;
        (folder, DataFile { path, format })
    }

    fn questions(examples: &mut Examples, document: &blake3::Hash) -> Vec<String> {
        let drawn = examples.next(None, document).unwrap();
        drawn.into_iter().map(|solved| solved.question).collect()
    }

    #[test]
    fn each_document_draws_on_from_where_the_one_before_stopped() {
        let (_folder, file) = pool(20);
        let task = Task::named("winogrande").unwrap();
        let mut examples = Examples::read(&file, &task, 4, &mut blake3::Hasher::new()).unwrap();
        let document = blake3::hash(b"");
        // CPython 3.11: Random(1234).sample(range(20), 4) gives [14, 3, 0, 2].
        let first = questions(&mut examples, &document);
        assert_eq!(first, ["s14 a", "s3 a", "s0 a", "s2 a"]);
        assert_ne!(questions(&mut examples, &document), first);
        assert_eq!(
            Examples::none(&task).next(None, &document),
            Some(Vec::new())
        );
    }

    #[test]
    fn the_item_itself_is_no_example_where_one_more_is_drawn() {
        let (_folder, file) = pool(20);
        let mut task = Task::named("winogrande").unwrap();
        task.definition.fewshot.draws_one_more = true;
        let read = || Examples::read(&file, &task, 3, &mut blake3::Hasher::new()).unwrap();
        let line = file.lines().unwrap().nth(3).unwrap().unwrap();
        let itself = blake3::hash(&line.bytes);
        assert_eq!(questions(&mut read(), &itself), ["s14 a", "s0 a", "s2 a"]);
        let other = blake3::hash(b"");
        assert_eq!(questions(&mut read(), &other), ["s14 a", "s3 a", "s0 a"]);
    }

    #[test]
    fn a_pool_that_is_too_small_is_refused() {
        let (_folder, file) = pool(3);
        let task = Task::named("winogrande").unwrap();
        let error = Examples::read(&file, &task, 4, &mut blake3::Hasher::new()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("has 3 items, too few for 4 examples")
        );
    }
}
