//! Resident memory of this process.

use std::{io, path::Path};

use super::Tree;

/// Names the counter in records.
pub const SOURCE: &str = "procfs:VmHWM";

/// Returns the highest resident memory of this process so far, in bytes, or why it is not known.
pub fn peak_rss_bytes(tree: &dyn Tree) -> Result<u64, String> {
    let path = Path::new("proc/self/status");
    let status = tree.read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "the system has no /proc/self/status".to_owned(),
        _ => format!("/proc/self/status cannot be read: {error}"),
    })?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .and_then(|kib| kib.checked_mul(1024))
        .ok_or_else(|| "/proc/self/status has no VmHWM in kB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::tree::{
        SystemTree,
        fake::{FakeFile, FakeTree},
    };

    #[test]
    fn the_peak_is_read_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 7 kB\n";
        let tree = FakeTree::default().with("proc/self/status", FakeFile::Text(status.to_owned()));
        assert_eq!(peak_rss_bytes(&tree), Ok(1234 * 1024));
    }

    #[test]
    fn a_system_without_proc_says_so() {
        let reason = peak_rss_bytes(&FakeTree::default()).unwrap_err();
        assert_eq!(reason, "the system has no /proc/self/status");
        let tree = FakeTree::default().with("proc/self/status", FakeFile::Text("VmHWM: x".into()));
        let reason = peak_rss_bytes(&tree).unwrap_err();
        assert_eq!(reason, "/proc/self/status has no VmHWM in kB");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_a_peak() {
        let tree = SystemTree { root: "/".into() };
        let before = peak_rss_bytes(&tree).unwrap();
        let block = vec![1u8; 64 << 20];
        let after = peak_rss_bytes(&tree).unwrap();
        assert!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>() == 64 << 20);
        assert!(after >= 64 << 20 && after >= before, "{before} {after}");
    }
}
