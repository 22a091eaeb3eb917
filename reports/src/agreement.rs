//! What agreements came to: cells against their machine's reference, and references against each other.
//!
//! The verdict is equality (arXiv 2410.16144 and 2502.11880 call kernels lossless by it): no tolerance, no
//! p-value. Of machines only references are compared, which holds for their cells as well.

use std::collections::BTreeMap;

use serde::Serialize;
use tritmark_proto::{
    bundle::{JobOutcome, JobState},
    job::{AgreementSpec, KvType, Numerics, SuiteSpec},
    record::{AgreementCell, Parted},
};

use crate::{bundle::Bundle, csv, error::ReportError, units};

/// The name of the file of all cells.
pub(crate) const CSV: &str = "agreement.csv";

/// What came of the agreement of one model under one setting, on all of its machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The plan's name of the model.
    pub model: String,
    /// What was evaluated, and how.
    pub setting: String,
    /// Whether all cells and all references are equal.
    pub agrees: bool,
    /// The verdict in a reader's words, each a sentence.
    pub sentences: Vec<String>,
}

/// Returns the verdicts of a bundle, none where the run has no agreement.
pub fn verdicts(bundle: &Bundle) -> Vec<Verdict> {
    groups(bundle).iter().map(Group::verdict).collect()
}

/// A row of the file of all cells.
#[derive(Serialize)]
struct Row<'a> {
    job_index: u32,
    machine_id: &'a str,
    machine: &'a str,
    model: &'a str,
    weights_hash: &'a str,
    numerics_version: u32,
    numerics: &'static str,
    kv: &'static str,
    n_prompts: u32,
    max_len: u32,
    n_gen: u32,
    seed: u64,
    kernel: &'a str,
    threads: u32,
    n_batch: u32,
    reused_prefix: bool,
    agrees: bool,
    equal: u64,
    positions: u64,
    fingerprint: &'a str,
    reference: &'a str,
    prompt: Option<u32>,
    position: Option<u32>,
    max_abs: Option<f32>,
    kl: Option<f64>,
    margin: Option<f32>,
    expected: Option<u32>,
    found: Option<u32>,
}

/// Returns all cells as CSV, `None` where there are none.
pub(crate) fn table(bundle: &Bundle) -> Result<Option<Vec<u8>>, ReportError> {
    let groups = groups(bundle);
    let rows: Vec<Row<'_>> = groups.iter().flat_map(Group::rows).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    csv::table(&rows).map(Some)
}

/// What must be equal for references to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting<'a> {
    model: &'a str,
    weights_hash: &'a str,
    numerics_version: u32,
    numerics: Numerics,
    kv: KvType,
    /// Prompts, longest, generated tokens, seed.
    prompts: (u32, u32, u32, u64),
}

/// The agreements of one model under one setting.
#[derive(Clone, Debug)]
pub(crate) struct Group<'a> {
    setting: Setting<'a>,
    /// By machine.
    pub(crate) jobs: Vec<CellsOfJob<'a>>,
}

/// The cells of one job.
#[derive(Clone, Debug)]
pub(crate) struct CellsOfJob<'a> {
    /// The machine's name, or its id where the bundle does not know it.
    pub(crate) machine: &'a str,
    machine_id: &'a str,
    pub(crate) cells: Vec<&'a AgreementCell>,
    outcome: &'a JobOutcome,
}

/// Returns the agreements of a bundle that came to an end, in the order of their jobs.
pub(crate) fn groups(bundle: &Bundle) -> Vec<Group<'_>> {
    let mut cells: BTreeMap<u32, Vec<&AgreementCell>> = BTreeMap::new();
    for row in &bundle.cells {
        cells.entry(row.job_index).or_default().push(&row.cell);
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for outcome in &bundle.manifest.jobs {
        let SuiteSpec::Agreement(spec) = &outcome.job.suite else {
            continue;
        };
        let found = cells.remove(&outcome.job.id.index);
        let Some(cells) = found.filter(|_| outcome.state == JobState::Succeeded) else {
            continue;
        };
        let machine_id = outcome.machine_id.as_deref().unwrap_or_default();
        let machine = bundle.machine_of(outcome);
        let cells = CellsOfJob {
            machine: machine.map_or(machine_id, |machine| &machine.hostname),
            machine_id,
            cells,
            outcome,
        };
        let setting = Setting::of(outcome, spec);
        match groups.iter_mut().find(|group| group.setting == setting) {
            Some(group) => group.jobs.push(cells),
            None => groups.push(Group {
                setting,
                jobs: vec![cells],
            }),
        }
    }
    for group in &mut groups {
        group
            .jobs
            .sort_by_key(|job| (job.machine, job.machine_id, job.outcome.job.id.index));
    }
    groups
}

