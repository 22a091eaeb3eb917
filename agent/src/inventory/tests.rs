//! Machines described by folders of files.

use std::{fmt::Write as _, fs, path::Path};

use tempfile::TempDir;

use super::*;

/// A machine of `cores` cores with two threads each, in one socket.
struct Fake {
    cores: u32,
    mhz: &'static str,
    mem_free_kib: u32,
    machine_id: Option<&'static str>,
    hostname: &'static str,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            cores: 2,
            mhz: "2250.000",
            mem_free_kib: 1_000_000,
            machine_id: Some("3d1219c7c4c5404aaa1f6d2a48adfda4\n"),
            hostname: "box",
        }
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl Fake {
    fn tree(&self) -> TempDir {
        let folder = TempDir::new().unwrap();
        let root = folder.path();
        let threads = self.cores * 2;
        let mut cpuinfo = String::new();
        for cpu in 0..threads {
            let core = cpu % self.cores;
            write!(
                cpuinfo,
                "processor\t: {cpu}\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n\
                 model name\t: AMD EPYC\nstepping\t: 1\nmicrocode\t: 0xa0011d1\ncpu MHz\t\t: {mhz}\nphysical id\t: 0\n\
                 core id\t\t: {core}\nflags\t\t: fpu sse4_1 avx avx2 fma f16c avx512f avx512_vnni \
                 avx_vnni hypervisor\nbogomips\t: {mhz}\n\n",
                mhz = self.mhz,
            )
            .unwrap();
            let sys = format!("sys/devices/system/cpu/cpu{cpu}");
            let siblings = format!("{core},{}\n", core + self.cores);
            put(root, &format!("{sys}/topology/physical_package_id"), "0\n");
            put(root, &format!("{sys}/topology/core_cpus_list"), &siblings);
            put(
                root,
                &format!("{sys}/cpufreq/scaling_governor"),
                "schedutil\n",
            );
            let all = format!("0-{}\n", threads - 1);
            for (index, level, kind, size, shared) in [
                (0, "1", "Data", "32K", &siblings),
                (1, "1", "Instruction", "32K", &siblings),
                (2, "2", "Unified", "512K", &siblings),
                (3, "3", "Unified", "32M", &all),
            ] {
                let cache = format!("{sys}/cache/index{index}");
                put(root, &format!("{cache}/level"), level);
                put(root, &format!("{cache}/type"), kind);
                put(root, &format!("{cache}/size"), size);
                put(root, &format!("{cache}/shared_cpu_list"), shared);
            }
        }
        put(root, "proc/cpuinfo", &cpuinfo);
        let online = format!("0-{}\n", threads - 1);
        put(root, "sys/devices/system/cpu/online", &online);
        let meminfo = format!(
            "MemTotal:       24684096 kB\nMemFree:        {} kB\n",
            self.mem_free_kib
        );
        put(root, "proc/meminfo", &meminfo);
        put(root, "proc/loadavg", self.mhz);
        put(root, "proc/sys/kernel/hostname", self.hostname);
        put(root, "proc/sys/kernel/ostype", "Linux\n");
        put(root, "proc/sys/kernel/osrelease", "6.1.0\n");
        put(
            root,
            "etc/os-release",
            "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
        );
        put(root, "sys/class/dmi/id/bios_version", "F.1\n");
        put(root, "sys/class/dmi/id/bios_date", "01/02/2026\n");
        put(root, "proc/sys/kernel/random/boot_id", "a-boot\n");
        put(
            root,
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        );
        if let Some(id) = self.machine_id {
            put(root, "etc/machine-id", id);
        }
        folder
    }

    fn inventory(&self) -> Inventory {
        inventory(self.tree().path())
    }

    fn id(&self) -> String {
        self.inventory().machine.id
    }
}

