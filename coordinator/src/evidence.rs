//! Whether a bundle is what agents signed.
//!
//! [`file`] puts every record of the attempts that count into the bundle as its agent sent it, with
//! the agent's signature. [`verify`] checks each signature, each hash, and that the bundle's tables
//! are the ones that follow from those records.

use std::{collections::BTreeMap, fs, io, path::Path, path::PathBuf};

use ed25519_dalek::{Signature, VerifyingKey};
use polars::prelude::{DataFrame, ParquetReader, PolarsError, SerReader as _};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tritmark_proto::{
    bundle::{AGREEMENT, EVIDENCE, JobOutcome, MANIFEST, Manifest},
    evidence::{RecordsHasher, environment_hash, suite_hash},
    identity::{ATTEMPT_CONTEXT, to_hex},
    record::{Record, RecordBody},
    wire::{self, AttemptEvidence, AttemptManifest, SignedManifest},
};
use x509_parser::parse_x509_certificate;

use crate::{bundle, identity::Identity};

#[cfg(test)]
mod tests;

/// Largest evidence of one attempt that is read.
const MAX_EVIDENCE: u64 = 4 << 30;

/// Why a bundle cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest is none.
    #[error("{} is no manifest", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The authority's certificate is none.
    #[error("{} holds no certificate", .0.display())]
    Authority(PathBuf),
}

/// What is known of one attempt's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedAttempt {
    /// Its job.
    pub job_index: u32,
    /// Its count.
    pub attempt: u32,
    /// Records that are there.
    pub n_records: u64,
    /// Who signed them.
    pub signer: Signer,
    /// Hash of the program that measured, hexadecimal; empty where the agent did not know.
    pub binary_hash: String,
    /// What is wrong.
    pub faults: Vec<String>,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Nobody: the agent was lost before the attempt's end.
    Nobody,
    /// A key that no authority vouches for, hexadecimal.
    Key(String),
    /// An agent that an authority has enrolled.
    Enrolled {
        /// Its name.
        name: String,
        /// SHA-256 of the authority's certificate, hexadecimal.
        authority: String,
    },
}

/// What was found out about a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Every attempt in the evidence, by job and count.
    pub attempts: Vec<CheckedAttempt>,
    /// What is wrong with the bundle beside single attempts.
    pub faults: Vec<String>,
}

impl Verification {
    /// Tells whether nothing is wrong; attempts that nobody signed are no fault.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
            && self
                .attempts
                .iter()
                .all(|attempt| attempt.faults.is_empty())
    }

    /// Tells whether every attempt is signed.
    pub fn is_whole(&self) -> bool {
        let is_signed = |attempt: &CheckedAttempt| attempt.signer != Signer::Nobody;
        !self.attempts.is_empty() && self.attempts.iter().all(is_signed)
    }
}

/// Returns evidence as a bundle's file holds it.
pub(crate) fn file(evidence: &[AttemptEvidence]) -> Vec<u8> {
    evidence
        .iter()
        .flat_map(AttemptEvidence::encode_length_delimited_to_vec)
        .collect()
}

/// Reads a bundle's file of evidence; what comes after a damage is left out.
fn parse(mut bytes: &[u8]) -> (Vec<AttemptEvidence>, Option<String>) {
    let n_bytes = bytes.len();
    let mut evidence = Vec::new();
    while !bytes.is_empty() {
        let offset = n_bytes - bytes.len();
        match AttemptEvidence::decode_length_delimited(&mut bytes) {
            Ok(attempt) => evidence.push(attempt),
            Err(error) => {
                let fault = format!("{EVIDENCE}: cannot be read at offset {offset}: {error}");
                return (evidence, Some(fault));
            }
        }
    }
    (evidence, None)
}

