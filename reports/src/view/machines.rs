//! The machines of a run and how they were set.

use serde::Serialize;
use tritmark_proto::machine::{Cache, Machine};

use crate::{bundle::Bundle, units};

/// A machine as facts and remarks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MachineView {
    pub(crate) hostname: String,
    pub(crate) id: String,
    pub(crate) facts: Vec<Fact>,
    /// What a reader must know of figures from this machine.
    pub(crate) remarks: Vec<String>,
}

/// A name and a value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// Returns the machines in the manifest's order.
pub(super) fn views(bundle: &Bundle) -> Vec<MachineView> {
    bundle.manifest.machines.iter().map(view).collect()
}

fn view(machine: &Machine) -> MachineView {
    let Machine {
        id,
        hostname,
        arch,
        cpu_model,
        isa,
        sockets,
        physical_cores,
        logical_cores,
        caches,
        memory_bytes,
        os,
        kernel,
        governor,
        hypervisor,
        transparent_huge_pages,
        firmware,
        microcode,
    } = machine;
    let cores = format!(
        "{}, {}, {}",
        units::plural(u64::from(*sockets), "socket"),
        units::plural(u64::from(*physical_cores), "core"),
        units::plural(u64::from(*logical_cores), "hardware thread"),
    );
    let facts = [
        ("CPU", format!("{cpu_model} ({arch})")),
        ("Cores", cores),
        (
            "Caches",
            caches.iter().map(cache).collect::<Vec<_>>().join(", "),
        ),
        ("Memory", units::text("B", *memory_bytes as f64)),
        ("CPU features", isa.join(" ")),
        ("System", os.clone()),
        ("Kernel", kernel.clone()),
        ("Firmware", firmware.clone().unwrap_or_default()),
        ("Microcode", microcode.clone().unwrap_or_default()),
        (
            "Frequency governor",
            governor
                .clone()
                .unwrap_or_else(|| "none (no cpufreq)".to_owned()),
        ),
        (
            "Hypervisor",
            hypervisor.clone().unwrap_or_else(|| "none seen".to_owned()),
        ),
        (
            "Huge pages",
            transparent_huge_pages
                .clone()
                .unwrap_or_else(|| "not supported".to_owned()),
        ),
    ];
    let mut remarks = Vec::new();
    if let Some(hypervisor) = hypervisor {
        remarks.push(format!(
            "A virtual machine ({hypervisor}): neighbours share its processor and memory, and energy \
             counters are usually hidden."
        ));
    }
    if let Some(governor) = governor
        && governor != "performance"
    {
        remarks.push(format!(
            "The governor `{governor}` changes the clock with the load; `performance` gives steadier times."
        ));
    }
    MachineView {
        hostname: hostname.clone(),
        id: id.clone(),
        facts: facts
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| Fact { name, value })
            .collect(),
        remarks,
    }
}

fn cache(cache: &Cache) -> String {
    let kind = match cache.kind.as_str() {
        "data" => "d",
        "instruction" => "i",
        _ => "",
    };
    let size = units::text("B", cache.size_bytes as f64);
    // Sizes are powers of two: `32.0 KiB` says no more than `32 KiB`.
    let size = size
        .replace(".00\u{202f}", "\u{202f}")
        .replace(".0\u{202f}", "\u{202f}");
    let times = if cache.instances > 1 {
        format!(" × {}", cache.instances)
    } else {
        String::new()
    };
    format!("L{}{kind} {size}{times}", cache.level)
}
