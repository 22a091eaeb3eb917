//! The agent's word for what it measured: a signature over an attempt's records and what made them.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signer as _, SigningKey};
use prost::Message as _;
use tritmark_proto::{evidence, identity::ATTEMPT_CONTEXT, job::AttemptId, wire};

use crate::identity::{self, Credentials};

/// Signs for one agent.
#[derive(Debug)]
pub(crate) struct Signer {
    key: SigningKey,
    /// Credentials may come and be renewed while the agent runs.
    identity_dir: PathBuf,
    binary_hash: Vec<u8>,
    environment_hash: [u8; 32],
    agent_id: String,
    version: String,
}

/// What is signed of one attempt.
pub(crate) struct Evidence {
    pub(crate) attempt: AttemptId,
    pub(crate) n_records: u64,
    pub(crate) records_hash: [u8; 32],
    pub(crate) weights_hash: String,
    /// Unknown after a restart: the assignment is not kept.
    pub(crate) suite_hash: Option<[u8; 32]>,
    pub(crate) succeeded: bool,
}

impl Signer {
    /// Takes the key in `state_dir`, which is made where there is none, and hashes the program
    /// that measures.
    pub(crate) fn open(
        state_dir: &Path,
        program: &Path,
        machine: &wire::Machine,
        agent_id: &str,
        version: &str,
    ) -> Result<Self, identity::IdentityError> {
        let binary_hash = hash_file(program).map_or_else(
            |error| {
                tracing::warn!(%error, program = %program.display(), "the program cannot be hashed");
                Vec::new()
            },
            |hash| hash.to_vec(),
        );
        Ok(Self {
            key: identity::signing_key(state_dir)?,
            identity_dir: state_dir.join(identity::FOLDER),
            binary_hash,
            environment_hash: evidence::environment_hash(machine),
            agent_id: agent_id.to_owned(),
            version: version.to_owned(),
        })
    }

    /// Signs what is known of an attempt.
    pub(crate) fn sign(&self, evidence: Evidence) -> wire::SignedManifest {
        let Evidence {
            attempt,
            n_records,
            records_hash,
            weights_hash,
            suite_hash,
            succeeded,
        } = evidence;
        let manifest = wire::AttemptManifest {
            run_id: attempt.job.run.to_string(),
            job_index: attempt.job.index,
            attempt: attempt.attempt.get(),
            fence: attempt.fence,
            agent_id: self.agent_id.clone(),
            weights_hash,
            binary_hash: self.binary_hash.clone(),
            suite_hash: suite_hash.map_or_else(Vec::new, |hash| hash.to_vec()),
            environment_hash: self.environment_hash.to_vec(),
            n_records,
            records_hash: records_hash.to_vec(),
            succeeded,
            version: self.version.clone(),
        }
        .encode_to_vec();
        let certificate_pem = match Credentials::load(&self.identity_dir) {
            Ok(credentials) => credentials.map_or_else(String::new, |own| own.chain_pem()),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "signed without a certificate"
                );
                String::new()
            }
        };
        let signature = self.key.sign(&[ATTEMPT_CONTEXT, &manifest].concat());
        wire::SignedManifest {
            manifest,
            public_key: self.key.verifying_key().as_bytes().to_vec(),
            signature: signature.to_bytes().to_vec(),
            certificate_pem,
        }
    }
}

fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(*hasher.finalize().as_bytes())
}
