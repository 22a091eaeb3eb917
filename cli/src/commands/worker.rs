//! `tritmark worker`: one job in a fresh process, asked on stdin and answered on stdout.
//!
//! No runtime, no threads but the engine's, nothing before the job: what this process uses is what
//! the job uses.

use std::{io, process::ExitCode};

pub(crate) fn exec() -> ExitCode {
    tritmark_suites::worker::worker_main(io::stdin().lock(), io::stdout().lock())
}

/// Measures what the machine can do, on the same terms.
pub(crate) fn calibrate(memory_bytes: u64) -> ExitCode {
    tritmark_suites::calibration::calibration_main(memory_bytes, io::stdout().lock())
}
