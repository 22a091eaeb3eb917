//! This process's time and memory, from `/proc`.

use std::fs;

/// Clock ticks a second in `/proc`: Linux has had no other value for user space since 2.6.
const TICKS: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Used {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) peak_resident_bytes: u64,
}

/// Returns what this process has used; `None` where there is no `/proc`.
pub(super) fn read() -> Option<Used> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    parse(&stat, &status)
}

fn parse(stat: &str, status: &str) -> Option<Used> {
    // The program's name stands in brackets and may hold blanks and brackets itself: proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Used {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS,
        resident_bytes: kibibytes(status, "VmRSS:")?,
        peak_resident_bytes: kibibytes(status, "VmHWM:")?,
    })
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let n: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    n.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_hold_anything() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 1 2 3";
        let status = "Name:\ta) b (c)\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let used = parse(stat, status).unwrap();
        assert!((used.cpu_seconds - 3.0).abs() < 1e-9);
        assert_eq!(used.resident_bytes, 1 << 20);
        assert_eq!(used.peak_resident_bytes, 2 << 20);
        assert_eq!(parse("42 (a) S 1", status), None);
        assert_eq!(parse(stat, "VmRSS: 1 kB"), None);
    }

    #[test]
    fn this_process_uses_something() {
        if cfg!(target_os = "linux") {
            let used = read().unwrap();
            assert!(used.resident_bytes > 1 << 20);
            assert!(used.peak_resident_bytes >= used.resident_bytes);
        }
    }
}