impl<'a> Setting<'a> {
    fn of(outcome: &'a JobOutcome, spec: &AgreementSpec) -> Self {
        let job = &outcome.job;
        let facts = outcome.facts.as_ref();
        Self {
            model: &job.model.id,
            weights_hash: facts.map_or("", |facts| &facts.weights_hash),
            numerics_version: facts.map_or(0, |facts| facts.numerics_version),
            numerics: facts.map_or(job.numerics, |facts| facts.numerics),
            kv: job.kv,
            prompts: (
                spec.n_prompts.get(),
                spec.max_len.get(),
                spec.n_gen,
                spec.seed,
            ),
        }
    }
}

impl Group<'_> {
    /// Returns the plan's name of the model.
    pub(crate) fn model(&self) -> &str {
        self.setting.model
    }

    /// Returns what was evaluated, and how.
    pub(crate) fn setting(&self) -> String {
        let Setting {
            model: _,
            weights_hash: _,
            numerics_version,
            numerics,
            kv,
            prompts: (n_prompts, max_len, n_gen, seed),
        } = &self.setting;
        format!(
            "{} of up to {} and {n_gen} generated, seed {seed}; numerics {numerics_version} {}, keys and \
             values {}",
            units::plural(u64::from(*n_prompts), "prompt"),
            units::plural(u64::from(*max_len), "token"),
            numerics.name(),
            kv.name(),
        )
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for job in &self.jobs {
            rows.extend(job.cells.iter().map(|cell| self.row(job, cell)));
        }
        rows
    }

    fn row<'a>(&'a self, job: &'a CellsOfJob<'_>, cell: &'a AgreementCell) -> Row<'a> {
        let Setting {
            model,
            weights_hash,
            numerics_version,
            numerics,
            kv,
            prompts: (n_prompts, max_len, n_gen, seed),
        } = self.setting;
        let of = |value: fn(Parted) -> u32| cell.parted.map(value);
        Row {
            job_index: job.outcome.job.id.index,
            machine_id: job.machine_id,
            machine: job.machine,
            model,
            weights_hash,
            numerics_version,
            numerics: numerics.name(),
            kv: kv.name(),
            n_prompts,
            max_len,
            n_gen,
            seed,
            kernel: &cell.kernel,
            threads: cell.threads.get(),
            n_batch: cell.n_batch.get(),
            reused_prefix: cell.reused_prefix,
            agrees: cell.agrees(),
            equal: cell.equal,
            positions: cell.positions,
            fingerprint: &cell.fingerprint,
            reference: &cell.reference,
            prompt: of(|parted| parted.prompt),
            position: of(|parted| parted.position),
            max_abs: cell.parted.map(|parted| parted.max_abs),
            kl: cell.parted.map(|parted| parted.kl),
            margin: cell.parted.map(|parted| parted.margin),
            expected: of(|parted| parted.expected),
            found: of(|parted| parted.found),
        }
    }

    /// Returns each reference's fingerprint, with the machines that it is of.
    fn references(&self) -> BTreeMap<&str, Vec<&CellsOfJob<'_>>> {
        let mut references: BTreeMap<&str, Vec<&CellsOfJob<'_>>> = BTreeMap::new();
        for job in &self.jobs {
            for reference in job.references() {
                let machines = references.entry(reference).or_default();
                if !machines
                    .iter()
                    .any(|known| known.machine_id == job.machine_id)
                {
                    machines.push(job);
                }
            }
        }
        references
    }

    /// Returns the verdict.
    pub(crate) fn verdict(&self) -> Verdict {
        let n_cells: usize = self.jobs.iter().map(|job| job.cells.len()).sum();
        let n_parted: usize = self.jobs.iter().map(CellsOfJob::n_parted).sum();
        let references = self.references();
        let mut sentences = Vec::new();
        if n_parted > 0 {
            sentences.push(format!(
                "Kernels disagree: {n_parted} of {} part from the reference of their machine.",
                units::plural(n_cells as u64, "cell")
            ));
        }
        if references.len() > 1 {
            let each: Vec<String> = references
                .iter()
                .map(|(reference, machines)| {
                    let names: Vec<&str> = machines.iter().map(|job| job.machine).collect();
                    format!("{reference} on {}", names.join(", "))
                })
                .collect();
            sentences.push(format!(
                "Machines disagree: the same weights and prompts gave the reference {}.",
                each.join("; ")
            ));
        }
        let agrees = sentences.is_empty();
        if agrees {
            let machines = references.values().map(Vec::len).sum::<usize>();
            let where_to = match machines {
                0 | 1 => String::new(),
                machines => format!(" on {machines} machines"),
            };
            sentences.push(format!(
                "All {}{where_to} give the same logits and tokens, bit for bit.",
                units::plural(n_cells as u64, "cell")
            ));
        }
        Verdict {
            model: self.model().to_owned(),
            setting: self.setting(),
            agrees,
            sentences,
        }
    }
}

