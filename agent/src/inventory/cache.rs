//! The caches, from `/sys/devices/system/cpu/cpu*/cache`.

use std::collections::{BTreeMap, BTreeSet};

use tritmark_proto::machine::Cache;

use super::{Tree, cpu::cpu_list};

/// Returns the kinds of cache from the nearest.
pub(super) fn read(tree: &Tree, online: &[u32]) -> Vec<Cache> {
    let mut kinds: BTreeMap<(u32, String, u64, u32), BTreeSet<Vec<u32>>> = BTreeMap::new();
    for &cpu in online {
        let folder = format!("sys/devices/system/cpu/cpu{cpu}/cache");
        for index in tree.names(&folder) {
            let file = |name: &str| format!("{folder}/{index}/{name}");
            let (Some(level), Some(kind), Some(size_bytes)) = (
                tree.number(&file("level")),
                tree.line(&file("type")),
                tree.line(&file("size")).and_then(|size| bytes(&size)),
            ) else {
                continue;
            };
            let sharers = tree
                .line(&file("shared_cpu_list"))
                .map(|list| cpu_list(&list))
                .filter(|sharers| !sharers.is_empty())
                .unwrap_or_else(|| vec![cpu]);
            let shared_by = sharers.len() as u32;
            kinds
                .entry((level, kind.to_lowercase(), size_bytes, shared_by))
                .or_default()
                .insert(sharers);
        }
    }
    kinds
        .into_iter()
        .map(|((level, kind, size_bytes, shared_by), instances)| Cache {
            level,
            kind,
            size_bytes,
            shared_by,
            instances: instances.len() as u32,
        })
        .collect()
}

/// Returns the bytes of `32K` or `4M`.
fn bytes(size: &str) -> Option<u64> {
    let (digits, unit) = match size.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if size.ends_with('K') => (digits, 1 << 10),
        Some(digits) if size.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (size, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
