//! Where the coordinator is and whether the way there may be taken.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::{AgentError, identity::Credentials};

/// Why a coordinator's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is no address.
    #[error("`{address}` is no coordinator address; write http://host:port or https://host:port")]
    NoAddress {
        /// What was given.
        address: String,
    },
    /// It would send measurements over a network unprotected.
    #[error(
        "`{address}` would be plain text over a network: use https, or allow it with `insecure`"
    )]
    PlainText {
        /// What was given.
        address: String,
    },
    /// The file of trusted certificates cannot be read.
    #[error("cannot read the certificates in {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system has no certificates where they are usually kept.
    #[error("this system has no file of trusted certificates: name one to trust")]
    NoSystemCa,
    /// TLS cannot be set up.
    #[error("cannot set up TLS to `{address}`")]
    Tls {
        /// What was given.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Checks the address and sets timeouts and TLS; connects to nothing.
///
/// Plain text goes to this machine only, unless `insecure`. TLS trusts the certificates in
/// `ca_file`, else the authority of the credentials, else the system's; the credentials are shown
/// to the coordinator.
pub fn endpoint(
    address: &str,
    ca_file: Option<&PathBuf>,
    insecure: bool,
    credentials: Option<&Credentials>,
) -> Result<Endpoint, EndpointError> {
    let (endpoint, is_tls) = bare_endpoint(address, insecure)?;
    if !is_tls {
        return Ok(endpoint);
    }
    let pem = match (ca_file, credentials) {
        (None, Some(credentials)) => credentials.ca_pem.clone().into_bytes(),
        (ca_file, _) => {
            let path = ca_file
                .cloned()
                .or_else(system_ca_file)
                .ok_or(EndpointError::NoSystemCa)?;
            std::fs::read(&path).map_err(|source| EndpointError::CaFile { path, source })?
        }
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    if let Some(credentials) = credentials {
        // Certificate and key are in one text; each is looked for by its own kind.
        let client = &credentials.client_pem;
        tls = tls.identity(Identity::from_pem(client, client));
    }
    endpoint
        .tls_config(tls)
        .map_err(|source| EndpointError::Tls {
            address: address.to_owned(),
            source,
        })
}

/// Checks the address and sets timeouts; tells whether it asks for TLS, which is not set.
pub(crate) fn bare_endpoint(
    address: &str,
    insecure: bool,
) -> Result<(Endpoint, bool), EndpointError> {
    let no_address = || EndpointError::NoAddress {
        address: address.to_owned(),
    };
    let uri: Uri = address.parse().map_err(|_| no_address())?;
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(no_address)?;
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(no_address()),
    };
    if !is_tls && !insecure && !is_loopback(host) {
        return Err(EndpointError::PlainText {
            address: address.to_owned(),
        });
    }
    let endpoint = Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(10))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_mins(1)))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    Ok((endpoint, is_tls))
}

/// Where to dial, looked up anew each time: credentials are renewed while an agent runs.
#[derive(Debug)]
pub(crate) struct Dialer {
    address: String,
    ca_file: Option<PathBuf>,
    insecure: bool,
    identity_dir: PathBuf,
    /// Good when it was made.
    last: Endpoint,
}

impl Dialer {
    pub(crate) fn new(
        address: String,
        ca_file: Option<PathBuf>,
        insecure: bool,
        identity_dir: PathBuf,
    ) -> Result<Self, AgentError> {
        let credentials = Credentials::load(&identity_dir)?;
        let last = endpoint(&address, ca_file.as_ref(), insecure, credentials.as_ref())?;
        Ok(Self {
            address,
            ca_file,
            insecure,
            identity_dir,
            last,
        })
    }

    /// Returns the endpoint with the credentials there are now; the last one where they cannot be
    /// read.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let fresh = Credentials::load(&self.identity_dir)
            .map_err(AgentError::from)
            .and_then(|credentials| {
                let ca_file = self.ca_file.as_ref();
                Ok(endpoint(
                    &self.address,
                    ca_file,
                    self.insecure,
                    credentials.as_ref(),
                )?)
            });
        fresh.unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the credentials cannot be used; dialling with the last ones"
            );
            self.last.clone()
        })
    }
}

/// Returns the file of certificates this system trusts: `SSL_CERT_FILE`, else where distributions
/// keep it (the places `OpenSSL` is built to look in).
fn system_ca_file() -> Option<PathBuf> {
    const PLACES: [&str; 6] = [
        // Debian, Ubuntu, Arch, Gentoo
        "/etc/ssl/certs/ca-certificates.crt",
        // Fedora, RHEL
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/tls/certs/ca-bundle.crt",
        // openSUSE
        "/etc/ssl/ca-bundle.pem",
        // Alpine, macOS
        "/etc/ssl/cert.pem",
        // NixOS
        "/etc/ssl/certs/ca-bundle.crt",
    ];
    std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain(PLACES.map(PathBuf::from))
        .find(|path| path.is_file())
}

/// Tells whether the host is this machine by its very name; nothing is looked up.
fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || literal
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A self-signed certificate made with `openssl req -x509`, valid for a hundred years.
    const CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUU7/rljhTXMaf5Vts6ElneTHdqhAwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNdHJpdG1hcmsgdGVzdDAgFw0yNjExMjMxNjE4MTJaGA8yMTI2
MTAzMDE2MTgxMlowGDEWMBQGA1UEAwwNdHJpdG1hcmsgdGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABIEE/ecRXyJw+c109yuCrf+bLHujMZ+6lLFyWGuH33Ol
ykx2KiKoKY3LRivleYKybrAF3mFD9yP2oNAThIqN2E6jUzBRMB0GA1UdDgQWBBTN
fiTsMvEJwtMDgpZ/iAEn6kkPajAfBgNVHSMEGDAWgBTNfiTsMvEJwtMDgpZ/iAEn
6kkPajAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCQXsvS8uFW
8fcY0h6WoQba8e7KyaqVx5myNdQiGQQPEQIgOCW6x3MtIT+r/cFYbVUpAcG0R4lL
ZLL5KKpai9+7M5k=
-----END CERTIFICATE-----
";

    #[test]
    fn plain_text_is_for_this_machine_only() {
        for address in [
            "http://127.0.0.1:7411",
            "http://localhost:7411",
            "http://[::1]:7411",
            "http://127.8.9.10",
        ] {
            endpoint(address, None, false, None).unwrap();
        }
        for address in [
            "http://10.0.0.1:7411",
            "http://localhost.example.org",
            "http://[::2]:1",
        ] {
            let refusal = endpoint(address, None, false, None).unwrap_err();
            assert!(
                matches!(refusal, EndpointError::PlainText { .. }),
                "{refusal}"
            );
            endpoint(address, None, true, None).unwrap();
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for address in ["", "coordinator", "ftp://host", "http://", "not an address"] {
            let refusal = endpoint(address, None, true, None).unwrap_err();
            assert!(
                matches!(refusal, EndpointError::NoAddress { .. }),
                "{refusal}"
            );
            assert!(refusal.to_string().contains(&format!("`{address}`")));
        }
    }

    #[test]
    fn a_missing_certificate_file_is_named() {
        let path = PathBuf::from("/nonexistent/ca.pem");
        let refusal =
            endpoint("https://fleet.example.org:7411", Some(&path), false, None).unwrap_err();
        assert!(
            refusal.to_string().contains("/nonexistent/ca.pem"),
            "{refusal}"
        );
    }

    #[test]
    fn https_trusts_the_file_it_is_given() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, CA).unwrap();
        endpoint("https://fleet.example.org:7411", Some(&path), false, None).unwrap();
    }
}
