//! What this machine is: CPU, caches, memory and system, read from `/proc`, `/sys` and `/etc`.
//!
//! Everything is read below a root folder, so that a test describes a machine with a folder of
//! files. Nothing measured (frequency, bogomips, free memory, load) goes into the description.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use tritmark_proto::machine::{Machine, total_memory_bytes};

mod cache;
mod cpu;
#[cfg(test)]
mod tests;

use cpu::Cpu;

/// Longest pseudo file that is read; `/proc/cpuinfo` of 1024 CPUs is about 2 MiB.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// A machine, and what could not be found out about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The description.
    pub machine: Machine,
    /// What a reader must know of the description, e.g. that its id rests on the host name.
    pub notes: Vec<String>,
}

/// Describes the machine whose root folder is `root` (`/` outside tests).
///
/// A file that is not there leaves its field empty, 0 or `None`; the description never fails.
pub fn inventory(root: &Path) -> Inventory {
    let tree = Tree(root.to_owned());
    let cpu = Cpu::read(&tree);
    let mut notes = Vec::new();
    if cpu.logical_cores == 0 {
        notes.push("no CPU could be found in /proc/cpuinfo or /sys/devices/system/cpu".to_owned());
    }
    let hostname = hostname(&tree);
    let id = machine_id(&tree, &hostname, &cpu, &mut notes);
    let Cpu {
        model,
        isa,
        sockets,
        physical_cores,
        logical_cores,
        has_hypervisor_flag,
        online,
        identity: _,
        microcode,
    } = cpu;
    let machine = Machine {
        id,
        hostname,
        arch: std::env::consts::ARCH.to_owned(),
        cpu_model: model,
        isa,
        sockets,
        physical_cores,
        logical_cores,
        caches: cache::read(&tree, &online),
        memory_bytes: total_memory_bytes(&tree.text("proc/meminfo").unwrap_or_default()),
        os: operating_system(&tree),
        kernel: kernel(&tree),
        governor: governor(&tree, &online),
        hypervisor: hypervisor(&tree, has_hypervisor_flag),
        transparent_huge_pages: tree
            .line("sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|line| bracketed(&line).map(str::to_owned)),
        firmware: firmware(&tree),
        microcode,
    };
    Inventory { machine, notes }
}

/// The files of one machine.
struct Tree(PathBuf);

impl Tree {
    /// Returns the file's text, or `None` where it cannot be read.
    fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.0.join(path))
            .ok()?
            .take(FILE_LIMIT_BYTES)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the file's text without surrounding white space and NULs; `None` where nothing is
    /// left.
    fn line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let line = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// Returns the file's number.
    fn number(&self, path: &str) -> Option<u32> {
        self.line(path)?.parse().ok()
    }

    /// Returns the names in a folder, unsorted.
    fn names(&self, path: &str) -> Vec<String> {
        std::fs::read_dir(self.0.join(path))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    }
}

/// The machine's stable name: 128 bits of a hash, in hex.
///
/// `machine-id(5)` asks not to show the id itself, hence the hash.
fn machine_id(tree: &Tree, hostname: &str, cpu: &Cpu, notes: &mut Vec<String>) -> String {
    let of_system = tree
        .line("etc/machine-id")
        .or_else(|| tree.line("var/lib/dbus/machine-id"))
        .filter(|id| id != "uninitialized")
        .or_else(|| tree.line("sys/class/dmi/id/product_uuid"))
        .unwrap_or_else(|| {
            notes.push(format!(
                "no /etc/machine-id and no DMI product UUID: the machine's id rests on its host name `{hostname}`"
            ));
            format!("hostname {hostname}")
        });
    let mut hasher = blake3::Hasher::new_derive_key("tritmark machine id v1");
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    };
    add(&of_system);
    add(std::env::consts::ARCH);
    add(&cpu.identity);
    for count in [cpu.sockets, cpu.physical_cores, cpu.logical_cores] {
        add(&count.to_string());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn hostname(tree: &Tree) -> String {
    tree.line("proc/sys/kernel/hostname")
        .or_else(|| tree.line("etc/hostname"))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system(tree: &Tree) -> String {
    let release = tree
        .text("etc/os-release")
        .or_else(|| tree.text("usr/lib/os-release"))
        .unwrap_or_default();
    let field = |name: &str| {
        let value = release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?
            .trim();
        let unquoted = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
            .unwrap_or(value);
        (!unquoted.is_empty()).then(|| unquoted.to_owned())
    };
    field("PRETTY_NAME")
        .or_else(|| field("NAME"))
        .unwrap_or_else(|| std::env::consts::OS.to_owned())
}

fn kernel(tree: &Tree) -> String {
    let name = tree
        .line("proc/sys/kernel/ostype")
        .unwrap_or_else(|| "Linux".to_owned());
    tree.line("proc/sys/kernel/osrelease").map_or_else(
        || "unknown".to_owned(),
        |release| format!("{name} {release}"),
    )
}

/// Returns what tells one start of the machine from another; empty where the kernel does not say.
pub fn boot_id(root: &Path) -> String {
    let tree = Tree(root.to_owned());
    tree.line("proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
}

/// Vendor, version and date of the BIOS or UEFI, as DMI names them.
fn firmware(tree: &Tree) -> Option<String> {
    let parts: Vec<String> = ["bios_vendor", "bios_version", "bios_date"]
        .into_iter()
        .filter_map(|name| tree.line(&format!("sys/class/dmi/id/{name}")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// The governors of all CPUs, each once, joined by a comma.
fn governor(tree: &Tree, online: &[u32]) -> Option<String> {
    let mut governors: Vec<_> = online
        .iter()
        .filter_map(|cpu| {
            tree.line(&format!(
                "sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"
            ))
        })
        .collect();
    governors.sort();
    governors.dedup();
    (!governors.is_empty()).then(|| governors.join(","))
}

/// Names the hypervisor, or `unknown` where there is one that does not name itself.
///
/// The vendor fields of DMI alone prove nothing on x86 (a cloud's bare-metal machines carry the
/// cloud's name), so there they only name what the CPU flag has shown.
fn hypervisor(tree: &Tree, has_flag: bool) -> Option<String> {
    const VENDORS: [(&str, &str); 12] = [
        ("qemu", "qemu"),
        ("kvm", "kvm"),
        ("vmware", "vmware"),
        ("innotek", "virtualbox"),
        ("virtualbox", "virtualbox"),
        ("xen", "xen"),
        ("microsoft", "hyper-v"),
        ("amazon ec2", "amazon ec2"),
        ("google", "google compute engine"),
        ("openstack", "openstack"),
        ("parallels", "parallels"),
        ("bhyve", "bhyve"),
    ];
    if let Some(kind) = tree.line("sys/hypervisor/type") {
        return Some(kind);
    }
    if let Some(compatible) = tree.line("proc/device-tree/hypervisor/compatible") {
        return Some(compatible.replace('\0', ","));
    }
    let dmi = ["sys_vendor", "product_name", "bios_vendor"]
        .into_iter()
        .filter_map(|name| tree.line(&format!("sys/class/dmi/id/{name}")))
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase();
    let named = VENDORS
        .into_iter()
        .find(|(vendor, _)| dmi.contains(vendor))
        .map(|(_, name)| name);
    // Without a flag (other architectures than x86) only names that no real machine carries count.
    let is_certain = has_flag || matches!(named, Some("qemu" | "kvm" | "virtualbox" | "bhyve"));
    is_certain.then(|| named.unwrap_or("unknown").to_owned())
}

/// Returns `madvise` of `always [madvise] never`.
fn bracketed(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen)
}
