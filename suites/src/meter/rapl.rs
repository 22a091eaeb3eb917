//! Energy counters of the Linux powercap class (RAPL of Intel and AMD, SCMI and others).
//!
//! A zone is a folder `/sys/class/powercap/<type>:<n>[:<m>]` with `name`, `energy_uj` and
//! `max_energy_range_uj`. Package, DRAM and platform (psys) zones are kept apart and never added:
//! psys contains the packages, and a package contains its `core` and `uncore`, which are left out.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::Tree;

const POWERCAP: &str = "sys/class/powercap";

/// A counter of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Names the domain in records: `powercap:package-0`, `powercap:dram-0`, `powercap:psys`.
    pub source: String,
    /// Its `energy_uj`.
    energy: PathBuf,
    /// The counter counts modulo this.
    range_uj: u64,
}

/// What powercap offers on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// Counters that can be read.
    pub readable: Vec<Domain>,
    /// Sources that are there and cannot be read, with the reason.
    pub unreadable: Vec<(String, Unreadable)>,
}

/// Why energy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// The kernel has no powercap class, as in most virtual machines.
    #[error("this machine has no powercap counters (/sys/class/powercap is absent)")]
    NoPowercap,
    /// The class is empty, or has no energy counter of a package, DRAM or platform.
    #[error("powercap has no energy counter of a package, DRAM or platform")]
    NoDomain,
    /// A counter is for the administrator only (CVE-2020-8694).
    #[error(
        "permission denied for /{path}: a udev or tmpfiles rule can open it to the agent's group"
    )]
    PermissionDenied {
        /// The file, below the root.
        path: String,
    },
    /// A counter was there and is no longer.
    #[error("/{path} has vanished")]
    Vanished {
        /// The file, below the root.
        path: String,
    },
    /// A counter's file holds something else than a number in its range.
    #[error("/{path} holds `{text}`")]
    Garbage {
        /// The file, below the root.
        path: String,
        /// The first part of its text.
        text: String,
    },
    /// Another error of the system.
    #[error("/{path} cannot be read: {message}")]
    Failed {
        /// The file, below the root.
        path: String,
        /// The system's words.
        message: String,
    },
}

/// Finds every counter of every control type.
///
/// # Errors
/// Where there is no counter at all; counters that exist and refuse to be read are in
/// [`Domains::unreadable`].
pub fn discover(tree: &dyn Tree) -> Result<Domains, Unreadable> {
    let zones = tree.list(Path::new(POWERCAP)).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Unreadable::NoPowercap
        } else {
            unreadable(Path::new(POWERCAP), &error)
        }
    })?;
    let name_of = |zone: &str| {
        let path = Path::new(POWERCAP).join(zone).join("name");
        tree.read(&path).ok().map(|name| name.trim().to_owned())
    };
    let mut domains = Domains::default();
    // `intel-rapl-mmio:0` sorts before `intel-rapl:0`, of which it is a second copy.
    let (copies, firsts): (Vec<_>, Vec<_>) = zones
        .iter()
        .filter(|zone| zone.contains(':'))
        .partition(|zone| zone.starts_with("intel-rapl-mmio:"));
    for zone in firsts.into_iter().chain(copies) {
        let Some(name) = name_of(zone) else { continue };
        let parent = zone
            .rsplit_once(':')
            .filter(|(parent, _)| parent.contains(':'))
            .and_then(|(parent, _)| name_of(parent));
        let Some(source) = source_of(zone, &name, parent.as_deref()) else {
            continue;
        };
        let known = domains.readable.iter().any(|known| known.source == source)
            || domains.unreadable.iter().any(|(known, _)| *known == source);
        let energy = Path::new(POWERCAP).join(zone).join("energy_uj");
        if known || is_absent(tree, &energy) {
            continue;
        }
        match domain(tree, &source, zone) {
            Ok(domain) => domains.readable.push(domain),
            Err(reason) => domains.unreadable.push((source, reason)),
        }
    }
    if domains.readable.is_empty() && domains.unreadable.is_empty() {
        return Err(Unreadable::NoDomain);
    }
    Ok(domains)
}

/// Returns the name a zone has in records; `None` for zones that another one contains.
fn source_of(zone: &str, name: &str, parent: Option<&str>) -> Option<String> {
    let control_type = zone.split(':').next().unwrap_or_default();
    let is_rapl = control_type.starts_with("intel-rapl");
    match name {
        "psys" => Some("powercap:psys".to_owned()),
        // `package-0`, on several dies `package-0-die-1`.
        _ if name.starts_with("package") => Some(format!("powercap:{name}")),
        "dram" => Some(match parent.and_then(|p| p.strip_prefix("package")) {
            Some(number) => format!("powercap:dram{number}"),
            None => format!(
                "powercap:dram-{}",
                zone.rsplit(':').next().unwrap_or_default()
            ),
        }),
        "core" | "uncore" => None,
        // Other control types name their zones as they like; inner zones are parts of outer ones.
        _ if !is_rapl && parent.is_none() => Some(format!("powercap:{control_type}:{name}")),
        _ => None,
    }
}

