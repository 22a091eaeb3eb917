//! Whether a sandbox holds, found out by trying, and how fast this machine runs Python.

use std::{fs, time::Duration};

use super::{Exit, Limits, Program, Ran, Sandbox, SandboxError, Unavailable, scratch::Folder};

/// Tries what must fail and what must work; prints what was otherwise.
const PROBE: &str = include_str!("probe.py");

/// Adds up numbers three times, and prints the CPU seconds of the quickest.
const LOOP: &str = "
import time
def work(n):
    total = 0
    for i in range(n):
        total += i % 7
    return total
def timed():
    start = time.process_time()
    work(2000000)
    return time.process_time() - start
print(min(timed() for _ in range(3)))
";

/// CPU seconds of [`LOOP`] on the reference machine: Python 3.11 on one core of an AMD EPYC of the
/// Zen 3 generation.
const REFERENCE_S: f64 = 0.08;

/// Runs the probe and fails where something was otherwise than it must be.
pub(super) fn probe(sandbox: &Sandbox) -> Result<(), SandboxError> {
    let io = |source| SandboxError::Io {
        step: "lay out a probe",
        source,
    };
    let folder = Folder::new(&sandbox.temp_root).map_err(io)?;
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").map_err(io)?;
    let limits = Limits {
        cpu: Duration::from_secs(10),
        wall: Duration::from_mins(1),
        ..Limits::default()
    };
    let program = Program::new(PROBE, limits)
        .arg(secret.display().to_string())
        .arg(limits.memory_bytes.to_string());
    let ran = super::launch::run(sandbox, &program)?;
    let said = text(&ran);
    let kept = fs::read_to_string(&secret).is_ok_and(|text| text == "secret")
        && fs::read_dir(folder.path()).is_ok_and(|entries| entries.count() == 1);
    let layer = |layer: &str, reason: String| {
        Err(Unavailable {
            layer: layer.to_owned(),
            reason,
        }
        .into())
    };
    if !kept {
        return layer(
            "probe",
            "the program could write outside its folder".to_owned(),
        );
    }
    match (ran.exit, said.trim()) {
        (Exit::Code(0), "held") => Ok(()),
        (exit, said) => {
            let stderr = String::from_utf8_lossy(&ran.stderr.bytes);
            let last = stderr.trim().lines().last().unwrap_or_default().to_owned();
            layer("probe", format!("{said} {last} ({exit})").trim().to_owned())
        }
    }
}

/// Returns by how much this machine is slower than the reference, at least 1.
pub(super) fn calibrate(sandbox: &Sandbox) -> Result<f64, SandboxError> {
    let limits = Limits {
        cpu: Duration::from_mins(1),
        wall: Duration::from_mins(5),
        ..Limits::default()
    };
    let ran = super::launch::run(sandbox, &Program::new(LOOP, limits))?;
    match text(&ran).trim().parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => Ok((seconds / REFERENCE_S).max(1.0)),
        _ => Err(Unavailable {
            layer: "calibration".to_owned(),
            reason: format!("the timed loop ended with {}", ran.exit),
        }
        .into()),
    }
}

fn text(ran: &Ran) -> String {
    String::from_utf8_lossy(&ran.stdout.bytes).into_owned()
}
