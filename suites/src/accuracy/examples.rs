//! Solved examples before the question (few-shot).
//!
//! As the reference harness's sampler `default` does it: one generator, seeded with 1234, runs on
//! through the documents, and each document draws its examples out of the whole pool.

use super::{
    dataset::{DataError, DataFile},
    random::PythonRandom,
    task::Task,
};

/// Seed of the draws; the reference harness's default.
const SEED: u32 = 1234;

/// What the examples of every document are drawn from.
#[derive(Debug)]
pub struct Examples {
    pool: Vec<String>,
    random: PythonRandom,
    count: u32,
}

impl Examples {
    /// Reads the whole pool, adding its lines to `hasher`.
    pub fn read(
        file: &DataFile,
        task: &Task,
        count: u32,
        hasher: &mut blake3::Hasher,
    ) -> Result<Self, DataError> {
        let mut pool = Vec::new();
        for line in file.lines()? {
            let line = line?;
            hasher.update(&line.bytes);
            hasher.update(b"\n");
            pool.push(line.parse(&file.path, task.question)?.solved);
        }
        if (pool.len() as u64) < u64::from(count) {
            return Err(DataError::FewExamples {
                path: file.path.clone(),
                items: pool.len() as u64,
                count,
            });
        }
        Ok(Self {
            pool,
            random: PythonRandom::new(SEED),
            count,
        })
    }

    /// Returns a pool of nothing, for questions without examples.
    pub fn none() -> Self {
        Self {
            pool: Vec::new(),
            random: PythonRandom::new(SEED),
            count: 0,
        }
    }

    /// Returns what stands before the next document's question: its examples, each with an empty
    /// line after it.
    ///
    /// Has to be called for every document from the first on, as each draw moves the generator.
    pub(crate) fn next_prefix(&mut self) -> String {
        let drawn = self
            .random
            .sample(self.pool.len() as u32, self.count)
            .expect("the pool has at least as many items as are drawn");
        drawn
            .into_iter()
            .flat_map(|i| [self.pool[i as usize].as_str(), "\n\n"])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(n: u32) -> (tempfile::TempDir, DataFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.jsonl");
        let line =
            |i| format!(r#"{{"sentence":"s{i} _ is","option1":"a","option2":"b","answer":"1"}}"#);
        let text: Vec<String> = (0..n).map(line).collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        (folder, DataFile { path })
    }

    #[test]
    fn each_document_draws_on_from_where_the_one_before_stopped() {
        let (_folder, file) = pool(20);
        let task = Task::named("winogrande").unwrap();
        let mut hasher = blake3::Hasher::new();
        let mut examples = Examples::read(&file, &task, 4, &mut hasher).unwrap();
        // CPython 3.11: Random(1234).sample(range(20), 4) gives [14, 3, 0, 2].
        assert_eq!(
            examples.next_prefix(),
            "s14 a is\n\ns3 a is\n\ns0 a is\n\ns2 a is\n\n"
        );
        assert_ne!(
            examples.next_prefix(),
            "s14 a is\n\ns3 a is\n\ns0 a is\n\ns2 a is\n\n"
        );
        assert_eq!(Examples::none().next_prefix(), "");
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
