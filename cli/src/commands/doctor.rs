//! `tritmark doctor`: what this machine can measure, and how to make it measure more.

use std::{fs::File, path::Path};

use serde_json::{Value, json};
use tritmark_agent::{
    inventory::{self, Inventory},
    lock,
};
use tritmark_engine::kernels;
use tritmark_proto::machine::Machine;
use tritmark_suites::{
    chain,
    meter::{
        SystemTree,
        rapl::{self, Unreadable},
    },
    sandbox::{self, Sandbox},
};

use crate::{
    args::Doctor,
    exit::{Exit, Outcome},
    out,
};

/// How a finding bears on measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Good,
    /// Measuring works, with this in mind.
    Note,
    /// Measuring does not work.
    Bad,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
struct Finding {
    level: Level,
    subject: &'static str,
    found: String,
    /// What would make it better.
    advice: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Good,
            subject,
            found: found.into(),
            advice: None,
        }
    }

    fn note(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Note,
            subject,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn bad(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Bad,
            ..Self::note(subject, found, advice)
        }
    }
}

pub(crate) fn exec(args: &Doctor) -> Outcome {
    let root = Path::new("/");
    let Inventory { machine, notes } = inventory::inventory(root);
    let mut findings = vec![cpu(&machine), kernel()];
    findings.extend([memory(&machine), governor(&machine), huge_pages(&machine)]);
    findings.push(hypervisor(&machine));
    findings.extend(energy(root));
    findings.push(lock(&lock::default_path()));
    findings.push(sandbox(&sandbox::Options::default()));
    findings.extend(
        notes
            .into_iter()
            .map(|note| Finding::note("inventory", note, "nothing to do")),
    );

    if args.print.json {
        let findings: Vec<Value> = findings
            .iter()
            .map(|finding| {
                json!({
                    "level": finding.level.name(),
                    "subject": finding.subject,
                    "found": finding.found,
                    "advice": finding.advice,
                })
            })
            .collect();
        out::json(&json!({ "machine": machine, "findings": findings }))?;
    } else {
        for finding in &findings {
            let Finding {
                level,
                subject,
                found,
                advice,
            } = finding;
            out::line(&format!("{:5} {subject:12} {found}", level.name()))?;
            if let Some(advice) = advice {
                out::line(&format!("{:18} → {advice}", ""))?;
            }
        }
    }
    let stops = findings.iter().any(|finding| finding.level == Level::Bad);
    Ok(if stops { Exit::GateFailed } else { Exit::Pass })
}

fn cpu(machine: &Machine) -> Finding {
    Finding::good(
        "cpu",
        format!(
            "{}, {} cores, {} threads ({})",
            machine.cpu_model, machine.physical_cores, machine.logical_cores, machine.arch
        ),
    )
}

fn kernel() -> Finding {
    let names: Vec<_> = kernels::available()
        .iter()
        .map(|kernel| kernel.name())
        .collect();
    match names.as_slice() {
        [only] => Finding::note(
            "kernels",
            *only,
            "this CPU has none of the fast kernels' instructions: figures are the reference's",
        ),
        names => Finding::good("kernels", format!("{} (best first)", names.join(", "))),
    }
}

fn memory(machine: &Machine) -> Finding {
    Finding::good("memory", out::bytes(machine.memory_bytes))
}

fn governor(machine: &Machine) -> Finding {
    match machine.governor.as_deref() {
        Some("performance") => Finding::good("governor", "performance"),
        Some(governor) => Finding::note(
            "governor",
            governor,
            "the clock follows the load; for steady figures: cpupower frequency-set -g performance",
        ),
        None => Finding::note(
            "governor",
            "none to be seen",
            "the clock is not in this system's hands, as in most virtual machines",
        ),
    }
}

