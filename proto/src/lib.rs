//! What the parts of Tritmark say to each other, on the wire and on disk.
//!
//! [`wire`] is generated from `tritmark/v1/*.proto`; the other modules are the domain types that
//! the rest of the workspace uses. A wire message becomes a domain type once, at the border,
//! through `TryFrom`, and cannot be wrong afterwards.

pub mod artefact;
pub mod bundle;
pub mod calibration;
mod convert;
pub mod evidence;
pub mod identity;
pub mod job;
pub mod machine;
pub mod private_file;
pub mod record;
pub mod roofline;
pub mod wire;

pub use convert::InvalidMessage;
