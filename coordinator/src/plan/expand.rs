//! From a plan to its jobs.

use tritmark_proto::job::{Job, JobId, RunId, SuiteSpec};

use super::{Plan, PlanModel, PlanSuite};

/// Returns how many jobs the plan has, without making them.
pub(super) fn count(plan: &Plan) -> u64 {
    let per_selector = plan.suites.iter().fold(0_u64, |n, suite| {
        let per_spec = models_of(plan, suite).fold(0_u64, |n, model| {
            let (threads, kernels) = settings(suite, model);
            n.saturating_add((threads.len() as u64).saturating_mul(kernels.len() as u64))
        });
        n.saturating_add(per_spec.saturating_mul(suite.specs.len() as u64))
    });
    per_selector.saturating_mul(plan.selectors.len() as u64)
}

/// Makes the jobs: selector by selector, suite by suite, workload by workload; within those the
/// models, each comparison in one piece with its baseline first.
pub(super) fn jobs(plan: &Plan, run: RunId) -> Vec<Job> {
    let mut jobs = Vec::new();
    for selector in &plan.selectors {
        for suite in &plan.suites {
            let models: Vec<&PlanModel> = models_of(plan, suite).collect();
            for spec in &suite.specs {
                for comparison in comparisons(&models) {
                    push_comparison(&mut jobs, run, &comparison, |model| {
                        let (threads, kernels) = settings(suite, model);
                        (threads, kernels, &spec.spec, &selector.selector)
                    });
                }
            }
        }
    }
    jobs
}

type Settings<'a> = (
    &'a [std::num::NonZeroU32],
    &'a [String],
    &'a SuiteSpec,
    &'a tritmark_proto::job::Selector,
);

/// Adds the jobs of one comparison: equal settings of its models side by side.
fn push_comparison<'a>(
    jobs: &mut Vec<Job>,
    run: RunId,
    models: &[&'a PlanModel],
    settings_of: impl Fn(&'a PlanModel) -> Settings<'a>,
) {
    let rounds = models
        .iter()
        .map(|model| {
            let (threads, kernels, ..) = settings_of(model);
            threads.len() * kernels.len()
        })
        .max()
        .unwrap_or(0);
    for round in 0..rounds {
        for model in models {
            let (threads, kernels, suite, selector) = settings_of(model);
            let Some(&n_threads) = threads.get(round / kernels.len()) else {
                continue;
            };
            jobs.push(Job {
                id: JobId {
                    run,
                    index: jobs.len() as u32,
                },
                model: model.model.clone(),
                kernel: kernels[round % kernels.len()].clone(),
                numerics: model.how.numerics,
                kv: model.how.kv,
                head: model.how.head,
                threads: n_threads,
                suite: suite.clone(),
                selector: selector.clone(),
            });
        }
    }
}

/// Returns the models of a suite in the plan's order.
fn models_of<'a>(plan: &'a Plan, suite: &'a PlanSuite) -> impl Iterator<Item = &'a PlanModel> {
    plan.models
        .iter()
        .enumerate()
        .filter(|(position, _)| {
            suite
                .models
                .as_ref()
                .is_none_or(|wanted| wanted.contains(position))
        })
        .map(|(_, model)| model)
}

/// Returns the threads and kernels a model runs with in a suite.
fn settings<'a>(
    suite: &'a PlanSuite,
    model: &'a PlanModel,
) -> (&'a [std::num::NonZeroU32], &'a [String]) {
    let once = suite
        .specs
        .iter()
        .any(|spec| matches!(spec.spec, SuiteSpec::Accuracy(_)));
    let threads = match &suite.threads {
        Some(threads) => threads,
        None if once => most(&model.threads),
        None => &model.threads[..],
    };
    let kernels = match &suite.kernels {
        Some(kernels) => kernels,
        None if once => &model.kernels[..1],
        None => &model.kernels[..],
    };
    (threads, kernels)
}

/// Returns the largest of `threads`, as a slice.
fn most(threads: &[std::num::NonZeroU32]) -> &[std::num::NonZeroU32] {
    let at = (0..threads.len())
        .max_by_key(|at| threads[*at])
        .expect("a model has at least one number of threads");
    &threads[at..=at]
}

/// Groups models with their baselines, in order of first appearance; the baseline comes first.
fn comparisons<'a>(models: &[&'a PlanModel]) -> Vec<Vec<&'a PlanModel>> {
    let mut groups: Vec<(&str, Vec<&PlanModel>)> = Vec::new();
    for &model in models {
        let id = model.model.id.as_str();
        let root = model.model.baseline.as_deref().unwrap_or(id);
        let known = groups.iter().position(|(name, _)| *name == root);
        let at = known.unwrap_or_else(|| {
            groups.push((root, Vec::new()));
            groups.len() - 1
        });
        if id == root {
            groups[at].1.insert(0, model);
        } else {
            groups[at].1.push(model);
        }
    }
    groups.into_iter().map(|(_, models)| models).collect()
}
