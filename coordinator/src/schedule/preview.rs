//! Where jobs would go, and how long they would take: for people who ask before they submit.
//!
//! A forecast, not a promise: it takes every agent to be idle and nobody else's jobs to wait.

use std::collections::{BTreeMap, HashMap};

use tritmark_proto::job::{Job, SuiteSpec};

use super::Comparison;
use crate::store::StoredAgent;

/// An agent as a forecast sees it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// What it said of itself.
    pub agent: &'a StoredAgent,
    /// Whether it is there.
    pub is_connected: bool,
    /// Whether it takes nothing more.
    pub is_draining: bool,
}

/// Where a job would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Whom to; `None` if nobody fits.
    pub agent: Option<&'a StoredAgent>,
    /// How many fit.
    pub n_fitting: u32,
    /// Why the others do not, each reason with the number of agents.
    pub refusals: Vec<(String, u32)>,
}

/// Finds a place for each job, in order: the fitting agent that has the fewest so far; of a comparison
/// all performance jobs on one machine.
pub fn places<'a>(jobs: &[Job], candidates: &'a [Candidate<'a>]) -> Vec<Place<'a>> {
    let mut n_given: HashMap<&str, u32> = HashMap::new();
    let mut pins: HashMap<Comparison, &str> = HashMap::new();
    jobs.iter()
        .map(|job| {
            let mut fitting = Vec::new();
            let mut refusals: BTreeMap<String, u32> = BTreeMap::new();
            for candidate in candidates {
                match refusal(job, candidate) {
                    None => fitting.push(candidate.agent),
                    Some(why) => *refusals.entry(why).or_default() += 1,
                }
            }
            let comparison = job.suite.is_exclusive().then(|| Comparison::of(job));
            let pinned = comparison.as_ref().and_then(|it| pins.get(it).copied());
            let chosen = fitting
                .iter()
                .copied()
                .filter(|agent| pinned.is_none_or(|machine| machine == agent.machine.id))
                .min_by_key(|agent| (n_given.get(&*agent.id).copied().unwrap_or(0), &agent.id));
            if let Some(agent) = chosen {
                *n_given.entry(&agent.id).or_default() += 1;
                if let Some(comparison) = comparison {
                    pins.entry(comparison).or_insert(&agent.machine.id);
                }
            }
            Place {
                agent: chosen,
                n_fitting: u32::try_from(fitting.len()).unwrap_or(u32::MAX),
                refusals: refusals.into_iter().collect(),
            }
        })
        .collect()
}

/// Returns why an agent would not get a job.
fn refusal(job: &Job, candidate: &Candidate<'_>) -> Option<String> {
    let Candidate {
        agent,
        is_connected,
        is_draining,
    } = candidate;
    if let Some(why) = job.selector.mismatch(&agent.machine, &agent.labels) {
        return Some(why);
    }
    if !job.suite.is_among(&agent.suites) {
        return Some(format!("its build has no suite {}", job.suite.name()));
    }
    if !is_connected {
        return Some("away".to_owned());
    }
    if *is_draining {
        return Some("leaving".to_owned());
    }
    match &agent.quarantine {
        Some(why) if job.suite.is_exclusive() => Some(format!("in quarantine: {}", why.reason)),
        _ => None,
    }
}

/// Jobs that take the same time, as far as can be told: of one model, kernel, threads, numerics and
/// suite. The plan's names for things say nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind(String);

impl Kind {
    /// Returns the kind of a job.
    pub fn of(job: &Job) -> Self {
        let mut suite = job.suite.clone();
        if let SuiteSpec::Accuracy(spec) = &mut suite {
            // Where the data lie takes no time.
            spec.data_dir = std::path::PathBuf::new();
        }
        Self(format!(
            "{:?} {:?} {} {} {} {suite:?}",
            job.model.source,
            job.model.adapter,
            job.kernel,
            job.threads,
            job.numerics.name(),
        ))
    }
}

/// How long jobs of some kinds took, with the machines they ran on.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    took_ns: HashMap<Kind, Vec<(String, u64)>>,
}

/// How long a job may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The median of those before.
    pub median_ns: u64,
    /// How many.
    pub n_jobs: u32,
    /// Whether they ran on the machine asked for; else on others.
    pub is_same_machine: bool,
}

