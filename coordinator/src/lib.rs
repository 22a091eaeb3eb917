//! Takes plans, gives their jobs to agents, keeps what they measure.
//!
//! [`plan`] reads what shall be run, [`schedule`] decides who does what next, `run` acts on it,
//! `scoring` scores what models wrote, [`store`] keeps it, [`bundle`] hands it on. [`server`] puts the gRPC services around them: one
//! for agents, one for people.

pub mod bundle;
mod control;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fixture;
mod link;
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
pub use server::{Config, Coordinator, CoordinatorError};
