//! Whom the hub is believed by: the certificates of this machine (`SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name others), with ring's arithmetic, as everywhere in this binary.

use std::sync::Arc;

use rustls::crypto::ring;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// Returns how connections are encrypted.
pub(super) fn config() -> TlsConfig {
    // One that cannot be read makes the hub untrusted at worst, which the connection then says.
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<Certificate<'static>> = found
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&certificates))
        .build()
}