#[test]
fn a_machine_is_described_from_its_files() {
    let Inventory { machine, notes } = Fake::default().inventory();
    assert_eq!(notes, [""; 0]);
    assert_eq!(machine.cpu_model, "AMD EPYC");
    assert_eq!(
        machine.isa,
        [
            "avx",
            "avx2",
            "avx512f",
            "avx512vnni",
            "avxvnni",
            "f16c",
            "fma",
            "sse4.1"
        ]
    );
    assert_eq!(
        (
            machine.sockets,
            machine.physical_cores,
            machine.logical_cores
        ),
        (1, 2, 4)
    );
    assert_eq!(machine.memory_bytes, 24_684_096 * 1024);
    assert_eq!(machine.os, "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(machine.kernel, "Linux 6.1.0");
    assert_eq!(machine.hostname, "box");
    assert_eq!(machine.governor.as_deref(), Some("schedutil"));
    assert_eq!(machine.hypervisor.as_deref(), Some("unknown"));
    assert_eq!(machine.transparent_huge_pages.as_deref(), Some("madvise"));
    assert_eq!(machine.firmware.as_deref(), Some("F.1 01/02/2026"));
    assert_eq!(machine.microcode.as_deref(), Some("0xa0011d1"));
    let tree = Fake::default().tree();
    assert_eq!(boot_id(tree.path()), "a-boot");
    assert_eq!(boot_id(&tree.path().join("etc")), "");
    assert_eq!(machine.id.len(), 32);
    let caches: Vec<_> = machine
        .caches
        .iter()
        .map(|c| {
            (
                c.level,
                c.kind.as_str(),
                c.size_bytes,
                c.shared_by,
                c.instances,
            )
        })
        .collect();
    assert_eq!(
        caches,
        [
            (1, "data", 32 << 10, 2, 2),
            (1, "instruction", 32 << 10, 2, 2),
            (2, "unified", 512 << 10, 2, 2),
            (3, "unified", 32 << 20, 4, 1),
        ]
    );
}

#[test]
fn the_machine_id_holds_nothing_measured() {
    let plain = Fake::default().id();
    let busy = Fake {
        mhz: "3399.871",
        mem_free_kib: 12_345,
        ..Fake::default()
    };
    assert_eq!(busy.id(), plain);
}

#[test]
fn the_machine_id_follows_the_core_count_and_the_installation() {
    let plain = Fake::default().id();
    let larger = Fake {
        cores: 4,
        ..Fake::default()
    };
    let reinstalled = Fake {
        machine_id: Some("00000000000000000000000000000001\n"),
        ..Fake::default()
    };
    let renamed = Fake {
        hostname: "other",
        ..Fake::default()
    };
    assert_ne!(larger.id(), plain);
    assert_ne!(reinstalled.id(), plain);
    assert_eq!(
        renamed.id(),
        plain,
        "the host name counts only without a machine id"
    );
}

#[test]
fn without_a_machine_id_the_host_name_stands_in_and_a_note_says_so() {
    for machine_id in [None, Some(""), Some("uninitialized\n")] {
        let anonymous = |hostname| Fake {
            machine_id,
            hostname,
            ..Fake::default()
        };
        let Inventory { machine, notes } = anonymous("box").inventory();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("host name `box`"), "{notes:?}");
        assert_eq!(machine.id, anonymous("box").id());
        assert_ne!(machine.id, anonymous("other").id());
    }
}

#[test]
fn the_dmi_uuid_stands_in_for_a_missing_machine_id() {
    let tree = Fake {
        machine_id: None,
        ..Fake::default()
    }
    .tree();
    put(
        tree.path(),
        "sys/class/dmi/id/product_uuid",
        "4c4c4544-0042\n",
    );
    assert_eq!(inventory(tree.path()).notes, [""; 0]);
}

#[test]
fn dmi_names_the_hypervisor() {
    let tree = Fake::default().tree();
    put(
        tree.path(),
        "sys/class/dmi/id/sys_vendor",
        "Microsoft Corporation\n",
    );
    let machine = inventory(tree.path()).machine;
    assert_eq!(machine.hypervisor.as_deref(), Some("hyper-v"));
    put(tree.path(), "sys/hypervisor/type", "xen\n");
    let machine = inventory(tree.path()).machine;
    assert_eq!(machine.hypervisor.as_deref(), Some("xen"));
}

#[test]
fn an_arm_board_with_two_kinds_of_core_is_described() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let core = |cpu: u32, part: &str, features: &str| {
        format!(
            "processor\t: {cpu}\nBogoMIPS\t: 48.00\nFeatures\t: {features}\n\
             CPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: {part}\n\
             CPU revision\t: 0\n\n"
        )
    };
    let little = core(0, "0xd05", "fp asimd asimdhp asimddp");
    let big = core(1, "0xd0b", "fp asimd asimdhp asimddp i8mm");
    put(root, "proc/cpuinfo", &format!("{little}{big}Serial\t: 1\n"));
    let machine = inventory(root).machine;
    assert_eq!(machine.cpu_model, "ARM Cortex-A55 + ARM Cortex-A76");
    assert_eq!(machine.isa, ["dotprod", "fp16", "neon"], "what both have");
    assert_eq!(
        (
            machine.sockets,
            machine.physical_cores,
            machine.logical_cores
        ),
        (1, 2, 2)
    );
    assert_eq!(machine.hypervisor, None);
    assert_eq!(machine.governor, None);
}

#[test]
fn an_empty_tree_is_a_machine_of_which_nothing_is_known() {
    let folder = TempDir::new().unwrap();
    let Inventory { machine, notes } = inventory(folder.path());
    assert_eq!(machine.logical_cores, 0);
    assert_eq!(machine.memory_bytes, 0);
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn this_machine_is_described() {
    let Inventory { machine, .. } = inventory(Path::new("/"));
    assert!(machine.logical_cores >= 1);
    assert!(machine.physical_cores >= 1 && machine.physical_cores <= machine.logical_cores);
    assert!(!machine.hostname.is_empty());
    assert_eq!(inventory(Path::new("/")).machine, machine);
}

#[test]
fn a_cpu_list_is_read_and_nonsense_left_out() {
    assert_eq!(cpu::cpu_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
    assert_eq!(cpu::cpu_list("x,2-,5-4,7"), [7]);
    assert!(cpu::cpu_list("0-4294967295").len() <= 65_537);
}
