//! Where a store is, and the one way to open it.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use sqlx::postgres::PgConnectOptions;

use super::{PostgresStore, SqliteStore, Store, StoreError};

/// Where a store is. As text: `postgres://…`, `sqlite:PATH` or a path.
///
/// Neither [`fmt::Display`] nor [`fmt::Debug`] shows a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A data base on a PostgreSQL server, by its URL.
    Postgres(String),
}

/// A text names no place for a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLocation {
    /// It is empty.
    #[error("the store's place is empty")]
    Empty,
    /// It is a URL of something else.
    #[error(
        "a store cannot be at `{0}:`; it is a path, or a URL that begins with `postgres://` or \
         `sqlite:`"
    )]
    Scheme(String),
}

/// Opens a store, makes it where there is none, and brings it to this version's tables.
///
/// # Errors
/// [`StoreError::InUse`] if only one coordinator can have it and another has.
pub async fn open(location: &Location) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match location {
        Location::Sqlite(path) => Arc::new(SqliteStore::open(path).await?),
        Location::Postgres(url) => Arc::new(PostgresStore::open(url).await?),
    })
}

impl Location {
    /// Returns the URL of a data base that several coordinators may share.
    pub fn shared(&self) -> Option<&str> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(url) => Some(url),
        }
    }
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite:").unwrap_or(text);
        if path.is_empty() {
            return Err(BadLocation::Empty);
        }
        match path.split_once("://") {
            Some((scheme, _)) if !scheme.contains('/') => {
                Err(BadLocation::Scheme(scheme.to_owned()))
            }
            _ => Ok(Self::Sqlite(path.into())),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => without_secrets(url).fmt(f),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(url) => f
                .debug_tuple("Postgres")
                .field(&without_secrets(url))
                .finish(),
        }
    }
}

/// Returns who connects to what, and nothing else of a URL.
pub(crate) fn without_secrets(url: &str) -> String {
    // Read as it will be read to connect: then nothing of a password is taken for something else.
    let Ok(options) = url.parse::<PgConnectOptions>() else {
        return "postgres://…".to_owned();
    };
    let place = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let database = options.get_database().unwrap_or_default();
    format!("postgres://{}@{place}/{database}", options.get_username())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_and_said_without_its_password() {
        let said = |text: &str| text.parse::<Location>().unwrap().to_string();
        assert_eq!(said("state/store.sqlite"), "state/store.sqlite");
        assert_eq!(said("sqlite:/a/b"), "/a/b");
        assert_eq!(
            said("postgres://ann@db/fleet"),
            "postgres://ann@db:5432/fleet"
        );
        for url in [
            "postgres://ann:secret@db:5432/fleet",
            "postgresql://ann:secret@db:5432/fleet?sslmode=require&password=secret",
            "postgres://ann:se@cret@db:5432/fleet#secret",
            "postgres://ann:a?secret@db/fleet",
        ] {
            let place: Location = url.parse().unwrap();
            for text in [place.to_string(), format!("{place:?}")] {
                assert!(!text.contains("cret"), "{text}");
                assert!(text.contains("postgres://"), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let refused = |text: &str| text.parse::<Location>().unwrap_err();
        assert_eq!(refused(""), BadLocation::Empty);
        assert_eq!(refused("sqlite:"), BadLocation::Empty);
        assert_eq!(refused("mysql://db"), BadLocation::Scheme("mysql".into()));
    }
}
