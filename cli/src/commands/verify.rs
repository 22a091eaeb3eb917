//! `tritmark verify`: whether a run's results are what its agents signed.

use std::path::Path;

use serde_json::json;
use tritmark_coordinator::evidence::{self, CheckedAttempt, Signer, Verification};

use crate::{
    args::VerifyRun,
    commands::{block_on, bundles},
    exit::{Exit, OrExit as _, Outcome},
    out,
};

pub(crate) fn exec(args: &VerifyRun) -> Outcome {
    let source = Path::new(&args.source);
    let (bundle, fetched) = if source.is_dir() {
        (bundles::folder(source), None)
    } else {
        let folder = block_on(bundles::fetch(&args.source, &args.target))?;
        (folder.path().to_owned(), Some(folder))
    };
    let verification = evidence::verify(&bundle, args.authority.as_deref())
        .or_exit(Exit::Usage, || format!("cannot check {}", bundle.display()))?;
    drop(fetched);
    if args.print.json {
        out::json(&as_json(&verification))?;
    } else {
        print(&verification)?;
    }
    Ok(if !verification.is_sound() {
        Exit::GateFailed
    } else if verification.attempts.is_empty() {
        Exit::NothingSelected
    } else if !verification.is_whole() {
        Exit::Inconclusive
    } else {
        Exit::Pass
    })
}

fn print(verification: &Verification) -> Outcome<()> {
    for attempt in &verification.attempts {
        let CheckedAttempt {
            job_index,
            attempt: count,
            n_records,
            signer,
            binary_hash: _,
            faults,
        } = attempt;
        let place = format!("job {job_index} attempt {count}: {n_records} records");
        for fault in faults {
            out::line(&format!("WRONG  {place}: {fault}"))?;
        }
        if faults.is_empty() {
            out::line(&match signer {
                Signer::Nobody => format!("?      {place}, signed by nobody"),
                Signer::Key(key) => {
                    format!("signed {place}, by key {key}, which no authority vouches for")
                }
                Signer::Enrolled { name, authority } => {
                    format!("signed {place}, by {name} of authority {authority}")
                }
            })?;
        }
    }
    for fault in &verification.faults {
        out::line(&format!("WRONG  {fault}"))?;
    }
    if verification.attempts.is_empty() && verification.faults.is_empty() {
        eprintln!("nothing in the bundle is signed: it is older than signatures, or nothing ran");
    }
    Ok(())
}

fn as_json(verification: &Verification) -> serde_json::Value {
    let attempts: Vec<_> = verification
        .attempts
        .iter()
        .map(|attempt| {
            let (agent, authority, key) = match &attempt.signer {
                Signer::Nobody => (None, None, None),
                Signer::Key(key) => (None, None, Some(key)),
                Signer::Enrolled { name, authority } => (Some(name), Some(authority), None),
            };
            json!({
                "job_index": attempt.job_index, "attempt": attempt.attempt,
                "n_records": attempt.n_records, "agent": agent, "authority": authority,
                "key": key, "binary_hash": attempt.binary_hash, "faults": attempt.faults,
            })
        })
        .collect();
    json!({
        "is_sound": verification.is_sound(),
        "is_whole": verification.is_whole(),
        "attempts": attempts,
        "faults": verification.faults,
    })
}
