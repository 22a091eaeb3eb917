//! What a machine is, without any measured value.

use serde::{Deserialize, Serialize};

/// A machine of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Stable name: a hash of the operating system's machine id, CPU identity and topology. Nothing
    /// measured (frequency, bogomips) goes into it, so that a series is not cut by noise.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// As the CPU names itself.
    pub cpu_model: String,
    /// CPU features the engine's kernels ask for, sorted.
    pub isa: Vec<String>,
    /// Sockets.
    pub sockets: u32,
    /// Cores of all sockets.
    pub physical_cores: u32,
    /// Hardware threads of all sockets.
    pub logical_cores: u32,
    /// Caches from the nearest.
    pub caches: Vec<Cache>,
    /// Installed memory the kernel sees.
    pub memory_bytes: u64,
    /// Name and version of the distribution.
    pub os: String,
    /// Name and release of the kernel.
    pub kernel: String,
    /// cpufreq governor; `None` where the machine has no cpufreq.
    pub governor: Option<String>,
    /// Hypervisor; `None` where none can be seen.
    pub hypervisor: Option<String>,
    /// Transparent huge pages setting; `None` where the kernel has none.
    pub transparent_huge_pages: Option<String>,
    /// Vendor, version and date of the BIOS or UEFI; `None` where none can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Revision of the CPU's microcode; `None` where the kernel names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
}

/// A kind of cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// 1 is nearest.
    pub level: u32,
    /// `data`, `instruction` or `unified`.
    pub kind: String,
    /// Bytes of one instance.
    pub size_bytes: u64,
    /// Logical CPUs that share one instance.
    pub shared_by: u32,
    /// Instances in the machine.
    pub instances: u32,
}

/// Returns `MemTotal` of `/proc/meminfo` (proc(5)), what the kernel has and not what is free, in bytes;
/// 0 where the text does not say.
pub fn total_memory_bytes(meminfo: &str) -> u64 {
    let kib = || -> Option<u64> {
        let mut lines = meminfo.lines();
        let total = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    kib().unwrap_or(0).saturating_mul(1024)
}
