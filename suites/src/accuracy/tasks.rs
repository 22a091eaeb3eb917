//! The tasks, one file a family.

pub(crate) mod arc;
pub(crate) mod boolq;
pub(crate) mod winogrande;
