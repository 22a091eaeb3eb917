//! A private PostgreSQL for tests and measurements, of this crate and of others: needs the feature
//! `testing` outside of this crate's own tests.
//!
//! [`PostgresFixture`] is an empty data base on a server that one process's tests share;
//! [`PostgresServer`] is a server of one's own, which can be killed and started again. PostgreSQL
//! refuses to run as root, so root starts it as another user. A keeper process holds the other end of
//! a pipe: when the tests' process is gone, however it went, the keeper stops the server and removes
//! its folder.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

mod server;

pub use server::{Durability, PostgresServer};

/// Set to 1 where tests must not be left out because there is no PostgreSQL.
pub const REQUIRE: &str = "TRITMARK_REQUIRE_POSTGRES";

/// Names a folder with PostgreSQL's programs to be used before any other.
pub const BIN: &str = "TRITMARK_POSTGRES_BIN";

/// The server that this process's tests share.
static SHARED: OnceLock<Option<PostgresServer>> = OnceLock::new();

/// Data bases made so far.
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// An empty data base of its own, removed when it is dropped.
#[derive(Debug)]
pub struct PostgresFixture {
    name: String,
    url: String,
    admin_url: String,
}

impl PostgresFixture {
    /// Makes a data base on this process's server, which is started by the first call.
    ///
    /// Returns `None`, and says so on stderr, where there is no PostgreSQL.
    ///
    /// # Panics
    /// Panics if there is none although [`REQUIRE`] is 1, and if one does not start.
    pub async fn start() -> Option<Self> {
        let shared = tokio::task::spawn_blocking(|| {
            SHARED.get_or_init(|| PostgresServer::start(Durability::None))
        })
        .await
        .expect("the server starts");
        Some(Self::on(shared.as_ref()?).await)
    }

    /// Makes a data base on a server.
    ///
    /// # Panics
    /// Panics if the server does not make one.
    pub async fn on(server: &PostgresServer) -> Self {
        let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let admin_url = server.url("postgres");
        execute(&admin_url, format!("CREATE DATABASE {name}"))
            .await
            .expect("the server makes a data base");
        Self {
            url: server.url(&name),
            name,
            admin_url,
        }
    }

    /// Returns the URL to open a store with.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for PostgresFixture {
    /// Removes the data base even if somebody still uses it.
    fn drop(&mut self) {
        let (url, sql) = (
            self.admin_url.clone(),
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
        // A runtime cannot be started inside another's thread.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime
                .block_on(execute(&url, sql))
                .map_err(std::io::Error::other)
        });
        // What is left goes with the server.
        let _ = dropped.join();
    }
}

async fn execute(url: &str, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// Returns the folder with PostgreSQL's programs.
fn programs() -> Option<PathBuf> {
    let named = std::env::var_os(BIN).map(PathBuf::from);
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    // Debian leaves all but the clients out of the path.
    let mut of_debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    of_debian.sort();
    named
        .into_iter()
        .chain(on_path)
        .chain(of_debian.into_iter().rev())
        // A link in the path leads to the folder that has the others too.
        .filter_map(|folder| folder.join("initdb").canonicalize().ok())
        .filter_map(|initdb| initdb.parent().map(PathBuf::from))
        .find(|folder| folder.join("pg_ctl").exists() && folder.join("postgres").exists())
}
