//! Roles, enrolment tokens, and how a certificate says who its holder is.
//!
//! A certificate's subject alternative names hold URIs: `tritmark://role/ROLE/NAME`, for an agent
//! also `tritmark://agent-id/UUID` and `tritmark://signing-key/ed25519/HEX`.

use std::{fmt, str::FromStr};

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Measures.
    Agent,
    /// Hands in plans, and sees what a viewer sees.
    Submitter,
    /// Sees runs, agents and results.
    Viewer,
    /// Lets others in, and does what a submitter does.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Agent, Self::Submitter, Self::Viewer, Self::Admin];

    /// Returns the name used in certificates, on the wire and in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Submitter => "submitter",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: write agent, submitter, viewer or admin")]
pub struct NoRole(pub String);

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| NoRole(text.to_owned()))
    }
}

/// Longest name of an identity.
const MAX_NAME: usize = 63;

/// Tells whether a text may name an identity: at most 63 letters, digits, dots, dashes and
/// underlines, the first one a letter or digit. It stands in URIs, logs and file names.
pub fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What an enrolment token's text carries.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the authority's certificate (DER): whom to trust on first contact.
    pub ca_fingerprint: [u8; 32],
    /// Random; the coordinator keeps its hash alone.
    pub secret: [u8; 32],
}

/// Starts every token's text, so that one that leaked is found by a search.
const TOKEN_PREFIX: &str = "tritmark1";

/// A text that is no token. It is not repeated: it may be nearly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no enrolment token: one is `tritmark1.`, 64 hexadecimal digits, a dot and 64 more"
)]
pub struct NoToken;

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{TOKEN_PREFIX}.{}.{}",
            to_hex(&self.ca_fingerprint),
            to_hex(&self.secret)
        )
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("ca_fingerprint", &to_hex(&self.ca_fingerprint))
            .finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut parts = text.trim().split('.');
        if parts.next() != Some(TOKEN_PREFIX) {
            return Err(NoToken);
        }
        let mut bytes = || {
            let bytes = parts.next().and_then(from_hex).ok_or(NoToken)?;
            <[u8; 32]>::try_from(bytes).map_err(|_| NoToken)
        };
        let token = Self {
            ca_fingerprint: bytes()?,
            secret: bytes()?,
        };
        if parts.next().is_some() {
            return Err(NoToken);
        }
        Ok(token)
    }
}

/// What is signed to prove that one has a signing key: this, then the certificate request.
pub const SIGNING_PROOF_CONTEXT: &[u8] = b"tritmark.signing-key.v1\0";

/// What is signed for an attempt: this, then the encoded manifest.
pub const ATTEMPT_CONTEXT: &[u8] = b"tritmark.attempt.v1\0";

/// One of the URIs in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Who it is.
    Role {
        /// What it may do.
        role: Role,
        /// Its name.
        name: String,
    },
    /// The UUID an agent registers with.
    AgentId(uuid::Uuid),
    /// The key an agent signs its results with.
    SigningKey([u8; 32]),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role { role, name } => write!(f, "tritmark://role/{role}/{name}"),
            Self::AgentId(id) => write!(f, "tritmark://agent-id/{id}"),
            Self::SigningKey(key) => write!(f, "tritmark://signing-key/ed25519/{}", to_hex(key)),
        }
    }
}

impl Claim {
    /// Reads a URI; `None` where it is none of ours.
    pub fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix("tritmark://")?;
        if let Some(rest) = rest.strip_prefix("role/") {
            let (role, name) = rest.split_once('/')?;
            return is_name(name).then_some(Self::Role {
                role: role.parse().ok()?,
                name: name.to_owned(),
            });
        }
        if let Some(id) = rest.strip_prefix("agent-id/") {
            return Some(Self::AgentId(id.parse().ok()?));
        }
        let key = from_hex(rest.strip_prefix("signing-key/ed25519/")?)?;
        Some(Self::SigningKey(key.try_into().ok()?))
    }
}

/// Returns bytes as lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Reads hexadecimal digits of either case; `None` where there is anything else.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.len()
        .is_multiple_of(2)
        .then_some(text.as_bytes().chunks_exact(2))?
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_does_not_show_its_secret_by_accident() {
        let token = Token {
            ca_fingerprint: [1; 32],
            secret: [0xab; 32],
        };
        assert!(!format!("{token:?}").contains("abab"));
        assert!(token.to_string().ends_with(&"ab".repeat(32)));
    }

    #[test]
    fn names_are_safe_in_uris_logs_and_paths() {
        for good in ["a", "rack-7.example.org", "A_1", &"x".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "a b",
            "é",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_token_is_read_back(ca_fingerprint: [u8; 32], secret: [u8; 32]) {
            let token = Token { ca_fingerprint, secret };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn a_claim_is_read_back(key: [u8; 32], id: u128, name in "[a-z0-9][a-z0-9._-]{0,20}") {
            for claim in [
                Claim::SigningKey(key),
                Claim::AgentId(uuid::Uuid::from_u128(id)),
                Claim::Role { role: Role::Submitter, name },
            ] {
                prop_assert_eq!(Claim::parse(&claim.to_string()), Some(claim));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = text.parse::<Token>();
            let _ = format!("tritmark1.{text}").parse::<Token>();
            let _ = Claim::parse(&format!("tritmark://{text}"));
            let _ = from_hex(&text);
        }
    }
}
