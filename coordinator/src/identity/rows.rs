//! Rows to identities and back, the same for every data base.

use std::collections::BTreeMap;

use super::{AuditEntry, AuditEvent, IdentityError, StoredIdentity, StoredToken};
use crate::store::{StoreError, rows::Columns};

/// What [`identity`] reads.
pub(super) const COLUMNS: &str = "serial, name, role, labels, agent_id, signing_key, \
                                  certificate_pem, not_before_unix_s, not_after_unix_s, \
                                  revoked_unix_s";

pub(super) fn identity(row: &impl Columns) -> Result<StoredIdentity, IdentityError> {
    let nonsense = |column: &str| IdentityError::Row(format!("column `{column}` makes no sense"));
    let agent_id = row.text_if_any("agent_id").map_err(damaged)?;
    let signing_key = row.bytes_if_any("signing_key").map_err(damaged)?;
    Ok(StoredIdentity {
        serial: text(row, "serial")?,
        name: text(row, "name")?,
        role: text(row, "role")?.parse()?,
        labels: labels(row)?,
        agent_id: agent_id
            .map(|id| id.parse().map_err(|_| nonsense("agent_id")))
            .transpose()?,
        signing_key: signing_key
            .map(|key| key.try_into().map_err(|_| nonsense("signing_key")))
            .transpose()?,
        certificate_pem: text(row, "certificate_pem")?,
        not_before_unix_s: row.number("not_before_unix_s").map_err(damaged)?,
        not_after_unix_s: row.number("not_after_unix_s").map_err(damaged)?,
        revoked_unix_s: row.number_if_any("revoked_unix_s").map_err(damaged)?,
    })
}

pub(super) fn token(hash: [u8; 32], row: &impl Columns) -> Result<StoredToken, IdentityError> {
    Ok(StoredToken {
        hash,
        role: text(row, "role")?.parse()?,
        name: row.text_if_any("name").map_err(damaged)?.map(Into::into),
        labels: labels(row)?,
        created_unix_s: row.number("created_unix_s").map_err(damaged)?,
        expires_unix_s: row.number("expires_unix_s").map_err(damaged)?,
    })
}

/// Reads an entry of the audit log and its number.
pub(super) fn entry(row: &impl Columns) -> Result<(i64, AuditEntry), IdentityError> {
    let text_if_any = |column: &str| {
        let found = row.text_if_any(column).map_err(damaged)?;
        Ok::<_, IdentityError>(found.map(Into::into))
    };
    let event = match row.text("event").map_err(damaged)? {
        "call" => AuditEvent::Call,
        "outcome" => AuditEvent::Outcome {
            call: row.number("refers").map_err(damaged)?,
        },
        _ => AuditEvent::Denied,
    };
    let entry = AuditEntry {
        at_unix_ns: row.number("at_unix_ns").map_err(damaged)?,
        event,
        peer: text(row, "peer")?,
        serial: text_if_any("serial")?,
        address: text_if_any("address")?,
        what: text(row, "what")?,
        detail: text(row, "detail")?,
    };
    Ok((row.number("id").map_err(damaged)?, entry))
}

/// Writes labels as they are kept: a JSON object of texts.
pub(super) fn json(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).expect("texts are JSON")
}

fn labels(row: &impl Columns) -> Result<BTreeMap<String, String>, IdentityError> {
    serde_json::from_str(row.text("labels").map_err(damaged)?)
        .map_err(|error| IdentityError::Row(format!("column `labels`: {error}")))
}

fn text(row: &impl Columns, column: &str) -> Result<String, IdentityError> {
    row.text(column).map(Into::into).map_err(damaged)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn damaged(error: StoreError) -> IdentityError {
    IdentityError::Row(error.to_string())
}

pub(super) fn database(operation: &'static str) -> impl Fn(sqlx::Error) -> IdentityError + Copy {
    move |source| IdentityError::Database { operation, source }
}
