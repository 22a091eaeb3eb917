//! Letting somebody in, and locking somebody out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::info;
use tritmark_proto::{
    identity::{Role, SIGNING_PROOF_CONTEXT, Token, is_name},
    wire,
};

use super::{
    AuditEntry, AuditEvent, Authority, Identity, IdentityError, IdentityStore, Issued,
    PostgresIdentities, SqliteIdentities, StoredIdentity, StoredToken, Validity,
    authority::{CertificateRequest, first_certificate},
    files, is_agent, now_unix_s, random,
};

const POLICY: &str = "policy.toml";
const SERVER: &str = "server.pem";
const STORE: &str = "identity.sqlite";

/// Longest life of a token.
pub(super) const MAX_TOKEN_DAYS: u64 = 30;

/// The server's certificate is made anew when so many quarters of its life are left.
const RENEW_AT_QUARTERS: i64 = 1;

/// `policy.toml`: whom the server's certificate names, and how long certificates are valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Host names and addresses the coordinator is reached under.
    pub names: Vec<String>,
    /// Days that the authority's own certificate is valid.
    pub ca_days: u32,
    /// Days that the server's certificate is valid; it is renewed by itself.
    pub server_days: u32,
    /// Days that an agent's certificate is valid; agents renew theirs by themselves.
    pub agent_days: u32,
    /// Days that a person's or script's certificate is valid.
    pub client_days: u32,
}

impl Policy {
    /// Returns the usual times for a server of these names.
    pub fn new(names: Vec<String>) -> Self {
        Self {
            names,
            ca_days: 3650,
            server_days: 90,
            agent_days: 30,
            client_days: 90,
        }
    }
}

/// What a token shall give.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The role.
    pub role: Role,
    /// The name; `None` lets whoever enrolls choose.
    pub name: Option<String>,
    /// Labels, for agents.
    pub labels: BTreeMap<String, String>,
    /// How long it can be redeemed.
    pub valid: Duration,
}

/// What somebody who enrolls sends.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// The token's secret.
    pub secret: [u8; 32],
    /// A certificate request (PKCS#10, DER).
    pub csr_der: Vec<u8>,
    /// The name wanted.
    pub name: String,
    /// Agents: the UUID they will register with.
    pub agent_id: Option<uuid::Uuid>,
    /// Agents: the key they will sign with, and its signature over the request.
    pub signing: Option<([u8; 32], [u8; 64])>,
}

/// An authority with its store and its policy.
#[derive(Debug)]
pub struct Office {
    folder: PathBuf,
    policy: Policy,
    authority: Authority,
    store: Arc<dyn IdentityStore>,
}

impl Office {
    /// Makes an authority in `folder`, with a server's certificate for the policy's names.
    ///
    /// # Panics
    /// Never: a policy is numbers and texts.
    pub async fn create(
        folder: &Path,
        policy: &Policy,
        shared: Option<&str>,
    ) -> Result<Self, IdentityError> {
        let authority = Authority::create(folder, policy.ca_days)?;
        let text = toml::to_string(policy).expect("numbers and texts are TOML");
        files::write(&folder.join(POLICY), &text)?;
        let server = authority.issue_server(&policy.names, Validity::days(policy.server_days))?;
        files::write(&folder.join(SERVER), &server)?;
        Self::open(folder, shared).await
    }

    /// Opens the authority in `folder`. Whom it let in is in a file there, or in the PostgreSQL data
    /// base `shared`, whose other coordinators have a copy of the folder.
    pub async fn open(folder: &Path, shared: Option<&str>) -> Result<Self, IdentityError> {
        let file = folder.join(STORE);
        let store: Arc<dyn IdentityStore> = match shared {
            None => Arc::new(SqliteIdentities::open(&file).await?),
            Some(url) => {
                let store = PostgresIdentities::open(url).await?;
                if file.exists() && store.identities().await?.is_empty() {
                    move_to(&store, &file).await?;
                }
                Arc::new(store)
            }
        };
        Self::open_with(folder, store)
    }