/// Checks the bundle in `folder`. Agents must be enrolled by the authority in `ca_file`, where one
/// is given.
pub fn verify(folder: &Path, ca_file: Option<&Path>) -> Result<Verification, VerifyError> {
    let read = |path: PathBuf| match fs::metadata(&path) {
        Ok(facts) if facts.len() > MAX_EVIDENCE => Err(VerifyError::Read {
            path,
            source: io::ErrorKind::FileTooLarge.into(),
        }),
        _ => fs::read(&path).map_err(|source| VerifyError::Read { path, source }),
    };
    let path = folder.join(MANIFEST);
    let manifest: Manifest = serde_json::from_slice(&read(path.clone())?)
        .map_err(|source| VerifyError::Manifest { path, source })?;
    let authority = match ca_file {
        None => None,
        Some(path) => Some(
            CertificateDer::from_pem_slice(&read(path.to_owned())?)
                .map_err(|_| VerifyError::Authority(path.to_owned()))?,
        ),
    };
    let mut verification = Verification::default();
    let path = folder.join(EVIDENCE);
    if !path.exists() {
        return Ok(verification);
    }
    let (evidence, damage) = parse(&read(path)?);
    verification.faults.extend(damage);
    let mut tables = bundle::Tables::default();
    let mut by_job: BTreeMap<u32, Vec<(u32, Record)>> = BTreeMap::new();
    for attempt in evidence {
        let Some(job) = manifest.jobs.get(attempt.job_index as usize) else {
            let fault = format!("{EVIDENCE}: there is no job {}", attempt.job_index);
            verification.faults.push(fault);
            continue;
        };
        let checked = check(&attempt, job, &manifest, authority.as_ref());
        let is_second = verification
            .attempts
            .iter()
            .any(|other| (other.job_index, other.attempt) == (checked.job_index, checked.attempt));
        if is_second {
            let (job, attempt) = (checked.job_index, checked.attempt);
            let fault = format!("{EVIDENCE}: attempt {attempt} of job {job} is there twice");
            verification.faults.push(fault);
            continue;
        }
        verification.attempts.push(checked);
        let records = attempt.records.iter().filter_map(|bytes| record(bytes));
        by_job
            .entry(attempt.job_index)
            .or_default()
            .extend(records.map(|record| (attempt.attempt, record)));
    }
    for job in &manifest.jobs {
        let index = job.job.id.index;
        let facts = by_job
            .remove(&index)
            .and_then(|records| tables.add(job, records));
        if facts != job.facts {
            let fault =
                format!("{MANIFEST}: the facts of job {index} are not those of its records");
            verification.faults.push(fault);
        }
    }
    for (name, table) in tables.into_parquet() {
        if name == AGREEMENT && manifest.format_version < 5 {
            continue;
        }
        let says = table.and_then(frame).map_err(|error| error.to_string());
        let path = folder.join(name);
        let there = fs::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| frame(bytes).map_err(|error| error.to_string()));
        let is_same = match (&says, &there) {
            (Ok(says), Ok(there)) => says.equals_missing(there),
            _ => false,
        };
        if !is_same {
            let why = match there {
                Err(error) => format!("cannot be read: {error}"),
                Ok(_) => "is not what the records say".to_owned(),
            };
            verification.faults.push(format!("{name}: {why}"));
        }
    }
    Ok(verification)
}

fn frame(bytes: Vec<u8>) -> Result<DataFrame, PolarsError> {
    ParquetReader::new(io::Cursor::new(bytes)).finish()
}

fn record(encoded: &[u8]) -> Option<Record> {
    Record::try_from(wire::Record::decode(encoded).ok()?).ok()
}

