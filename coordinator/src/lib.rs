//! Takes plans, gives their jobs to agents, keeps what they measure.
//!
//! [`plan`] reads what shall be run, [`schedule`] decides who does what next, `run` acts on it,
//! `scoring` scores what models wrote, [`store`] keeps it, [`bundle`] hands it on. [`artefacts`] gets
//! models and data to agents that do not have them, [`objects`] keeps what is large. [`server`] puts the
//! gRPC services around them: one for agents, one for people. [`identity`] is who may speak to them
//! from other machines, [`health`] whether a machine is still what it was, [`telemetry`] what they
//! tell of themselves.

mod archive;
pub mod artefacts;
pub mod bundle;
mod control;
pub mod evidence;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fixture;
pub mod health;
pub mod identity;
mod link;
pub mod objects;
mod pace;
pub mod plan;
mod run;
pub mod schedule;
mod scoring;
pub mod server;
pub mod simulation;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;

pub use run::{Timing, step_clock};
pub use scoring::Scorer;
pub use server::{Config, Coordinator, CoordinatorError, Limits, Rate, TlsError};
