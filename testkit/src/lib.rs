//! Proof that a fleet loses nothing: faults, simulated agents, and the check afterwards.
//!
//! * [`proxy`] is a network that does as it is told, and [`fleet`] are coordinators and agents as
//!   processes that can be killed.
//! * [`light`] is an agent of a few kilobytes, for fleets of a thousand; [`work`] is what simulated
//!   workers find out.
//! * [`simulation`] replays the protocol without network, clock and processes, in the order a seed
//!   chooses, on [`memory`], a store in memory.
//! * [`check`] compares the store with the agents' own journals ([`journal`]) and with what the workers
//!   must have found out.
//!
//! `docs/fleet.md` says what is proven with it and how to repeat that.

pub mod check;
pub mod fleet;
pub mod journal;
pub mod light;
pub mod memory;
pub mod proxy;
pub mod random;
pub mod simulation;
pub mod work;