/// Checks one attempt: its records, its signature, and that it is of this job.
fn check(
    evidence: &AttemptEvidence,
    job: &JobOutcome,
    manifest: &Manifest,
    authority: Option<&CertificateDer<'_>>,
) -> CheckedAttempt {
    let AttemptEvidence {
        job_index,
        attempt,
        signed,
        records,
    } = evidence;
    let mut checked = CheckedAttempt {
        job_index: *job_index,
        attempt: *attempt,
        n_records: records.len() as u64,
        signer: Signer::Nobody,
        binary_hash: String::new(),
        faults: Vec::new(),
    };
    let mut hasher = RecordsHasher::default();
    let mut weights_hash = String::new();
    for (place, bytes) in records.iter().enumerate() {
        hasher.add(bytes);
        match record(bytes) {
            None => checked
                .faults
                .push(format!("record {place} cannot be read")),
            Some(Record { sequence, .. }) if sequence != place as u64 => checked.faults.push(
                format!("record {place} is missing or out of order: {sequence} stands there"),
            ),
            Some(Record {
                body: RecordBody::Facts(facts),
                ..
            }) if weights_hash.is_empty() => weights_hash = facts.weights_hash,
            Some(_) => {}
        }
    }
    let Some(signed) = signed else {
        return checked;
    };
    let said = match signature(signed, authority) {
        Ok((said, by)) => {
            checked.signer = by;
            said
        }
        Err(fault) => {
            checked.signer = Signer::Key(to_hex(&signed.public_key));
            checked.faults.push(fault);
            return checked;
        }
    };
    checked.binary_hash = to_hex(&said.binary_hash);
    let (n_records, records_hash) = hasher.finish();
    let machine = job
        .machine_id
        .as_ref()
        .filter(|_| job.attempt == *attempt)
        .and_then(|id| manifest.machines.iter().find(|machine| machine.id == *id));
    let environment = machine.map(|machine| environment_hash(&machine.clone().into()));
    let suite = suite_hash(job.job.clone().into());
    let run = manifest.run.id.to_string();
    for (is_right, fault) in [
        (said.run_id == run, "the signature is for another run"),
        (
            said.job_index == *job_index,
            "the signature is for another job",
        ),
        (
            said.attempt == *attempt,
            "the signature is for another attempt",
        ),
        (
            said.n_records == n_records,
            "the number of records is not the signed one",
        ),
        (
            said.records_hash == records_hash,
            "the records are not the signed ones",
        ),
        (
            said.weights_hash == weights_hash,
            "the weights are not the signed ones",
        ),
        // An agent that was restarted does not know what it was asked for.
        (
            said.suite_hash.is_empty() || said.suite_hash == suite,
            "the job is not the signed one",
        ),
        (
            environment.is_none_or(|hash| said.environment_hash == hash),
            "the machine is not the signed one",
        ),
    ] {
        if !is_right {
            checked.faults.push(fault.to_owned());
        }
    }
    checked
}

/// Checks a signature and whose it is.
fn signature(
    signed: &SignedManifest,
    authority: Option<&CertificateDer<'_>>,
) -> Result<(AttemptManifest, Signer), String> {
    let SignedManifest {
        manifest,
        public_key,
        signature,
        certificate_pem,
    } = signed;
    let key: [u8; 32] = public_key
        .as_slice()
        .try_into()
        .map_err(|_| "the signing key is no key")?;
    let signature: [u8; 64] = signature
        .as_slice()
        .try_into()
        .map_err(|_| "the signature is none")?;
    VerifyingKey::from_bytes(&key)
        .and_then(|key| {
            let message = [ATTEMPT_CONTEXT, manifest].concat();
            key.verify_strict(&message, &Signature::from_bytes(&signature))
        })
        .map_err(|_| "the signature is wrong")?;
    let said = AttemptManifest::decode(manifest.as_slice())
        .map_err(|error| format!("what was signed cannot be read: {error}"))?;
    let by = if certificate_pem.is_empty() {
        if authority.is_some() {
            return Err("the agent was never enrolled".to_owned());
        }
        Signer::Key(to_hex(&key))
    } else {
        let (identity, authority) = enrolled(certificate_pem, authority)?;
        if identity.signing_key != Some(key) {
            return Err("the signing key is not the certificate's".to_owned());
        }
        if identity.agent_id.map(|id| id.to_string()).as_ref() != Some(&said.agent_id) {
            return Err("the certificate is another agent's".to_owned());
        }
        Signer::Enrolled {
            name: identity.name,
            authority,
        }
    };
    Ok((said, by))
}

/// Checks that the first certificate of a chain is signed by the authority: the given one, else the
/// one that came along. Certificates may have expired since.
fn enrolled(
    chain_pem: &str,
    authority: Option<&CertificateDer<'_>>,
) -> Result<(Identity, String), String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let [own, theirs, ..] = chain.as_slice() else {
        return Err("the certificate or its authority is missing".to_owned());
    };
    let authority = authority.unwrap_or(theirs);
    let unreadable = |_| "the certificate cannot be read";
    let (_, certificate) = parse_x509_certificate(own).map_err(unreadable)?;
    let (_, issuer) = parse_x509_certificate(authority).map_err(unreadable)?;
    if !issuer.is_ca()
        || certificate
            .verify_signature(Some(issuer.public_key()))
            .is_err()
    {
        return Err("the certificate is not of this authority".to_owned());
    }
    let identity = Identity::of_certificate(own).map_err(|error| error.to_string())?;
    Ok((identity, to_hex(&Sha256::digest(authority))))
}
