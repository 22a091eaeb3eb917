//! TLS 1.3 with certificates of our own authority on both sides.
//!
//! The server's certificate is read again when its file changes, so that it can be replaced while
//! connections are open. Sessions are not resumed: each connection shows its certificate, and it is
//! checked against what is revoked now.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore,
        ServerConfig, SignatureScheme,
        client::danger::HandshakeSignatureValid,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
        server::{
            ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
        sign::CertifiedKey,
        version::TLS13,
    },
};

use crate::identity::{Identity, Office};

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The server's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server's file holds something else.
    #[error("{} holds no certificate chain with its key", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The key is of another certificate, or of a kind that cannot be used.
    #[error("the key and the certificate in {} cannot be used together", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authority's certificate cannot be trusted.
    #[error("clients cannot be checked against the authority: {0}")]
    Authority(String),
}

/// The serials that are revoked.
#[derive(Debug, Default)]
pub(super) struct Revocations(RwLock<HashSet<String>>);

impl Revocations {
    pub(super) fn replace(&self, serials: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = serials.into_iter().collect();
    }

    /// Says why somebody is not welcome, who was when the connection was made.
    pub(super) fn problem(&self, identity: &Identity, now_unix_s: i64) -> Option<&'static str> {
        if now_unix_s > identity.not_after_unix_s {
            Some("the certificate has expired")
        } else if self.has(&identity.serial) {
            Some("the certificate is revoked")
        } else {
            None
        }
    }

    fn has(&self, serial: &str) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(serial)
    }
}

/// The server's certificate, as its file holds it.
#[derive(Debug)]
pub(super) struct ServerCertificate {
    path: PathBuf,
    /// The file's time when it was last read, well or not.
    current: RwLock<(Option<SystemTime>, Arc<CertifiedKey>)>,
}

impl ServerCertificate {
    pub(super) fn open(path: PathBuf) -> Result<Self, TlsError> {
        let at = modified(&path);
        let current = RwLock::new((at, Arc::new(read(&path)?)));
        Ok(Self { path, current })
    }

    /// Reads the file again if it has changed; tells whether it had.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let at = modified(&self.path);
        let current = || self.current.write().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut current().0, at) == at {
            return Ok(false);
        }
        let fresh = Arc::new(read(&self.path)?);
        current().1 = fresh;
        Ok(true)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current.1))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

fn read(path: &Path) -> Result<CertifiedKey, TlsError> {
    let pem = std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let wrong = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(wrong)?;
    let unfit = |source| TlsError::Key {
        path: path.to_owned(),
        source,
    };
    let key = ring::sign::any_supported_type(&key).map_err(unfit)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(unfit)?;
    Ok(certified)
}

/// Checks clients' certificates: the authority's signature, the time, the revocations.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    revocations: Arc<Revocations>,
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        let identity = Identity::of_certificate(end_entity)
            .map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        if self.revocations.has(&identity.serial) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Returns what accepts TLS connections, with a client's certificate or without.
pub(super) fn acceptor(
    office: &Office,
    certificate: Arc<ServerCertificate>,
    revocations: Arc<Revocations>,
) -> Result<TlsAcceptor, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Authority(error.to_string());
    let ca = CertificateDer::from_pem_slice(office.authority().certificate_pem().as_bytes())
        .map_err(|error| unusable(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|error| unusable(&error))?;
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(&error))?;
    let verifier = Arc::new(Verifier { inner, revocations });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
