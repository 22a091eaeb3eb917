//! Who may speak to a coordinator: its certificate authority, enrolment tokens, roles, revocation.
//!
//! [`Office`] is what the command line and the gRPC services use. It signs with the [`Authority`]
//! and keeps who was let in with an [`IdentityStore`]; an [`Identity`] is what a certificate says
//! of its holder. How connections are checked against all that is in `server`.

use std::path::PathBuf;

use tritmark_proto::identity::{NoRole, Role};

mod authority;
mod certificate;
mod files;
mod office;
mod postgres;
mod rows;
mod service;
mod sqlite;
mod statements;
mod store;
#[cfg(test)]
mod tests;

pub use authority::{Authority, CertificateRequest, Issued, Validity};
pub use certificate::Identity;
pub use office::{Enrollment, NewToken, Office, Policy};
pub use postgres::PostgresIdentities;
pub(crate) use service::{EnrollmentService, IdentitiesService};
pub use sqlite::SqliteIdentities;
pub use store::{AuditEntry, AuditEvent, IdentityStore, Issue, StoredIdentity, StoredToken};

/// Folder of the authority inside a coordinator's state folder.
pub const FOLDER: &str = "identity";

/// What cannot be done about identities.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is an authority already; making another would lock everybody out.
    #[error("{} holds an authority already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A private key lies open.
    #[error("others can read {}: take that right away (chmod 600)", .0.display())]
    Exposed(PathBuf),
    /// A file holds something else.
    #[error("{} does not hold {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be there.
        what: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Issue(#[source] rcgen::Error),
    /// A name or an address for the server's certificate is none.
    #[error("`{0}` is no host name and no address")]
    HostName(String),
    /// What somebody sent is no certificate request.
    #[error("this is no certificate request")]
    Request(#[source] rcgen::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// A certificate names nobody.
    #[error("the certificate {problem}")]
    Certificate {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A role that does not exist.
    #[error(transparent)]
    Role(#[from] NoRole),
    /// A name that would not be safe in files and logs.
    #[error(
        "`{0}` cannot be a name: at most 63 letters, digits, dots, dashes and underlines, a letter or digit first"
    )]
    Name(String),
    /// Somebody else has the name.
    #[error("`{0}` has a valid certificate already: revoke it first, or take another name")]
    NameTaken(String),
    /// There is no such token, or it has served.
    #[error("the token is not known or has served already")]
    TokenUnknown,
    /// The token is too old.
    #[error("the token has expired")]
    TokenExpired,
    /// A token for ever would be a password.
    #[error("a token is valid for at least a second and at most {max_days} days", max_days = office::MAX_TOKEN_DAYS)]
    TokenTime,
    /// What an agent must say of itself, and what others must not.
    #[error("{0}")]
    Enrollment(&'static str),
    /// Nobody has the name or the serial.
    #[error("nobody has the name or serial `{0}`")]
    Nobody(String),
    /// The data base fails.
    #[error("cannot {operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The tables cannot be made.
    #[error("cannot bring {place} to this version's tables")]
    Migrate {
        /// The file or data base.
        place: String,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A row says nothing sensible.
    #[error("the identities' store is damaged: {0}")]
    Row(String),
}

/// Seconds since 1970.
pub(crate) fn now_unix_s() -> i64 {
    crate::run::now_unix_ns() / 1_000_000_000
}

/// Returns random bytes.
fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(IdentityError::Random)?;
    Ok(bytes)
}

/// Tells whether the role is one that measures.
fn is_agent(role: Role) -> bool {
    role == Role::Agent
}