    fn open_with(folder: &Path, store: Arc<dyn IdentityStore>) -> Result<Self, IdentityError> {
        let path = folder.join(POLICY);
        let policy =
            toml::from_str(&files::read(&path)?).map_err(|error| IdentityError::Damaged {
                path,
                what: format!("a policy: {}", error.message()),
            })?;
        Ok(Self {
            folder: folder.to_owned(),
            policy,
            authority: Authority::open(folder)?,
            store,
        })
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn IdentityStore> {
        &self.store
    }

    /// Returns the authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the file of the server's certificate chain and key, PEM.
    pub fn server_file(&self) -> PathBuf {
        self.folder.join(SERVER)
    }

    /// Makes a token; it is kept nowhere, so this is the one time it is seen.
    pub async fn create_token(&self, new: NewToken) -> Result<(Token, i64), IdentityError> {
        let NewToken {
            role,
            name,
            labels,
            valid,
        } = new;
        if let Some(name) = name.as_ref().filter(|name| !is_name(name)) {
            return Err(IdentityError::Name(name.clone()));
        }
        if !labels.is_empty() && !is_agent(role) {
            return Err(IdentityError::Enrollment("only agents have labels"));
        }
        if valid < Duration::from_secs(1) || valid > Duration::from_secs(MAX_TOKEN_DAYS * 86_400) {
            return Err(IdentityError::TokenTime);
        }
        let secret: [u8; 32] = random()?;
        let now = now_unix_s();
        let expires_unix_s = now + valid.as_secs().cast_signed();
        self.store
            .add_token(&StoredToken {
                hash: Sha256::digest(secret).into(),
                role,
                name,
                labels,
                created_unix_s: now,
                expires_unix_s,
            })
            .await?;
        let token = Token {
            ca_fingerprint: self.authority.fingerprint(),
            secret,
        };
        Ok((token, expires_unix_s))
    }

    /// Redeems a token.
    ///
    /// All that is wrong with the request is found before the token is used up.
    pub async fn enroll(&self, enrollment: Enrollment) -> Result<StoredIdentity, IdentityError> {
        let Enrollment {
            secret,
            csr_der,
            name,
            agent_id,
            signing,
        } = enrollment;
        let request = CertificateRequest::parse(&csr_der)?;
        let signing_key = signing
            .map(|(key, proof)| has_signing_key(&key, &proof, &csr_der).map(|()| key))
            .transpose()?;
        let hash = Sha256::digest(secret).into();
        let issue = |token: &StoredToken| {
            let name = token.name.clone().unwrap_or_else(|| name.clone());
            if !is_name(&name) {
                return Err(IdentityError::Name(name));
            }
            let wrong = IdentityError::Enrollment;
            let is_whole = agent_id.is_some() && signing_key.is_some();
            if is_agent(token.role) && !is_whole {
                return Err(wrong("an agent must say its id and its signing key"));
            }
            if !is_agent(token.role) && (agent_id.is_some() || signing_key.is_some()) {
                return Err(wrong("the token is not for an agent"));
            }
            let identity = StoredIdentity {
                serial: String::new(),
                name,
                role: token.role,
                labels: token.labels.clone(),
                agent_id,
                signing_key,
                certificate_pem: String::new(),
                not_before_unix_s: 0,
                not_after_unix_s: 0,
                revoked_unix_s: None,
            };
            self.certify(&request, identity)
        };
        self.store.redeem(hash, now_unix_s(), &issue).await
    }

    /// Gives a further certificate to someone who has one.
    pub async fn renew(
        &self,
        serial: &str,
        csr_der: &[u8],
    ) -> Result<StoredIdentity, IdentityError> {
        let request = CertificateRequest::parse(csr_der)?;
        let old = self
            .store
            .identity(serial)
            .await?
            .filter(|old| old.revoked_unix_s.is_none())
            .ok_or_else(|| IdentityError::Nobody(serial.to_owned()))?;
        let new = self.certify(&request, old)?;
        self.store.add_renewed(&new).await?;
        Ok(new)
    }

    /// Locks out a certificate by its serial, or all of a name.
    pub async fn revoke(
        &self,
        name_or_serial: &str,
        reason: &str,
    ) -> Result<Vec<String>, IdentityError> {
        let revoked = self
            .store
            .revoke(name_or_serial, reason, now_unix_s())
            .await?;
        if revoked.is_empty() {
            return Err(IdentityError::Nobody(name_or_serial.to_owned()));
        }
        Ok(revoked)
    }

    /// Writes into the audit log what a command beside the coordinator did.
    pub async fn audit_command(&self, what: &str, detail: &str) -> Result<(), IdentityError> {
        let entry = AuditEntry {
            at_unix_ns: crate::run::now_unix_ns(),
            event: AuditEvent::Call,
            peer: "(command)".to_owned(),
            serial: None,
            address: None,
            what: what.to_owned(),
            detail: detail.to_owned(),
        };
        self.store.audit(&entry).await.map(|_| ())
    }

    /// Makes the server's certificate anew where less than a quarter of its life is left, or where
    /// it does not name whom the policy names. Tells whether it did.
    pub fn renew_server_certificate(&self, now_unix_s: i64) -> Result<bool, IdentityError> {
        let path = self.server_file();
        let damaged = || IdentityError::Damaged {
            path: path.clone(),
            what: "the server's certificate".to_owned(),
        };
        let der = first_certificate(&files::read_secret(&path)?).ok_or_else(damaged)?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_| damaged())?;
        let validity = certificate.validity();
        let (from, to) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        if (to - now_unix_s) * 4 > (to - from) * RENEW_AT_QUARTERS {
            return Ok(false);
        }
        let validity = Validity::days(self.policy.server_days);
        let server = self.authority.issue_server(&self.policy.names, validity)?;
        files::write(&path, &server)?;
        Ok(true)
    }