impl CellsOfJob<'_> {
    /// Returns how many cells are not their reference's equal.
    pub(crate) fn n_parted(&self) -> usize {
        self.cells.iter().filter(|cell| !cell.agrees()).count()
    }

    /// Returns the reference's fingerprint; several only where a bundle contradicts itself.
    pub(crate) fn references(&self) -> Vec<&str> {
        let mut references: Vec<&str> = self.cells.iter().map(|cell| &*cell.reference).collect();
        references.sort_unstable();
        references.dedup();
        references
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DENSE_125M, Fixture, TERNARY_125M, machine};

    fn fleet() -> Fixture {
        let mut fixture = Fixture::new("agreement", vec![machine("b"), machine("a")]);
        for machine in [0, 1] {
            for model in [TERNARY_125M, DENSE_125M] {
                fixture.agreement(model, machine);
            }
        }
        fixture
    }

    fn sentences(fixture: &Fixture) -> Vec<(bool, String)> {
        groups(&fixture.bundle)
            .iter()
            .map(|group| {
                let verdict = group.verdict();
                (verdict.agrees, verdict.sentences.join(" "))
            })
            .collect()
    }

    #[test]
    fn machines_of_one_model_are_one_group_and_agree_by_their_references() {
        let fixture = fleet();
        let all = groups(&fixture.bundle);
        assert_eq!(all.len(), 2);
        let machines: Vec<&str> = all[0].jobs.iter().map(|job| job.machine).collect();
        assert_eq!(machines, ["a", "b"]);
        let equal = "All 16 cells on 2 machines give the same logits and tokens, bit for bit.";
        let expected = (true, equal.to_owned());
        assert_eq!(sentences(&fixture), [expected.clone(), expected]);
        let verdict = all[0].verdict();
        assert_eq!(verdict.model, TERNARY_125M.id);
        assert_eq!(
            verdict.setting,
            "20 prompts of up to 64 tokens and 16 generated, seed 1; numerics 1 exact, keys and values f32"
        );
    }

    #[test]
    fn a_cell_that_parts_is_told() {
        let mut fixture = fleet();
        fixture.part(0, 3);
        let found = sentences(&fixture);
        let parted = "Kernels disagree: 1 of 16 cells part from the reference of their machine.";
        assert_eq!(found[0], (false, parted.to_owned()));
        assert!(found[1].0);
    }

    #[test]
    fn a_machine_whose_reference_differs_is_told_with_the_others() {
        let mut fixture = fleet();
        let other = "0123456789abcdef0123456789abcdef";
        fixture.another_reference(2, other);
        let found = sentences(&fixture);
        assert_eq!(
            found[0],
            (
                false,
                format!(
                    "Machines disagree: the same weights and prompts gave the reference {other} on a; \
                     {} on b.",
                    crate::testing::REFERENCE
                )
            )
        );
        // Other weights under that name are no disagreement.
        let outcome = &mut fixture.bundle.manifest.jobs[2];
        outcome.facts.as_mut().unwrap().weights_hash = "others".to_owned();
        let found = sentences(&fixture);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|(agrees, _)| *agrees));
    }

    #[test]
    fn what_did_not_come_to_an_end_has_no_verdict() {
        let mut fixture = fleet();
        for outcome in &mut fixture.bundle.manifest.jobs {
            outcome.state = JobState::Failed;
        }
        assert!(groups(&fixture.bundle).is_empty());
    }
}
