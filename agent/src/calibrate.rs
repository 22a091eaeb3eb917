//! Measures what the machine can do, in a process that has the machine to itself.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};
use tritmark_proto::wire;
use tritmark_suites::{calibration::Calibration, chain};

use crate::{
    lock::{Hold, MachineLock},
    worker::WorkerCommand,
};

/// How long the process may take; it needs a few seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// Most of what the process says is a line.
const MAX_OUTPUT: u64 = 64 << 10;

/// Measures once nothing else has the machine, and answers request `number`. Dropping the future ends
/// the process.
pub(crate) async fn calibrate(
    number: u64,
    command: WorkerCommand,
    lock: MachineLock,
    memory_bytes: u64,
) -> wire::Calibration {
    match measure(command, &lock, memory_bytes).await {
        Ok(calibration) => calibration.into_answer(number),
        Err(failure) => {
            tracing::warn!(failure, "the calibration failed");
            wire::Calibration {
                number,
                failure,
                ..wire::Calibration::default()
            }
        }
    }
}

async fn measure(
    command: WorkerCommand,
    lock: &MachineLock,
    memory_bytes: u64,
) -> Result<Calibration, String> {
    let on_wait = || tracing::info!("the calibration waits for the machine");
    let guard = lock
        .acquire(Hold::Exclusive, on_wait)
        .await
        .map_err(|error| chain(&error))?;
    tracing::info!("calibrating");
    let WorkerCommand { program, args } = command.for_calibration(memory_bytes);
    let failed = |error: std::io::Error| format!("cannot run {}: {error}", program.display());
    let mut child = Command::new(&program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let talk = async {
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let said_all = async {
            match stdout {
                Some(stdout) => stdout.take(MAX_OUTPUT).read_to_end(&mut said).await,
                None => Ok(0),
            }
        };
        let complained_all = async {
            match stderr {
                Some(stderr) => stderr.take(MAX_OUTPUT).read_to_end(&mut complained).await,
                None => Ok(0),
            }
        };
        tokio::try_join!(said_all, complained_all)?;
        let status = child.wait().await?;
        Ok((status, said, complained))
    };
    let (status, said, complained) = timeout(LIMIT, talk)
        .await
        .map_err(|_| format!("it did not end within {} s", LIMIT.as_secs()))?
        .map_err(failed)?;
    drop(guard);
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complained);
        return Err(format!("{status}: {}", complaint.trim()));
    }
    serde_json::from_slice(&said).map_err(|error| format!("its answer makes no sense: {error}"))
}