    fn certify(
        &self,
        request: &CertificateRequest,
        identity: StoredIdentity,
    ) -> Result<StoredIdentity, IdentityError> {
        let days = if is_agent(identity.role) {
            self.policy.agent_days
        } else {
            self.policy.client_days
        };
        let claims = Identity::claims(
            identity.role,
            &identity.name,
            identity.agent_id,
            identity.signing_key,
        );
        let Issued {
            serial,
            certificate_pem,
            validity,
        } = self
            .authority
            .issue_client(request, &claims, Validity::days(days))?;
        Ok(StoredIdentity {
            serial,
            certificate_pem,
            not_before_unix_s: validity.not_before_unix_s,
            not_after_unix_s: validity.not_after_unix_s,
            ..identity
        })
    }

    /// Returns what somebody who was let in is told.
    pub fn credentials(&self, identity: StoredIdentity) -> wire::Credentials {
        wire::Credentials {
            certificate_pem: identity.certificate_pem,
            ca_pem: self.authority.certificate_pem().to_owned(),
            name: identity.name,
            role: identity.role.name().to_owned(),
            not_before_unix_s: identity.not_before_unix_s,
            not_after_unix_s: identity.not_after_unix_s,
        }
    }
}

/// Takes those over whom the authority knew before its coordinator had a data base: they have their
/// certificates, and must neither be locked out nor let in again. The file stays as it is.
async fn move_to(store: &PostgresIdentities, file: &Path) -> Result<(), IdentityError> {
    let known = SqliteIdentities::open(file).await?.identities().await?;
    for identity in &known {
        store.add_renewed(identity).await?;
    }
    if !known.is_empty() {
        info!(
            n_certificates = known.len(),
            file = %file.display(),
            "identities taken over into the data base"
        );
    }
    Ok(())
}

/// Checks that whoever made the request has the signing key too.
fn has_signing_key(key: &[u8; 32], proof: &[u8; 64], csr_der: &[u8]) -> Result<(), IdentityError> {
    let wrong = |_| IdentityError::Enrollment("the proof of the signing key is wrong");
    let message = [SIGNING_PROOF_CONTEXT, csr_der].concat();
    VerifyingKey::from_bytes(key)
        .and_then(|key| key.verify_strict(&message, &Signature::from_bytes(proof)))
        .map_err(wrong)
}
