//! The certificate authority: ECDSA P-256, one level, no intermediate.

use std::{path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use tritmark_proto::identity::{Claim, to_hex};

use super::{IdentityError, files, now_unix_s, random};

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// A new certificate is valid from a little before now: clocks of a fleet differ.
const CLOCK_SKEW_S: i64 = 300;

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before_unix_s: i64,
    /// Last second.
    pub not_after_unix_s: i64,
}

impl Validity {
    /// Returns so many days from now.
    pub fn days(days: u32) -> Self {
        let now = now_unix_s();
        Self {
            not_before_unix_s: now - CLOCK_SKEW_S,
            not_after_unix_s: now + i64::from(days) * 86_400,
        }
    }
}

/// A certificate that was just made.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// The certificate.
    pub certificate_pem: String,
    /// From when to when it is valid.
    pub validity: Validity,
}

/// What signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    fingerprint: [u8; 32],
}

impl Authority {
    /// Makes an authority in `folder`.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] if there is one.
    pub fn create(folder: &Path, days: u32) -> Result<Self, IdentityError> {
        let (certificate, key) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        if certificate.exists() || key.exists() {
            return Err(IdentityError::Exists(folder.to_owned()));
        }
        files::make_folder(folder)?;
        let (serial, mut params) = params(Validity::days(days))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("tritmark {}", &serial[..8]));
        let pair = KeyPair::generate().map_err(IdentityError::Issue)?;
        let pem = params
            .self_signed(&pair)
            .map_err(IdentityError::Issue)?
            .pem();
        // The certificate last: it is what says that there is an authority.
        files::write(&key, &pair.serialize_pem())?;
        files::write(&certificate, &pem)?;
        Self::open(folder)
    }

    /// Opens the authority in `folder`.
    ///
    /// # Errors
    /// [`IdentityError::Exposed`] if others can read its key.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let (path, key_path) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        let certificate_pem = files::read(&path)?;
        let key = KeyPair::from_pem(&files::read_secret(&key_path)?).map_err(|_| {
            IdentityError::Damaged {
                path: key_path.clone(),
                what: "a private key".to_owned(),
            }
        })?;
        let damaged = || IdentityError::Damaged {
            path: path.clone(),
            what: "the authority's certificate".to_owned(),
        };
        let der = first_certificate(&certificate_pem).ok_or_else(damaged)?;
        let public = x509_parser::parse_x509_certificate(&der)
            .map_err(|_| damaged())?
            .1
            .public_key()
            .subject_public_key
            .data
            .to_vec();
        if public != key.der_bytes() {
            return Err(IdentityError::Damaged {
                path: key_path,
                what: format!("the key of {}", path.display()),
            });
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&der, key).map_err(|_| damaged())?,
            fingerprint: Sha256::digest(&der).into(),
            certificate_pem,
        })
    }

    /// Returns the authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the SHA-256 of the authority's certificate (DER).
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Makes a server's certificate and its key: the certificate, the authority's, the key, all PEM.
    pub fn issue_server(
        &self,
        names: &[String],
        validity: Validity,
    ) -> Result<String, IdentityError> {
        let (_, mut params) = params(validity)?;
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) if is_host_name(name) => name
                    .as_str()
                    .try_into()
                    .map(SanType::DnsName)
                    .map_err(IdentityError::Issue),
                Err(_) => Err(IdentityError::HostName(name.clone())),
            })
            .collect::<Result<_, _>>()?;
        params
            .distinguished_name
            .push(DnType::CommonName, "tritmark coordinator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(IdentityError::Issue)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(IdentityError::Issue)?;
        Ok(format!(
            "{}{}{}",
            certificate.pem(),
            self.certificate_pem,
            key.serialize_pem()
        ))
    }

    /// Makes a client's certificate for the key in a certificate request, with these claims.
    ///
    /// Nothing else of the request is used.
    pub fn issue_client(
        &self,
        request: &CertificateRequest,
        claims: &[Claim],
        validity: Validity,
    ) -> Result<Issued, IdentityError> {
        let (serial, mut params) = params(validity)?;
        params.subject_alt_names = claims
            .iter()
            .map(|claim| {
                claim
                    .to_string()
                    .try_into()
                    .map(SanType::URI)
                    .map_err(IdentityError::Issue)
            })
            .collect::<Result<_, _>>()?;
        if let Some(Claim::Role { role, name }) = claims.first() {
            params
                .distinguished_name
                .push(DnType::CommonName, name.as_str());
            params
                .distinguished_name
                .push(DnType::OrganizationalUnitName, role.name());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&request.0.public_key, &self.issuer)
            .map_err(IdentityError::Issue)?;
        Ok(Issued {
            serial,
            certificate_pem: certificate.pem(),
            validity,
        })
    }
}

/// A certificate request whose signature is right: whoever sent it has the key.
#[derive(Debug)]
pub struct CertificateRequest(CertificateSigningRequestParams);

impl CertificateRequest {
    /// Reads a PKCS#10 request.
    pub fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map(Self)
            .map_err(IdentityError::Request)
    }
}

/// Returns what every certificate has, and its serial number.
fn params(validity: Validity) -> Result<(String, CertificateParams), IdentityError> {
    // 127 random bits, and no leading zero that encoders treat differently.
    let mut serial: [u8; 16] = random()?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let at = |unix_s: i64| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(unix_s).unwrap_or_default())
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = at(validity.not_before_unix_s);
    params.not_after = at(validity.not_after_unix_s);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok((to_hex(&serial), params))
}

/// Returns the first certificate of a PEM text.
pub(super) fn first_certificate(pem: &str) -> Option<CertificateDer<'static>> {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()
}

/// Letters, digits and dashes between dots, perhaps `*.` before them.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253
        && name.split('.').all(|part| {
            (1..=63).contains(&part.len())
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}
