//! The suites of a plan, each with its workloads or tasks.

use std::num::NonZeroU32;

use toml::Spanned;
use tritmark_proto::job::{EnergySpec, LatencySpec, MemorySpec, SuiteSpec, Workload};

use super::{
    super::{
        MAX_JOBS, PlanError, PlanModel, PlanSpec, PlanSuite,
        document::{self, List},
    },
    MAX_REPETITIONS, MAX_TOKENS, Reader,
};

impl Reader<'_> {
    /// Multiplies the lists of one suite, and makes a spec of each workload; the order of nesting
    /// is prompt, gen, depth, batch.
    fn workloads(
        &self,
        suite_at: usize,
        [n_prompt, n_gen, n_depth, n_batch]: [&Option<List<u32>>; 4],
        spec: impl Fn(Workload) -> SuiteSpec,
    ) -> Result<Vec<PlanSpec>, PlanError> {
        let [n_prompt, n_gen, n_depth, n_batch] =
            [n_prompt, n_gen, n_depth, n_batch].map(Option::as_ref);
        let zero_at = n_gen
            .or(n_prompt)
            .map_or(suite_at, |list| list.span().start);
        let read = |list: Option<&List<u32>>, min, default: u32| match list {
            Some(list) => self.numbers(list, min, MAX_TOKENS),
            None => Ok(vec![default]),
        };
        let n_prompts = read(n_prompt, 0, 512)?;
        let n_gens = read(n_gen, 0, 128)?;
        let n_depths = read(n_depth, 0, 0)?;
        let n_batches = read(n_batch, 1, 512)?;
        let n = [&n_prompts, &n_gens, &n_depths, &n_batches]
            .into_iter()
            .fold(1_u64, |n, list| n.saturating_mul(list.len() as u64));
        if n > MAX_JOBS {
            return Err(self.locator.error(
                suite_at,
                format!("the lists multiply to {n} workloads, at most {MAX_JOBS} are taken"),
            ));
        }
        let mut specs = Vec::new();
        for &n_prompt in &n_prompts {
            for &n_gen in &n_gens {
                if n_prompt == 0 && n_gen == 0 {
                    return Err(self.locator.error(
                        zero_at,
                        "a workload of neither prompt nor generated tokens measures nothing",
                    ));
                }
                for &n_depth in &n_depths {
                    for &n_batch in &n_batches {
                        let workload = Workload {
                            n_prompt,
                            n_gen,
                            n_depth,
                            n_batch,
                        };
                        specs.push(PlanSpec {
                            spec: spec(workload),
                            at: suite_at,
                        });
                    }
                }
            }
        }
        Ok(specs)
    }

    /// Reads the suites in the order they run: memory, latency, energy, accuracy, agreement.
    pub(super) fn suites(
        &self,
        suites: Spanned<document::Suites>,
        models: &[PlanModel],
    ) -> Result<Vec<PlanSuite>, PlanError> {
        let at = suites.span().start;
        let document::Suites {
            memory,
            latency,
            energy,
            accuracy,
            agreement,
        } = suites.into_inner();
        let mut all = Vec::new();
        if let Some(suite) = memory {
            all.push(self.memory(&suite, models)?);
        }
        if let Some(suite) = latency {
            all.push(self.latency(&suite, models)?);
        }
        if let Some(suite) = energy {
            all.push(self.energy(&suite, models)?);
        }
        if let Some(suite) = accuracy {
            all.push(self.accuracy(&suite, models)?);
        }
        if let Some(suite) = agreement {
            all.push(self.agreement(&suite, models)?);
        }
        if all.is_empty() {
            return Err(self.locator.error(
                at,
                "the plan has no suite, there are memory, latency, energy, accuracy and agreement",
            ));
        }
        Ok(all)
    }

    fn memory(
        &self,
        suite: &Spanned<document::Memory>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let at = suite.span().start;
        let document::Memory {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        let lists = [n_prompt, n_gen, n_depth, n_batch];
        let specs = self.workloads(at, lists, |workload| {
            SuiteSpec::Memory(MemorySpec { workload })
        })?;
        self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )
    }

    fn latency(
        &self,
        suite: &Spanned<document::Latency>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let at = suite.span().start;
        let document::Latency {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            warm_ups,
            repetitions,
            probe,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        let warm_ups = match warm_ups {
            Some(warm_ups) => self.number(warm_ups, 0, MAX_REPETITIONS)?,
            None => 1,
        };
        let repetitions = self.positive(
            repetitions.as_ref(),
            const { NonZeroU32::new(5).expect("5 is not 0") },
            MAX_REPETITIONS,
        )?;
        let lists = [n_prompt, n_gen, n_depth, n_batch];
        let specs = self.workloads(at, lists, |workload| {
            SuiteSpec::Latency(LatencySpec {
                workload,
                warm_ups,
                repetitions,
                probe: probe.unwrap_or(true),
            })
        })?;
        self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )
    }

    fn energy(
        &self,
        suite: &Spanned<document::Energy>,
        models: &[PlanModel],
    ) -> Result<PlanSuite, PlanError> {
        let at = suite.span().start;
        let document::Energy {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
            repetitions,
            idle_seconds,
            window_seconds,
            models: wanted,
            threads,
            kernels,
        } = suite.get_ref();
        let repetitions = self.positive(
            repetitions.as_ref(),
            const { NonZeroU32::new(3).expect("3 is not 0") },
            MAX_REPETITIONS,
        )?;
        let idle_seconds = self.seconds(idle_seconds.as_ref(), 5.0)?;
        let window_seconds = self.seconds(window_seconds.as_ref(), 2.0)?;
        let lists = [n_prompt, n_gen, n_depth, n_batch];
        let specs = self.workloads(at, lists, |workload| {
            SuiteSpec::Energy(EnergySpec {
                workload,
                repetitions,
                idle_seconds,
                window_seconds,
            })
        })?;
        self.suite(
            specs,
            models,
            wanted.as_ref(),
            threads.as_ref(),
            kernels.as_ref(),
        )
    }

    pub(super) fn suite(
        &self,
        specs: Vec<PlanSpec>,
        models: &[PlanModel],
        wanted: Option<&List<String>>,
        threads: Option<&List<u32>>,
        kernels: Option<&List<String>>,
    ) -> Result<PlanSuite, PlanError> {
        let models = match wanted {
            Some(wanted) => {
                self.distinct(wanted, wanted.get_ref())?;
                let mut positions = Vec::new();
                for id in wanted.get_ref() {
                    let position = models
                        .iter()
                        .position(|model| model.model.id == *id.get_ref())
                        .ok_or_else(|| {
                            self.error(id, format!("no model has the id `{}`", id.get_ref()))
                        })?;
                    positions.push(position);
                }
                Some(positions)
            }
            None => None,
        };
        Ok(PlanSuite {
            score_on_at: None,
            specs,
            models,
            threads: self.threads(threads)?,
            kernels: self.kernels(kernels)?,
        })
    }
}
