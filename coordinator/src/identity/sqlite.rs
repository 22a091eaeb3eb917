//! Identities in a SQLite file of their own, beside the authority.
//!
//! Unlike the runs' store it is not locked: commands write to it while a coordinator serves.

use std::{path::Path, time::Duration};

use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    AuditEntry, IdentityError, IdentityStore, StoredIdentity, StoredToken, files,
    rows::{self, COLUMNS, database},
    statements::identity_store,
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

    async fn begin_alone(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }
}

fn text(text: &str) -> &str {
    text
}

identity_store!(SqliteIdentities, SqliteConnection, "rowid");
