//! Identities in a SQLite file of their own, beside the authority.
//!
//! Unlike the runs' store it is not locked: commands write to it while a coordinator serves.

use std::{path::Path, time::Duration};

use sqlx::{
    SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    AuditEntry, IdentityError, IdentityStore, StoredIdentity, StoredToken, files,
    rows::{self, COLUMNS, database},
    store::Issue,
};
use crate::store::migrations;

/// How long one process waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Identities in a SQLite file.
#[derive(Debug)]
pub struct SqliteIdentities {
    pool: SqlitePool,
}

impl SqliteIdentities {
    /// Opens the file and makes it where there is none.
    pub async fn open(path: &Path) -> Result<Self, IdentityError> {
        if !path.exists() {
            // Made here, so that nobody else can read it.
            files::write(path, "")?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        // One connection: writers queue here and not in SQLite.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(database("open the identities' store"))?;
        migrations::migrator(&[(
            1,
            "identity",
            include_str!("../../migrations-identity/sqlite/0001_identity.sql"),
        )])
        .run(&pool)
        .await
        .map_err(|source| IdentityError::Migrate {
            place: path.display().to_string(),
            source,
        })?;
        Ok(Self { pool })
    }
}

#[tonic::async_trait]
impl IdentityStore for SqliteIdentities {
    async fn add_token(&self, token: &StoredToken) -> Result<(), IdentityError> {
        let StoredToken {
            hash,
            role,
            name,
            labels,
            created_unix_s,
            expires_unix_s,
        } = token;
        sqlx::query(
            "INSERT INTO tokens (hash, role, name, labels, created_unix_s, expires_unix_s) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(hash.as_slice())
        .bind(role.name())
        .bind(name)
        .bind(rows::json(labels))
        .bind(created_unix_s)
        .bind(expires_unix_s)
        .execute(&self.pool)
        .await
        .map_err(database("keep a token"))?;
        Ok(())
    }

    async fn redeem(
        &self,
        hash: [u8; 32],
        now_unix_s: i64,
        issue: &Issue<'_>,
    ) -> Result<StoredIdentity, IdentityError> {
        let failed = database("redeem a token");
        let mut tx = self
            .pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)?;
        let row = sqlx::query(
            "SELECT role, name, labels, created_unix_s, expires_unix_s FROM tokens \
             WHERE hash = ? AND used_unix_s IS NULL",
        )
        .bind(hash.as_slice())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?
        .ok_or(IdentityError::TokenUnknown)?;
        let token = rows::token(hash, &row)?;
        if token.expires_unix_s <= now_unix_s {
            return Err(IdentityError::TokenExpired);
        }
        let identity = issue(&token)?;
        let n_same: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM identities WHERE (name = ? OR agent_id = ?) \
             AND revoked_unix_s IS NULL AND not_after_unix_s > ?",
        )
        .bind(&identity.name)
        .bind(identity.agent_id.map(|id| id.to_string()))
        .bind(now_unix_s)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        if n_same > 0 {
            return Err(IdentityError::NameTaken(identity.name));
        }
        insert(&mut tx, &identity).await.map_err(failed)?;
        sqlx::query("UPDATE tokens SET used_unix_s = ?, used_by = ? WHERE hash = ?")
            .bind(now_unix_s)
            .bind(&identity.serial)
            .bind(hash.as_slice())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(identity)
    }

    async fn add_renewed(&self, identity: &StoredIdentity) -> Result<(), IdentityError> {
        let failed = database("keep a certificate");
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        insert(&mut connection, identity).await.map_err(failed)
    }

    async fn identity(&self, serial: &str) -> Result<Option<StoredIdentity>, IdentityError> {
        // The list of columns is a constant; the serial is bound.
        let query = format!("SELECT {COLUMNS} FROM identities WHERE serial = ?");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(serial)
            .fetch_optional(&self.pool)
            .await
            .map_err(database("read a certificate"))?
            .as_ref()
            .map(rows::identity)
            .transpose()
    }

    async fn identities(&self) -> Result<Vec<StoredIdentity>, IdentityError> {
        let query = format!("SELECT {COLUMNS} FROM identities ORDER BY not_before_unix_s, rowid");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await
            .map_err(database("read certificates"))?
            .iter()
            .map(rows::identity)
            .collect()
    }

    async fn revoke(
        &self,
        name_or_serial: &str,
        reason: &str,
        now_unix_s: i64,
    ) -> Result<Vec<String>, IdentityError> {
        sqlx::query_scalar(
            "UPDATE identities SET revoked_unix_s = ?, revoked_reason = ? \
             WHERE (name = ? OR serial = ?) AND revoked_unix_s IS NULL RETURNING serial",
        )
        .bind(now_unix_s)
        .bind(reason)
        .bind(name_or_serial)
        .bind(name_or_serial.to_ascii_lowercase())
        .fetch_all(&self.pool)
        .await
        .map_err(database("revoke a certificate"))
    }

    async fn revoked(&self, now_unix_s: i64) -> Result<Vec<String>, IdentityError> {
        sqlx::query_scalar(
            "SELECT serial FROM identities WHERE revoked_unix_s IS NOT NULL \
             AND not_after_unix_s >= ?",
        )
        .bind(now_unix_s)
        .fetch_all(&self.pool)
        .await
        .map_err(database("read revocations"))
    }

    async fn audit(&self, entry: &AuditEntry) -> Result<i64, IdentityError> {
        let AuditEntry {
            at_unix_ns,
            event,
            peer,
            serial,
            address,
            what,
            detail,
        } = entry;
        let done = sqlx::query(
            "INSERT INTO audit (at_unix_ns, event, refers, peer, serial, address, what, detail) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(at_unix_ns)
        .bind(event.name())
        .bind(event.refers())
        .bind(peer)
        .bind(serial)
        .bind(address)
        .bind(what)
        .bind(detail)
        .execute(&self.pool)
        .await
        .map_err(database("write the audit log"))?;
        Ok(done.last_insert_rowid())
    }

    async fn audit_log(&self, limit: u32) -> Result<Vec<(i64, AuditEntry)>, IdentityError> {
        let mut entries = sqlx::query(
            "SELECT id, at_unix_ns, event, refers, peer, serial, address, what, detail \
             FROM audit ORDER BY id DESC LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(database("read the audit log"))?
        .iter()
        .map(rows::entry)
        .collect::<Result<Vec<_>, IdentityError>>()?;
        entries.reverse();
        Ok(entries)
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    identity: &StoredIdentity,
) -> Result<(), sqlx::Error> {
    let StoredIdentity {
        serial,
        name,
        role,
        labels,
        agent_id,
        signing_key,
        certificate_pem,
        not_before_unix_s,
        not_after_unix_s,
        revoked_unix_s,
    } = identity;
    sqlx::query(
        "INSERT INTO identities (serial, name, role, labels, agent_id, signing_key, \
         certificate_pem, not_before_unix_s, not_after_unix_s, revoked_unix_s) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(serial)
    .bind(name)
    .bind(role.name())
    .bind(rows::json(labels))
    .bind(agent_id.map(|id| id.to_string()))
    .bind(signing_key.as_ref().map(<[u8; 32]>::as_slice))
    .bind(certificate_pem)
    .bind(not_before_unix_s)
    .bind(not_after_unix_s)
    .bind(revoked_unix_s)
    .execute(connection)
    .await?;
    Ok(())
}