impl Experience {
    /// Takes in how long a job took.
    pub fn add(&mut self, job: &Job, machine_id: &str, took_ns: u64) {
        let known = self.took_ns.entry(Kind::of(job)).or_default();
        known.push((machine_id.to_owned(), took_ns));
    }

    /// Returns how long a job may take: by those of its kind on the machine, else by all there are;
    /// `None` if there are none.
    pub fn estimate(&self, job: &Job, machine_id: Option<&str>) -> Option<Estimate> {
        let known = self.took_ns.get(&Kind::of(job))?;
        let here: Vec<u64> = known
            .iter()
            .filter(|(machine, _)| Some(machine.as_str()) == machine_id)
            .map(|(_, took)| *took)
            .collect();
        let is_same_machine = !here.is_empty();
        let mut took = if is_same_machine {
            here
        } else {
            known.iter().map(|(_, took)| *took).collect()
        };
        took.sort_unstable();
        Some(Estimate {
            median_ns: took[took.len() / 2],
            n_jobs: u32::try_from(took.len()).unwrap_or(u32::MAX),
            is_same_machine,
        })
    }
}

#[cfg(test)]
mod tests {
    use tritmark_proto::job::{RunId, Selector};

    use super::*;
    use crate::{
        store::Quarantine,
        testing::{accuracy, agent, job, latency},
    };

    fn candidates(agents: &[StoredAgent]) -> Vec<Candidate<'_>> {
        agents
            .iter()
            .map(|agent| Candidate {
                agent,
                is_connected: true,
                is_draining: false,
            })
            .collect()
    }

    #[test]
    fn a_comparison_stays_on_one_machine_and_the_rest_is_spread() {
        let run = RunId::generate();
        let jobs = [
            job(run, 0, "full", None, latency()),
            job(run, 1, "tern", Some("full"), latency()),
            job(run, 2, "other", None, latency()),
            job(run, 3, "full", None, accuracy()),
        ];
        let agents = [agent(1), agent(2)];
        let candidates = candidates(&agents);
        let machines: Vec<&str> = places(&jobs, &candidates)
            .iter()
            .map(|place| &*place.agent.unwrap().machine.id)
            .collect();
        assert_eq!(
            machines,
            ["machine-1", "machine-1", "machine-2", "machine-2"]
        );
    }

    #[test]
    fn why_nobody_fits_is_told_with_numbers() {
        let run = RunId::generate();
        let mut job = job(run, 0, "m", None, latency());
        job.selector = Selector {
            isa: vec!["avx2".to_owned()],
            ..Selector::default()
        };
        let mut agents = [agent(1), agent(2), agent(3), agent(4), agent(5)];
        agents[0].machine.isa.clear();
        agents[1].machine.isa.clear();
        agents[2].suites = vec!["accuracy".to_owned()];
        agents[3].quarantine = Some(Quarantine {
            since_unix_ns: 1,
            reason: "int8 peak is low".to_owned(),
        });
        let mut candidates = candidates(&agents);
        candidates[4].is_connected = false;
        let jobs = [job];
        let [place] = &places(&jobs, &candidates)[..] else {
            panic!("one job, one place");
        };
        assert_eq!((place.agent, place.n_fitting), (None, 0));
        assert_eq!(
            place.refusals,
            [
                ("away".to_owned(), 1),
                ("in quarantine: int8 peak is low".to_owned(), 1),
                ("its CPU has no avx2".to_owned(), 2),
                ("its build has no suite latency".to_owned(), 1),
            ]
        );
    }

    #[test]
    fn an_estimate_rests_on_the_machine_itself_where_it_can() {
        let run = RunId::generate();
        let one = job(run, 0, "m", None, latency());
        let mut experience = Experience::default();
        assert_eq!(experience.estimate(&one, Some("a")), None);
        // Of another run and place in it, and another name for its baseline.
        let before = job(RunId::generate(), 7, "m", Some("x"), latency());
        for (machine, took) in [("a", 10), ("a", 30), ("a", 11), ("b", 100)] {
            experience.add(&before, machine, took);
        }
        experience.add(&job(run, 1, "m", None, accuracy()), "a", 5_000);
        let estimate = |median_ns, n_jobs, is_same_machine| {
            Some(Estimate {
                median_ns,
                n_jobs,
                is_same_machine,
            })
        };
        assert_eq!(experience.estimate(&one, Some("a")), estimate(11, 3, true));
        assert_eq!(experience.estimate(&one, Some("c")), estimate(30, 4, false));
    }
}
