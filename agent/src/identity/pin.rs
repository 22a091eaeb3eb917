//! First contact: the coordinator's authority is known by its fingerprint alone.
//!
//! The server sends its authority's certificate along with its own. That one must have the
//! fingerprint, and must have signed the server's: then it is trusted from here on.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
        SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
        version::TLS13,
    },
};
use tonic::transport::Uri;

const WITHIN: Duration = Duration::from_secs(15);
const HTTPS: u16 = 443;

/// Why the authority is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It cannot be reached.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// It does not answer.
    #[error("it does not answer within {} s", WITHIN.as_secs())]
    Silent,
    /// TLS fails: above all, the fingerprint is another one.
    #[error("TLS fails")]
    Tls(#[source] io::Error),
    /// The host is no name and no address.
    #[error("`{0}` is no host")]
    Host(String),
}

/// Connects once and returns the authority with this fingerprint that vouches for the server.
pub(super) async fn authority(
    uri: &Uri,
    fingerprint: &[u8; 32],
) -> Result<Vec<TrustAnchor<'static>>, PinError> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(HTTPS);
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| PinError::Host(host.to_owned()))?;
    let provider = Arc::new(ring::default_provider());
    let pinned = Arc::new(Pinned {
        fingerprint: *fingerprint,
        provider: Arc::clone(&provider),
        found: OnceLock::new(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Pinned>::clone(&pinned))
        .with_no_client_auth();
    let connect = async {
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(PinError::Connect)?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(PinError::Tls)
    };
    tokio::time::timeout(WITHIN, connect)
        .await
        .map_err(|_| PinError::Silent)??;
    Ok(pinned
        .found
        .get()
        .cloned()
        .expect("the handshake has checked the certificate"))
}

/// Trusts the certificate with the fingerprint as an authority, and nothing else.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
    found: OnceLock<Vec<TrustAnchor<'static>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Sha256::digest(certificate)[..] == self.fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let anchors = roots.roots.clone();
        let verified = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?
        .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)?;
        // Said once: there is one handshake.
        let _ = self.found.set(anchors);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
