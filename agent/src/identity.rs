//! Who this machine or this person is to a coordinator: a key, its certificate, and the authority
//! that made it.
//!
//! The key is made here and never leaves. [`enroll`] redeems a token, [`Credentials`] are what it
//! leads to and lie in a folder of their own, [`renew`] replaces them before they expire.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ed25519_dalek::{Signer as _, SigningKey};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use tonic::{
    Status,
    transport::{Channel, ClientTlsConfig},
};
use tritmark_proto::{
    identity::{SIGNING_PROOF_CONTEXT, Token, from_hex, to_hex},
    private_file,
    wire::{self, enrollment_client::EnrollmentClient},
};
use uuid::Uuid;

use crate::{EndpointError, endpoint::bare_endpoint};

mod pin;

pub use pin::PinError;

/// Certificate and key in one file, so that they are replaced in one step.
const CLIENT: &str = "client.pem";
const CA: &str = "ca.pem";
const ABOUT: &str = "identity.json";
const SIGNING_KEY: &str = "signing.key";

/// Folder of the credentials inside an agent's state folder.
pub const FOLDER: &str = "identity";

/// How long a call to enroll may take.
const ENROLL_WITHIN: Duration = Duration::from_secs(30);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The address cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Certificates are made over TLS only.
    #[error("`{0}` is not https: a token is sent to a coordinator with TLS only")]
    NoTls(String),
    /// The server is not the one the token is from.
    #[error("cannot be sure of the coordinator at `{address}`")]
    Pin {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: PinError,
    },
    /// The coordinator cannot be reached.
    #[error("cannot reach the coordinator at `{address}`")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The coordinator refuses.
    #[error("the coordinator refuses: {}", .0.message())]
    Refused(Box<Status>),
    /// A key or a certificate request cannot be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A private key lies open.
    #[error("others can read {}: take that right away (chmod 600)", .0.display())]
    Exposed(PathBuf),
    /// A file holds something else.
    #[error("{} holds no {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
    },
    /// There are credentials in the folder already.
    #[error("{} holds the credentials of `{name}` already", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
        /// Whose.
        name: String,
    },
}

/// A certificate, its key, and whom to trust.
#[derive(Clone)]
pub struct Credentials {
    /// What the coordinator said of them.
    pub about: About,
    /// The certificate and the key, PEM.
    pub(crate) client_pem: String,
    /// The authority's certificate, PEM.
    pub(crate) ca_pem: String,
}

/// Who one is, and how long the certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The name.
    pub name: String,
    /// The role: `agent`, `submitter`, `viewer` or `admin`.
    pub role: String,
    /// First second at which the certificate is valid.
    pub not_before_unix_s: i64,
    /// Last second at which the certificate is valid.
    pub not_after_unix_s: i64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the credentials in a folder; `None` where there are none.
    ///
    /// # Errors
    /// [`IdentityError::Exposed`] if others can read the key.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let about_path = folder.join(ABOUT);
        if !about_path.exists() {
            return Ok(None);
        }
        let about =
            serde_json::from_str(&read(&about_path)?).map_err(|_| IdentityError::Damaged {
                path: about_path,
                what: "credentials",
            })?;
        Ok(Some(Self {
            about,
            client_pem: read_secret(&folder.join(CLIENT))?,
            ca_pem: read(&folder.join(CA))?,
        }))
    }

    /// Returns the certificate chain that shows who one is: one's own certificate, the authority's.
    pub(crate) fn chain_pem(&self) -> String {
        const END: &str = "-----END CERTIFICATE-----\n";
        let own = self
            .client_pem
            .find(END)
            .map_or("", |at| &self.client_pem[..at + END.len()]);
        format!("{own}{}", self.ca_pem)
    }

    fn store(&self, folder: &Path) -> Result<(), IdentityError> {
        private_file::make_folder(folder).map_err(failed("make", folder))?;
        write(&folder.join(CA), &self.ca_pem)?;
        write(&folder.join(CLIENT), &self.client_pem)?;
        let about = serde_json::to_string_pretty(&self.about).expect("texts and numbers are JSON");
        // Last: it is what says that there are credentials.
        write(&folder.join(ABOUT), &format!("{about}\n"))
    }

    /// Tells whether so little of the certificate's life is left that it is time for another: a
    /// third.
    pub fn is_due(&self, now_unix_s: i64) -> bool {
        let About {
            not_before_unix_s,
            not_after_unix_s,
            ..
        } = self.about;
        (not_after_unix_s - now_unix_s) * 3 < not_after_unix_s - not_before_unix_s
    }
}

/// What an agent shows when it enrolls, beside its token.
#[derive(Clone, Copy, Debug)]
pub struct AgentKeys<'a> {
    /// The UUID it registers with.
    pub agent_id: Uuid,
    /// What it signs results with.
    pub signing: &'a SigningKey,
}

