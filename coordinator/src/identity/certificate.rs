//! What a certificate says of its holder.

use tritmark_proto::identity::{Claim, Role, to_hex};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::IdentityError;

/// The holder of a certificate that the authority has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's serial number, hexadecimal.
    pub serial: String,
    /// The holder's name.
    pub name: String,
    /// What the holder may do.
    pub role: Role,
    /// Agents: the UUID they register with.
    pub agent_id: Option<uuid::Uuid>,
    /// Agents: the key they sign results with.
    pub signing_key: Option<[u8; 32]>,
    /// Last second at which the certificate is valid.
    pub not_after_unix_s: i64,
}

impl Identity {
    /// Reads a certificate (DER). Whether the authority signed it is for the caller to know.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let wrong = |problem| IdentityError::Certificate { problem };
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| wrong("cannot be read"))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| wrong("has unreadable names"))?
            .ok_or_else(|| wrong("names nobody"))?;
        let (mut who, mut agent_id, mut signing_key) = (None, None, None);
        for name in &names.value.general_names {
            let GeneralName::URI(uri) = name else {
                continue;
            };
            let is_second = match Claim::parse(uri) {
                Some(Claim::Role { role, name }) => who.replace((role, name)).is_some(),
                Some(Claim::AgentId(id)) => agent_id.replace(id).is_some(),
                Some(Claim::SigningKey(key)) => signing_key.replace(key).is_some(),
                None => false,
            };
            if is_second {
                return Err(wrong("says a thing twice"));
            }
        }
        let (role, name) = who.ok_or_else(|| wrong("names no role"))?;
        Ok(Self {
            serial: to_hex(certificate.raw_serial()),
            name,
            role,
            agent_id,
            signing_key,
            not_after_unix_s: certificate.validity().not_after.timestamp(),
        })
    }

    /// Returns what the certificate of this identity says, in the order in which it says it.
    pub(super) fn claims(
        role: Role,
        name: &str,
        agent_id: Option<uuid::Uuid>,
        signing_key: Option<[u8; 32]>,
    ) -> Vec<Claim> {
        let role = Claim::Role {
            role,
            name: name.to_owned(),
        };
        [role]
            .into_iter()
            .chain(agent_id.map(Claim::AgentId))
            .chain(signing_key.map(Claim::SigningKey))
            .collect()
    }
}
