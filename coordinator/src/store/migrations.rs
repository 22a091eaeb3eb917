//! The tables of every version, each made from those of the one before; there is no way back.
//!
//! What has been released is never changed: stores know their migrations by their checksums.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// Version, description and SQL of a migration.
pub(crate) type Step = (i64, &'static str, &'static str);

const SQLITE: &[Step] = &[
    (
        1,
        "first",
        include_str!("../../migrations/sqlite/0001_first.sql"),
    ),
    (
        2,
        "signatures",
        include_str!("../../migrations/sqlite/0002_signatures.sql"),
    ),
    (
        3,
        "scheduling",
        include_str!("../../migrations/sqlite/0003_scheduling.sql"),
    ),
    (
        5,
        "agreement",
        include_str!("../../migrations/sqlite/0005_agreement.sql"),
    ),
];

const POSTGRES: &[Step] = &[
    (
        1,
        "first",
        include_str!("../../migrations/postgres/0001_first.sql"),
    ),
    (
        2,
        "signatures",
        include_str!("../../migrations/postgres/0002_signatures.sql"),
    ),
    (
        3,
        "scheduling",
        include_str!("../../migrations/postgres/0003_scheduling.sql"),
    ),
    (
        4,
        "fewer checks",
        include_str!("../../migrations/postgres/0004_fewer_checks.sql"),
    ),
    (
        5,
        "agreement",
        include_str!("../../migrations/postgres/0005_agreement.sql"),
    ),
    (
        6,
        "at once",
        include_str!("../../migrations/postgres/0006_at_once.sql"),
    ),
];

/// Returns what makes SQLite's tables.
pub(super) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

/// Returns what makes PostgreSQL's tables.
pub(super) fn postgres() -> Migrator {
    migrator(POSTGRES)
}

/// Returns what makes the tables of `steps`.
pub(crate) fn migrator(steps: &[Step]) -> Migrator {
    let migrations = steps.iter().map(|&(version, description, sql)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}
