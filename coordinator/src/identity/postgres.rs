//! Identities in the data base that holds the runs, so that all its coordinators know whom one of them
//! let in or locked out.
//!
//! They have a schema of their own, and with it their own list of migrations. The authority's key is
//! not here: each coordinator has it in its folder.

use std::time::Duration;

use sqlx::{
    PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    AuditEntry, IdentityError, IdentityStore, StoredIdentity, StoredToken,
    rows::{self, COLUMNS, database},
    statements::identity_store,
    store::Issue,
};
use crate::store::{location::without_secrets, migrations};

/// Where the tables are.
const SCHEMA: &str = "tritmark_identity";

/// Connections: every call of a person's is written down twice, and few come at once.
const CONNECTIONS: u32 = 3;

/// How long a call waits for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Identities in a PostgreSQL data base.
#[derive(Debug)]
pub struct PostgresIdentities {
    pool: PgPool,
}

impl PostgresIdentities {
    /// Connects to the data base and brings it to this version's tables.
    ///
    /// # Errors
    /// [`IdentityError::Database`] if it cannot be reached, [`IdentityError::Migrate`] if its tables
    /// are those of a newer version.
    pub async fn open(url: &str) -> Result<Self, IdentityError> {
        let failed = database("open the identities' store");
        // The error names what is wrong with the URL, not the URL.
        let options: PgConnectOptions = url.parse().map_err(failed)?;
        let options = options
            .application_name("tritmark-identities")
            .options([("search_path", SCHEMA), ("synchronous_commit", "on")]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT_WITHIN)
            .connect_with(options)
            .await
            .map_err(failed)?;
        make_schema(&pool).await.map_err(failed)?;
        migrations::migrator(&[(
            1,
            "identity",
            include_str!("../../migrations-identity/postgres/0001_identity.sql"),
        )])
        .run(&pool)
        .await
        .map_err(|source| IdentityError::Migrate {
            place: without_secrets(url),
            source,
        })?;
        Ok(Self { pool })
    }

    /// Two who enroll at once under one name, or with one token, do so one after the other: the second
    /// sees what the first has done. Who only looks does not wait.
    async fn begin_alone(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("LOCK TABLE identities IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut *tx)
            .await?;
        Ok(tx)
    }
}

/// Makes the schema. Two that make it at once would both find it missing, and one of them fail.
async fn make_schema(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))")
        .bind(SCHEMA)
        .execute(&mut *tx)
        .await?;
    sqlx::query("CREATE SCHEMA IF NOT EXISTS tritmark_identity")
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// A text of PostgreSQL has no zero byte.
fn text(text: &str) -> String {
    text.replace('\0', "")
}

identity_store!(PostgresIdentities, PgConnection, "added");