fn huge_pages(machine: &Machine) -> Finding {
    match machine.transparent_huge_pages.as_deref() {
        Some(setting @ ("always" | "madvise")) => Finding::good("huge pages", setting),
        Some(setting) => Finding::note(
            "huge pages",
            setting,
            "weights lie on 4 KiB pages; for more read bandwidth: \
             echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        None => Finding::note(
            "huge pages",
            "none to be seen",
            "the kernel offers no transparent huge pages",
        ),
    }
}

fn hypervisor(machine: &Machine) -> Finding {
    match &machine.hypervisor {
        None => Finding::good("hypervisor", "none"),
        Some(name) => Finding::note(
            "hypervisor",
            name.clone(),
            "neighbours share caches and memory bandwidth: compare medians of several runs",
        ),
    }
}

fn energy(root: &Path) -> Vec<Finding> {
    let tree = SystemTree {
        root: root.to_owned(),
    };
    let domains = match rapl::discover(&tree) {
        Ok(domains) => domains,
        Err(reason) => {
            return vec![Finding::note(
                "energy",
                reason.to_string(),
                "energy is recorded as unmeasurable, beside the papers' estimate",
            )];
        }
    };
    let readable = domains
        .readable
        .iter()
        .map(|domain| Finding::good("energy", domain.source.clone()));
    let unreadable = domains.unreadable.iter().map(|(source, reason)| {
        let advice = match reason {
            Unreadable::PermissionDenied { path } => format!(
                "as root: chgrp tritmark /{path} && chmod g+r /{path}, or by a udev rule to keep \
                 it after a reboot"
            ),
            _ => "this counter is left out".to_owned(),
        };
        Finding::note("energy", format!("{source}: {reason}"), advice)
    });
    readable.chain(unreadable).collect()
}

fn lock(path: &Path) -> Finding {
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let held = match opened {
        Ok(file) => file.try_lock(),
        Err(error) => {
            return Finding::bad(
                "lock",
                format!("{}: {error}", path.display()),
                format!(
                    "performance jobs need it; another path: {}=…",
                    lock::LOCK_VARIABLE
                ),
            );
        }
    };
    match held {
        Ok(()) => Finding::good("lock", format!("{} is free", path.display())),
        Err(_) => Finding::note(
            "lock",
            format!("{} is held", path.display()),
            "a job is running; others wait for it",
        ),
    }
}

/// Tries whether programs that a model wrote can be run here.
fn sandbox(options: &sandbox::Options) -> Finding {
    match Sandbox::detect(options) {
        Ok(sandbox) if sandbox.layers().namespaces => {
            Finding::good("sandbox", sandbox.layers().to_string())
        }
        Ok(sandbox) => Finding::note(
            "sandbox",
            sandbox.layers().to_string(),
            "it holds; unprivileged user namespaces would add a second wall (docs/sandbox.md)",
        ),
        Err(error) => Finding::note(
            "sandbox",
            chain(&error),
            "tasks that run a model's programs are refused here; all others work (docs/sandbox.md)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_python_can_measure_all_but_programs() {
        let options = sandbox::Options {
            python: Some("/nowhere/python3".into()),
            ..sandbox::Options::default()
        };
        let finding = sandbox(&options);
        assert_eq!(finding.level, Level::Note);
        assert!(
            finding.found.contains("/nowhere/python3"),
            "{}",
            finding.found
        );
    }

    #[test]
    fn a_lock_that_cannot_be_opened_stops_measuring() {
        let finding = lock(Path::new("/nowhere/tritmark.lock"));
        assert_eq!(finding.level, Level::Bad);
        assert!(finding.found.contains("/nowhere/tritmark.lock"));
    }

    #[test]
    fn a_counter_without_permission_comes_with_the_command_that_opens_it() {
        let root = tempfile::tempdir().expect("a folder can be made");
        let finding = &energy(root.path())[0];
        assert_eq!(finding.level, Level::Note);
        assert!(finding.found.contains("powercap"), "{}", finding.found);
    }
}
