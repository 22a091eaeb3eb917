//! The CPUs: names, features, topology.

use std::collections::{BTreeMap, BTreeSet};

use super::Tree;

/// Features the engine's kernels ask for: the kernel's word, and Rust's `target_feature` for it.
const FEATURES: [(&str, &str); 33] = [
    // x86
    ("sse4_1", "sse4.1"),
    ("ssse3", "ssse3"),
    ("popcnt", "popcnt"),
    ("bmi2", "bmi2"),
    ("avx", "avx"),
    ("avx2", "avx2"),
    ("fma", "fma"),
    ("f16c", "f16c"),
    ("gfni", "gfni"),
    ("avx512f", "avx512f"),
    ("avx512bw", "avx512bw"),
    ("avx512cd", "avx512cd"),
    ("avx512dq", "avx512dq"),
    ("avx512vl", "avx512vl"),
    ("avx512vbmi", "avx512vbmi"),
    ("avx512_vbmi", "avx512vbmi"),
    ("avx512_vbmi2", "avx512vbmi2"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512_bf16", "avx512bf16"),
    ("avx512_fp16", "avx512fp16"),
    ("avx_vnni", "avxvnni"),
    ("avx_vnni_int8", "avxvnniint8"),
    ("amx_tile", "amx-tile"),
    ("amx_int8", "amx-int8"),
    // aarch64
    ("asimd", "neon"),
    ("neon", "neon"),
    ("asimdhp", "fp16"),
    ("asimddp", "dotprod"),
    ("i8mm", "i8mm"),
    ("bf16", "bf16"),
    ("sve", "sve"),
    ("sve2", "sve2"),
    ("sme", "sme"),
];

/// Cores of ARM's own design, by part number (implementer 0x41).
const ARM_PARTS: [(&str, &str); 16] = [
    ("0xd03", "Cortex-A53"),
    ("0xd04", "Cortex-A35"),
    ("0xd05", "Cortex-A55"),
    ("0xd07", "Cortex-A57"),
    ("0xd08", "Cortex-A72"),
    ("0xd0a", "Cortex-A75"),
    ("0xd0b", "Cortex-A76"),
    ("0xd0c", "Neoverse-N1"),
    ("0xd0d", "Cortex-A77"),
    ("0xd40", "Neoverse-V1"),
    ("0xd41", "Cortex-A78"),
    ("0xd44", "Cortex-X1"),
    ("0xd46", "Cortex-A510"),
    ("0xd47", "Cortex-A710"),
    ("0xd49", "Neoverse-N2"),
    ("0xd4f", "Neoverse-V2"),
];

/// What `/proc/cpuinfo` and the topology in sysfs say.
pub(super) struct Cpu {
    /// As the CPU names itself; several kinds are joined by ` + `.
    pub(super) model: String,
    /// Features every CPU has, sorted.
    pub(super) isa: Vec<String>,
    pub(super) sockets: u32,
    pub(super) physical_cores: u32,
    pub(super) logical_cores: u32,
    /// The `hypervisor` flag of x86.
    pub(super) has_hypervisor_flag: bool,
    /// Numbers of the CPUs that are online.
    pub(super) online: Vec<u32>,
    /// Vendor, family, model, stepping or the like; no microcode, no frequency.
    pub(super) identity: String,
    /// Revision of the microcode, as x86 kernels name it; of several, each once, joined by a comma.
    pub(super) microcode: Option<String>,
}

/// One `processor` paragraph of `/proc/cpuinfo`.
type Paragraph = BTreeMap<String, String>;

impl Cpu {
    pub(super) fn read(tree: &Tree) -> Self {
        let paragraphs = paragraphs(&tree.text("proc/cpuinfo").unwrap_or_default());
        let online = online(tree, &paragraphs);
        let (sockets, physical_cores) = topology(tree, &online, &paragraphs);
        let flags: Vec<_> = paragraphs.iter().filter_map(flags).collect();
        let isa = FEATURES
            .into_iter()
            .filter(|(word, _)| {
                !flags.is_empty() && flags.iter().all(|flags| flags.contains(*word))
            })
            .map(|(_, name)| name.to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        Self {
            model: model(tree, &paragraphs),
            isa,
            sockets,
            physical_cores,
            logical_cores: online.len() as u32,
            has_hypervisor_flag: flags.iter().any(|flags| flags.contains("hypervisor")),
            online,
            identity: identity(&paragraphs),
            microcode: microcode(&paragraphs),
        }
    }
}

/// Returns the paragraphs that describe a CPU.
fn paragraphs(cpuinfo: &str) -> Vec<Paragraph> {
    cpuinfo
        .split("\n\n")
        .map(|paragraph| {
            paragraph
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                .collect::<Paragraph>()
        })
        .filter(|paragraph| paragraph.contains_key("processor"))
        .collect()
}

fn microcode(paragraphs: &[Paragraph]) -> Option<String> {
    let all = paragraphs.iter().filter_map(|it| it.get("microcode"));
    let revisions: BTreeSet<&str> = all.map(String::as_str).collect();
    let revisions: Vec<&str> = revisions.into_iter().collect();
    (!revisions.is_empty()).then(|| revisions.join(","))
}

fn flags(paragraph: &Paragraph) -> Option<BTreeSet<&str>> {
    let words = paragraph
        .get("flags")
        .or_else(|| paragraph.get("Features"))?;
    Some(words.split_whitespace().collect())
}

fn online(tree: &Tree, paragraphs: &[Paragraph]) -> Vec<u32> {
    let listed = tree
        .line("sys/devices/system/cpu/online")
        .map(|list| cpu_list(&list))
        .unwrap_or_default();
    if !listed.is_empty() {
        return listed;
    }
    let described: Vec<u32> = paragraphs
        .iter()
        .filter_map(|paragraph| paragraph.get("processor")?.parse().ok())
        .collect();
    if !described.is_empty() || tree.0 != std::path::Path::new("/") {
        return described;
    }
    let count = std::thread::available_parallelism().map_or(0, |n| n.get() as u32);
    (0..count).collect()
}

/// Returns sockets and cores.
fn topology(tree: &Tree, online: &[u32], paragraphs: &[Paragraph]) -> (u32, u32) {
    let described = |cpu: u32, key: &str| -> Option<String> {
        paragraphs
            .iter()
            .find(|paragraph| {
                paragraph.get("processor").map(String::as_str) == Some(&cpu.to_string())
            })?
            .get(key)
            .cloned()
    };
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    for &cpu in online {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        let socket = tree
            .line(&format!("{topology}/physical_package_id"))
            .or_else(|| described(cpu, "physical id"))
            // -1: the firmware does not say
            .filter(|id| !id.starts_with('-'))
            .unwrap_or_else(|| "0".to_owned());
        let core = tree
            .line(&format!("{topology}/core_cpus_list"))
            .or_else(|| tree.line(&format!("{topology}/thread_siblings_list")))
            .or_else(|| described(cpu, "core id"))
            .unwrap_or_else(|| format!("cpu{cpu}"));
        cores.insert((socket.clone(), core));
        sockets.insert(socket);
    }
    (sockets.len() as u32, cores.len() as u32)
}

fn model(tree: &Tree, paragraphs: &[Paragraph]) -> String {
    let mut names: Vec<String> = Vec::new();
    for paragraph in paragraphs {
        if let Some(name) = name(paragraph)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    if names.is_empty() {
        tree.line("proc/device-tree/model")
            .unwrap_or_else(|| "unknown".to_owned())
    } else {
        names.join(" + ")
    }
}

fn name(paragraph: &Paragraph) -> Option<String> {
    if let Some(name) = paragraph.get("model name").filter(|name| !name.is_empty()) {
        return Some(name.clone());
    }
    let implementer = paragraph.get("CPU implementer")?;
    let part = paragraph.get("CPU part")?;
    let known = ARM_PARTS
        .into_iter()
        .find(|(number, _)| implementer == "0x41" && part == number);
    Some(match known {
        Some((_, name)) => format!("ARM {name}"),
        None => format!("CPU implementer {implementer} part {part}"),
    })
}

/// Returns what makes one kind of CPU differ from another, each kind once.
fn identity(paragraphs: &[Paragraph]) -> String {
    const KEYS: [&str; 9] = [
        "vendor_id",
        "cpu family",
        "model",
        "model name",
        "stepping",
        "CPU implementer",
        "CPU part",
        "CPU variant",
        "CPU revision",
    ];
    let kinds: BTreeSet<String> = paragraphs
        .iter()
        .map(|paragraph| {
            KEYS.map(|key| paragraph.get(key).map_or("", String::as_str))
                .join("|")
        })
        .collect();
    kinds.into_iter().collect::<Vec<_>>().join("\n")
}

/// Returns the numbers of a list like `0-3,8,10-11`; what is no such list is left out.
pub(super) fn cpu_list(text: &str) -> Vec<u32> {
    /// More than any machine has: a limit for nonsense.
    const MAX_CPUS: u32 = 1 << 16;
    let mut cpus = BTreeSet::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(MAX_CPUS));
        }
    }
    cpus.into_iter().collect()
}