/// Redeems a token and stores what it leads to in `folder`.
///
/// The coordinator has to show a certificate of the authority whose fingerprint is in the token.
pub async fn enroll(
    address: &str,
    token: &Token,
    name: &str,
    agent: Option<AgentKeys<'_>>,
    folder: &Path,
) -> Result<Credentials, IdentityError> {
    if let Some(old) = Credentials::load(folder)?
        && old.about.not_after_unix_s > now_unix_s()
    {
        return Err(IdentityError::Exists {
            folder: folder.to_owned(),
            name: old.about.name,
        });
    }
    let (endpoint, is_tls) = bare_endpoint(address, true)?;
    if !is_tls {
        return Err(IdentityError::NoTls(address.to_owned()));
    }
    let anchors = pin::authority(endpoint.uri(), &token.ca_fingerprint)
        .await
        .map_err(|source| IdentityError::Pin {
            address: address.to_owned(),
            source,
        })?;
    let connect = |source| IdentityError::Connect {
        address: address.to_owned(),
        source,
    };
    let channel = endpoint
        .timeout(ENROLL_WITHIN)
        .tls_config(ClientTlsConfig::new().trust_anchors(anchors))
        .map_err(connect)?
        .connect()
        .await
        .map_err(connect)?;
    let (key, csr_der) = request()?;
    let mut enroll = wire::EnrollRequest {
        token_secret: token.secret.to_vec(),
        name: name.to_owned(),
        ..wire::EnrollRequest::default()
    };
    if let Some(AgentKeys { agent_id, signing }) = agent {
        enroll.agent_id = agent_id.to_string();
        enroll.signing_key = signing.verifying_key().as_bytes().to_vec();
        let proof = signing.sign(&[SIGNING_PROOF_CONTEXT, &csr_der].concat());
        enroll.signing_proof = proof.to_bytes().to_vec();
    }
    enroll.csr_der = csr_der;
    let given = EnrollmentClient::new(channel)
        .enroll(enroll)
        .await
        .map_err(|status| IdentityError::Refused(Box::new(status)))?
        .into_inner();
    let credentials = credentials(given, &key);
    credentials.store(folder)?;
    Ok(credentials)
}

/// Asks for a new certificate over a channel that shows the old one, and stores it in `folder`.
pub async fn renew(channel: Channel, folder: &Path) -> Result<Credentials, IdentityError> {
    let (key, csr_der) = request()?;
    let given = EnrollmentClient::new(channel)
        .renew(wire::RenewRequest { csr_der })
        .await
        .map_err(|status| IdentityError::Refused(Box::new(status)))?
        .into_inner();
    let credentials = credentials(given, &key);
    credentials.store(folder)?;
    Ok(credentials)
}

fn request() -> Result<(KeyPair, Vec<u8>), IdentityError> {
    let key = KeyPair::generate().map_err(IdentityError::Key)?;
    let request = CertificateParams::default()
        .serialize_request(&key)
        .map_err(IdentityError::Key)?;
    Ok((key, request.der().to_vec()))
}

fn credentials(given: wire::Credentials, key: &KeyPair) -> Credentials {
    let wire::Credentials {
        certificate_pem,
        ca_pem,
        name,
        role,
        not_before_unix_s,
        not_after_unix_s,
    } = given;
    Credentials {
        about: About {
            name,
            role,
            not_before_unix_s,
            not_after_unix_s,
        },
        // The same line ends everywhere, whoever made the text.
        client_pem: format!("{certificate_pem}{}", key.serialize_pem()).replace("\r\n", "\n"),
        ca_pem: ca_pem.replace("\r\n", "\n"),
    }
}

/// Returns the key that an agent signs its results with, made where there is none.
pub fn signing_key(state_dir: &Path) -> Result<SigningKey, IdentityError> {
    let path = state_dir.join(SIGNING_KEY);
    if !path.exists() {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(IdentityError::Random)?;
        write(&path, &format!("{}\n", to_hex(&seed)))?;
    }
    let text = read_secret(&path)?;
    let seed = from_hex(text.trim())
        .and_then(|seed| <[u8; 32]>::try_from(seed).ok())
        .ok_or(IdentityError::Damaged {
            path,
            what: "signing key",
        })?;
    Ok(SigningKey::from_bytes(&seed))
}

pub(crate) fn now_unix_s() -> i64 {
    crate::link::now_unix_ns() / 1_000_000_000
}

fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    private_file::write(path, text).map_err(failed("write", path))
}

fn read_secret(path: &Path) -> Result<String, IdentityError> {
    if private_file::is_exposed(path).map_err(failed("read", path))? {
        return Err(IdentityError::Exposed(path.to_owned()));
    }
    read(path)
}

fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_signing_key_stays_the_same_and_is_for_its_owner_alone() {
        let folder = TempDir::new().unwrap();
        let first = signing_key(folder.path()).unwrap();
        assert_eq!(signing_key(folder.path()).unwrap(), first);
        let path = folder.path().join(SIGNING_KEY);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refusal = signing_key(folder.path()).unwrap_err();
        assert!(matches!(refusal, IdentityError::Exposed(_)), "{refusal}");
    }

    #[test]
    fn credentials_are_renewed_in_the_last_third_of_their_life() {
        let credentials = Credentials {
            about: About {
                name: "a".into(),
                role: "agent".into(),
                not_before_unix_s: 0,
                not_after_unix_s: 300,
            },
            client_pem: String::new(),
            ca_pem: String::new(),
        };
        assert!(!credentials.is_due(200));
        assert!(credentials.is_due(201));
    }

    #[test]
    fn a_folder_without_credentials_is_no_fault() {
        let folder = TempDir::new().unwrap();
        assert!(Credentials::load(folder.path()).unwrap().is_none());
    }
}
