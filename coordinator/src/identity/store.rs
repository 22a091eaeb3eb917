//! What is kept of identities, and the trait every store of them implements.
//!
//! As with runs, each method is one transaction. Several processes may use one store at once: the
//! coordinator that serves, and commands beside it that let somebody in or lock somebody out.

use std::collections::BTreeMap;

use tritmark_proto::identity::Role;

use super::IdentityError;

/// Makes the identity that redeems a token, inside the transaction that uses the token up.
pub type Issue<'a> =
    dyn Fn(&StoredToken) -> Result<StoredIdentity, IdentityError> + Send + Sync + 'a;

/// Keeps tokens, certificates, revocations and the audit log.
#[tonic::async_trait]
pub trait IdentityStore: Send + Sync + std::fmt::Debug {
    /// Adds a token.
    async fn add_token(&self, token: &StoredToken) -> Result<(), IdentityError>;

    /// Uses a token up and adds the identity that `issue` makes of it: both or neither.
    ///
    /// # Errors
    /// [`IdentityError::TokenUnknown`], [`IdentityError::TokenExpired`], and
    /// [`IdentityError::NameTaken`] while another certificate of that name is valid.
    async fn redeem(
        &self,
        hash: [u8; 32],
        now_unix_s: i64,
        issue: &Issue<'_>,
    ) -> Result<StoredIdentity, IdentityError>;

    /// Adds a further certificate of one that is there, with its labels.
    async fn add_renewed(&self, identity: &StoredIdentity) -> Result<(), IdentityError>;

    /// Returns one certificate.
    async fn identity(&self, serial: &str) -> Result<Option<StoredIdentity>, IdentityError>;

    /// Returns every certificate ever made, the oldest first.
    async fn identities(&self) -> Result<Vec<StoredIdentity>, IdentityError>;

    /// Revokes a certificate by its serial, or all of a name; returns the serials revoked now.
    async fn revoke(
        &self,
        name_or_serial: &str,
        reason: &str,
        now_unix_s: i64,
    ) -> Result<Vec<String>, IdentityError>;

    /// Returns the serials that are revoked and would be valid otherwise.
    async fn revoked(&self, now_unix_s: i64) -> Result<Vec<String>, IdentityError>;

    /// Adds to the audit log and returns the entry's number.
    async fn audit(&self, entry: &AuditEntry) -> Result<i64, IdentityError>;

    /// Returns the newest entries of the audit log, the oldest of them first.
    async fn audit_log(&self, limit: u32) -> Result<Vec<(i64, AuditEntry)>, IdentityError>;
}

/// A certificate that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIdentity {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Its holder's name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// Agents: what selectors may rely on.
    pub labels: BTreeMap<String, String>,
    /// Agents: the UUID they register with.
    pub agent_id: Option<uuid::Uuid>,
    /// Agents: the key they sign results with.
    pub signing_key: Option<[u8; 32]>,
    /// The certificate itself.
    pub certificate_pem: String,
    /// First second at which it is valid.
    pub not_before_unix_s: i64,
    /// Last second at which it is valid.
    pub not_after_unix_s: i64,
    /// When it was revoked.
    pub revoked_unix_s: Option<i64>,
}

/// An enrolment token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// The role it gives.
    pub role: Role,
    /// The name it gives; whoever enrolls chooses one otherwise.
    pub name: Option<String>,
    /// The labels it gives.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_unix_s: i64,
    /// When it ends.
    pub expires_unix_s: i64,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at_unix_ns: i64,
    /// What kind of entry it is.
    pub event: AuditEvent,
    /// Name of whoever asked, `-` where nobody is known.
    pub peer: String,
    /// Serial of the certificate it was asked with.
    pub serial: Option<String>,
    /// Where it came from.
    pub address: Option<String>,
    /// The call, or what else happened.
    pub what: String,
    /// What it was about, and how it ended.
    pub detail: String,
}

/// Kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// A call that may change something is let through.
    Call,
    /// Such a call has ended.
    Outcome {
        /// The number of its first entry.
        call: i64,
    },
    /// Something was refused.
    Denied,
}

impl AuditEvent {
    /// Returns the name used in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Outcome { .. } => "outcome",
            Self::Denied => "denied",
        }
    }

    /// Returns the number of the entry it belongs to.
    pub const fn refers(self) -> Option<i64> {
        match self {
            Self::Outcome { call } => Some(call),
            Self::Call | Self::Denied => None,
        }
    }
}
