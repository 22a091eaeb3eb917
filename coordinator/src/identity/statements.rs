//! The store of identities by statements that SQLite and PostgreSQL understand alike.

/// Implements [`IdentityStore`](super::IdentityStore) for a store with a `pool` and a method
/// `begin_alone`, whose transaction nobody else redeems a token beside. `$added` is what tells the order
/// in which certificates were added; a function `text` makes of a text one that the data base can hold.
macro_rules! identity_store {
    ($store:ty, $connection:ty, $added:literal) => {
        #[tonic::async_trait]
        impl IdentityStore for $store {
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
                     VALUES ($1, $2, $3, $4, $5, $6)",
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
                let mut tx = self.begin_alone().await.map_err(failed)?;
                let row = sqlx::query(
                    "SELECT role, name, labels, created_unix_s, expires_unix_s FROM tokens \
                     WHERE hash = $1 AND used_unix_s IS NULL",
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
                    "SELECT count(*) FROM identities WHERE (name = $1 OR agent_id = $2) \
                     AND revoked_unix_s IS NULL AND not_after_unix_s > $3",
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
                sqlx::query("UPDATE tokens SET used_unix_s = $1, used_by = $2 WHERE hash = $3")
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
                let query = format!("SELECT {COLUMNS} FROM identities WHERE serial = $1");
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
                let query = format!(
                    "SELECT {COLUMNS} FROM identities ORDER BY not_before_unix_s, {}",
                    $added
                );
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
                    "UPDATE identities SET revoked_unix_s = $1, revoked_reason = $2 \
                     WHERE (name = $3 OR serial = $4) AND revoked_unix_s IS NULL RETURNING serial",
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
                     AND not_after_unix_s >= $1",
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
                sqlx::query_scalar(
                    "INSERT INTO audit (at_unix_ns, event, refers, peer, serial, address, what, detail) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
                )
                .bind(at_unix_ns)
                .bind(event.name())
                .bind(event.refers())
                .bind(text(peer))
                .bind(serial.as_deref().map(text))
                .bind(address.as_deref().map(text))
                .bind(text(what))
                .bind(text(detail))
                .fetch_one(&self.pool)
                .await
                .map_err(database("write the audit log"))
            }

            async fn audit_log(&self, limit: u32) -> Result<Vec<(i64, AuditEntry)>, IdentityError> {
                let mut entries = sqlx::query(
                    "SELECT id, at_unix_ns, event, refers, peer, serial, address, what, detail \
                     FROM audit ORDER BY id DESC LIMIT $1",
                )
                .bind(i64::from(limit))
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
            connection: &mut $connection,
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
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
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
    };
}
pub(super) use identity_store;