/// Tells whether a zone has no counter at all: some have limits only.
fn is_absent(tree: &dyn Tree, energy: &Path) -> bool {
    matches!(tree.read(energy), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn domain(tree: &dyn Tree, source: &str, zone: &str) -> Result<Domain, Unreadable> {
    let folder = Path::new(POWERCAP).join(zone);
    let domain = Domain {
        source: source.to_owned(),
        energy: folder.join("energy_uj"),
        range_uj: number(tree, &folder.join("max_energy_range_uj"))?,
    };
    domain.read(tree)?;
    Ok(domain)
}

impl Domain {
    /// Returns the counter's value, in microjoules.
    pub fn read(&self, tree: &dyn Tree) -> Result<u64, Unreadable> {
        let value = number(tree, &self.energy)?;
        if value > self.range_uj {
            return Err(Unreadable::Garbage {
                path: self.energy.display().to_string(),
                text: format!("{value}, beyond its range of {}", self.range_uj),
            });
        }
        Ok(value)
    }

    /// Starts to count from now on.
    pub fn counter(&self, tree: &dyn Tree) -> Result<Counter, Unreadable> {
        Ok(Counter {
            last_uj: self.read(tree)?,
            domain: self.clone(),
            total_uj: 0,
            wraps: 0,
        })
    }
}

/// A counter that has been watched from some moment on.
///
/// Has to be updated at least once per round of the counter: 65 kJ at the least, 5 minutes at 200 W.
#[derive(Clone, Debug)]
pub struct Counter {
    domain: Domain,
    last_uj: u64,
    total_uj: u64,
    wraps: u32,
}

impl Counter {
    /// Reads the counter; returns whether it has moved.
    pub fn update(&mut self, tree: &dyn Tree) -> Result<bool, Unreadable> {
        let now = self.domain.read(tree)?;
        let gained = if now >= self.last_uj {
            now - self.last_uj
        } else {
            self.wraps += 1;
            now + (self.domain.range_uj - self.last_uj)
        };
        self.last_uj = now;
        self.total_uj += gained;
        Ok(gained > 0)
    }

    /// Returns the energy from the start to the last update, in microjoules.
    pub fn total_uj(&self) -> u64 {
        self.total_uj
    }

    /// Returns how often the counter began anew.
    pub fn wraps(&self) -> u32 {
        self.wraps
    }

    /// Returns what is counted.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

fn number(tree: &dyn Tree, path: &Path) -> Result<u64, Unreadable> {
    let text = tree.read(path).map_err(|error| unreadable(path, &error))?;
    text.trim().parse().map_err(|_| Unreadable::Garbage {
        path: path.display().to_string(),
        text: text.trim().chars().take(40).collect(),
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Unreadable {
    /// `ENODEV`: the driver behind an open folder is gone.
    const ENODEV: i32 = 19;
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Unreadable::PermissionDenied { path },
        io::ErrorKind::NotFound => Unreadable::Vanished { path },
        _ if error.raw_os_error() == Some(ENODEV) => Unreadable::Vanished { path },
        _ => Unreadable::Failed {
            path,
            message: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::meter::tree::{
        SystemTree,
        fake::{FakeFile, FakeTree},
    };

    const ENERGY: &str = "sys/class/powercap/intel-rapl:0/energy_uj";

    fn counting() -> FakeFile {
        FakeFile::Values(vec![500])
    }

    fn sources(tree: &dyn Tree) -> Vec<String> {
        let found = discover(tree).unwrap().readable;
        found.into_iter().map(|domain| domain.source).collect()
    }

    #[test]
    fn packages_dram_and_platform_are_found_apart_and_parts_of_them_left_out() {
        let tree = FakeTree::default()
            .zone("intel-rapl:0", "package-0", counting())
            .zone("intel-rapl:0:0", "core", counting())
            .zone("intel-rapl:0:1", "uncore", counting())
            .zone("intel-rapl:0:2", "dram", counting())
            .zone("intel-rapl:1", "package-1", counting())
            .zone("intel-rapl:1:0", "dram", counting())
            .zone("intel-rapl:2", "psys", counting())
            .zone("intel-rapl-mmio:0", "package-0", counting())
            .zone("arm-scmi:0", "soc", counting())
            .zone("arm-scmi:0:0", "cluster", counting());
        assert_eq!(
            sources(&tree),
            [
                "powercap:arm-scmi:soc",
                "powercap:package-0",
                "powercap:dram-0",
                "powercap:package-1",
                "powercap:dram-1",
                "powercap:psys",
            ]
        );
    }

    #[test]
    fn a_memory_mapped_zone_counts_where_there_is_no_other() {
        let tree = FakeTree::default().zone("intel-rapl-mmio:0", "package-0", counting());
        assert_eq!(sources(&tree), ["powercap:package-0"]);
    }

    #[test]
    fn no_class_no_domain_and_no_permission_are_three_different_answers() {
        assert_eq!(discover(&FakeTree::default()), Err(Unreadable::NoPowercap));
        let limits_only = FakeTree::default().zone("dtpm:0", "soc", counting()).with(
            "sys/class/powercap/dtpm/enabled",
            FakeFile::Text("1".into()),
        );
        limits_only.remove("sys/class/powercap/dtpm:0/energy_uj");
        assert_eq!(discover(&limits_only), Err(Unreadable::NoDomain));

        let denied = FakeFile::Error(io::ErrorKind::PermissionDenied);
        let tree = FakeTree::default()
            .zone("intel-rapl:0", "package-0", denied)
            .zone("intel-rapl:0:0", "dram", counting());
        let found = discover(&tree).unwrap();
        assert_eq!(found.readable[0].source, "powercap:dram-0");
        let path = ENERGY.to_owned();
        let reason = Unreadable::PermissionDenied { path };
        assert!(
            reason
                .to_string()
                .starts_with("permission denied for /sys/class/powercap")
        );
        assert_eq!(
            found.unreadable,
            [("powercap:package-0".to_owned(), reason)]
        );
    }

    #[test]
    fn a_counter_that_wraps_goes_on_counting() {
        let tree = FakeTree::default().zone(
            "intel-rapl:0",
            "package-0",
            // The range is 1 000 000 µJ. Discovery reads twice.
            FakeFile::Values(vec![0, 0, 999_000, 999_900, 400, 400, 700]),
        );
        let domain = discover(&tree).unwrap().readable.remove(0);
        let mut counter = domain.counter(&tree).unwrap();
        assert_eq!(counter.update(&tree), Ok(true));
        assert_eq!((counter.total_uj(), counter.wraps()), (900, 0));
        assert_eq!(counter.update(&tree), Ok(true));
        assert_eq!((counter.total_uj(), counter.wraps()), (1400, 1));
        assert_eq!(counter.update(&tree), Ok(false));
        assert_eq!(counter.update(&tree), Ok(true));
        assert_eq!((counter.total_uj(), counter.wraps()), (1700, 1));
    }

    #[test]
    fn a_file_that_vanishes_under_way_is_not_a_zero() {
        let tree = FakeTree::default().zone("intel-rapl:0", "package-0", counting());
        let domain = discover(&tree).unwrap().readable.remove(0);
        let mut counter = domain.counter(&tree).unwrap();
        tree.remove(ENERGY);
        let path = ENERGY.to_owned();
        assert_eq!(counter.update(&tree), Err(Unreadable::Vanished { path }));
    }

    #[test]
    fn garbage_is_named() {
        let check = |text: &str, expected: &str| {
            let energy = FakeFile::Text(text.to_owned());
            let tree = FakeTree::default().zone("intel-rapl:0", "package-0", energy);
            let (_, reason) = discover(&tree).unwrap().unreadable.remove(0);
            assert_eq!(reason.to_string(), format!("/{ENERGY} holds `{expected}`"));
        };
        check("", "");
        check("-5\n", "-5");
        check("1000001\n", "1000001, beyond its range of 1000000");
    }

    #[test]
    fn a_tree_of_real_files_is_read_the_same_way() {
        let root = tempfile::tempdir().unwrap();
        let zone = root.path().join(POWERCAP).join("intel-rapl:0");
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), "package-0\n").unwrap();
        fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
        fs::write(zone.join("energy_uj"), "262143328000\n").unwrap();
        let tree = SystemTree {
            root: root.path().to_owned(),
        };
        let domain = discover(&tree).unwrap().readable.remove(0);
        let mut counter = domain.counter(&tree).unwrap();
        fs::write(zone.join("energy_uj"), "1000\n").unwrap();
        counter.update(&tree).unwrap();
        assert_eq!((counter.total_uj(), counter.wraps()), (1850, 1));
        fs::remove_dir_all(&zone).unwrap();
        assert!(matches!(
            counter.update(&tree),
            Err(Unreadable::Vanished { .. })
        ));
        // An empty class, as in some containers.
        assert_eq!(discover(&tree), Err(Unreadable::NoDomain));
    }

    proptest! {
        #[test]
        fn no_zone_makes_the_search_panic(
            zone in "[a-z-]{0,12}:?[0-9:]{0,4}",
            name in "(package|dram|psys|core)?[a-z0-9:-]{0,6}",
            energy: String,
        ) {
            let tree = FakeTree::default().zone(&zone, &name, FakeFile::Text(energy));
            let _ = discover(&tree);
        }
    }
}
