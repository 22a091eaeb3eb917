//! The agreement suite: how many prompts, and in which ways each is computed.

use std::num::NonZeroU32;

use toml::Spanned;
use tritmark_proto::job::{AgreementSpec, SuiteSpec};

use super::{
    super::{
        PlanError, PlanModel, PlanSpec, PlanSuite,
        document::{self, List},
        names,
    },
    Reader,
};

/// What is done where a plan says nothing, as `tritmark agree` does. The papers' own test has 1000
/// prompts.
const N_PROMPTS: NonZeroU32 = NonZeroU32::new(100).expect("it is not 0");
const MAX_LEN: NonZeroU32 = NonZeroU32::new(64).expect("it is not 0");
const N_GEN: u32 = 16;
const SEED: u64 = 1;
const THREADS: [u32; 3] = [1, 2, 3];
const N_BATCH: [u32; 4] = [1, 7, 32, 512];

impl Reader<'_> {
    /// Reads the suite. It is one job a model: kernels, threads and batches are its cells.
    pub(super) fn agreement(
        &self,
        suite: &Spanned<document::Agreement>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let document::Agreement {
            n_prompts,
            max_len,
            n_gen,
            seed,
            threads,
            n_batch,
            models: wanted,
        } = suite.get_ref();
        let max_tokens = AgreementSpec::MAX_TOKENS;
        let threads = self.cells(threads.as_ref(), &THREADS, AgreementSpec::MAX_THREADS)?;
        let most = threads.iter().copied().max();
        let spec = AgreementSpec {
            n_prompts: self.positive(n_prompts.as_ref(), N_PROMPTS, AgreementSpec::MAX_PROMPTS)?,
            max_len: self.positive(max_len.as_ref(), MAX_LEN, max_tokens)?,
            n_gen: match n_gen {
                Some(n_gen) => self.number(n_gen, 0, max_tokens)?,
                None => N_GEN,
            },
            seed: seed.unwrap_or(SEED),
            threads,
            n_batch: self.cells(n_batch.as_ref(), &N_BATCH, max_tokens)?,
        };
        let specs = vec![PlanSpec {
            spec: SuiteSpec::Agreement(spec),
            at: suite.span().start,
        }];
        Ok(PlanSuite {
            threads: most.map(|threads| vec![threads]),
            kernels: Some(vec![names::AUTO_KERNEL.to_owned()]),
            ..self.suite(specs, models, wanted.as_ref(), None, None)?
        })
    }

    /// Reads numbers of which each is in cells of its own.
    fn cells(
        &self,
        list: Option<&List<u32>>,
        default: &[u32],
        max: u32,
    ) -> Result<Vec<NonZeroU32>, PlanError> {
        let numbers = match list {
            Some(list) if list.get_ref().len() > AgreementSpec::MAX_VALUES => {
                let (n, most) = (list.get_ref().len(), AgreementSpec::MAX_VALUES);
                return Err(self.error(list, format!("{n} numbers, at most {most} are taken")));
            }
            Some(list) => self.numbers(list, 1, max)?,
            None => default.to_vec(),
        };
        Ok(numbers.into_iter().filter_map(NonZeroU32::new).collect())
    }
}
