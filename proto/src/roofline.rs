//! The roofline of a machine for a model: the speed that reading what a token reads, or multiplying what
//! it multiplies, would allow if nothing else took time (Williams et al., CACM 52(4), 2009).
//!
//! The machine's bounds are measured with the job's kernel and threads just before its model is loaded;
//! what a token asks for is counted. Decode is bound by reading, prefill by multiplying.

use serde::{Deserialize, Serialize};

use crate::job::Workload;

/// What a machine can do with one kernel and so many threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Bytes read from memory per second.
    pub memory_read_bytes_per_s: f64,
    /// Multiply-adds of int8 per second, out of registers, as the kernel's ternary product has them.
    pub int8_ops_per_s: f64,
    /// Multiply-adds of f32 per second, out of registers, as the kernel's dense product has them.
    pub f32_ops_per_s: f64,
}

/// What one token asks of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Bytes that are read for each token evaluated alone: the block linears and the head, or as much of
    /// a screened head as every token reads.
    pub token_bytes: u64,
    /// Bytes of the keys and values of one position, which every token behind it reads.
    pub position_bytes: u64,
    /// Multiply-adds of the block linears.
    pub linear_ops: u64,
    /// What these are of; `None` where some linears differ from others.
    pub arithmetic: Option<Arithmetic>,
}

/// Numbers that a product multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Ternary weights, and block formats with fast numerics.
    Int8,
    /// All others.
    F32,
}

impl Arithmetic {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Int8, Self::F32];

    /// Returns the name used everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }

    /// Returns what a name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A speed no engine could exceed that reads what ours reads, or multiplies as ours does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Tokens per second.
    pub tok_per_s: f64,
    /// The peak it follows from; `None` for the read bandwidth.
    pub arithmetic: Option<Arithmetic>,
}

impl Roofline {
    /// Returns the bound's short name.
    pub fn name(self) -> &'static str {
        self.arithmetic.map_or("read", Arithmetic::name)
    }
}

impl Bounds {
    /// Returns the roofline of decode: the bytes of a token, and those of the keys and values before the
    /// token in the middle of the generated ones.
    pub fn decode(self, demand: Demand, workload: Workload) -> Roofline {
        let Workload {
            n_prompt,
            n_gen,
            n_depth,
            n_batch: _,
        } = workload;
        let positions = f64::from(n_depth) + f64::from(n_prompt) + f64::from(n_gen) / 2.0;
        let bytes = demand.token_bytes as f64 + positions * demand.position_bytes as f64;
        Roofline {
            tok_per_s: self.memory_read_bytes_per_s / bytes,
            arithmetic: None,
        }
    }

    /// Returns the roofline of prefill, from the products of its linears; `None` where these are of
    /// several kinds.
    pub fn prefill(self, demand: Demand) -> Option<Roofline> {
        let arithmetic = demand.arithmetic?;
        let peak = match arithmetic {
            Arithmetic::Int8 => self.int8_ops_per_s,
            Arithmetic::F32 => self.f32_ops_per_s,
        };
        Some(Roofline {
            tok_per_s: peak / demand.linear_ops as f64,
            arithmetic: Some(arithmetic),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        memory_read_bytes_per_s: 1e10,
        int8_ops_per_s: 4e11,
        f32_ops_per_s: 1e11,
    };

    const DEMAND: Demand = Demand {
        token_bytes: 4_000_000,
        position_bytes: 1000,
        linear_ops: 10_000_000,
        arithmetic: Some(Arithmetic::Int8),
    };

    #[test]
    fn decode_reads_weights_and_the_cache_up_to_the_middle_of_what_it_generates() {
        let workload = Workload {
            n_prompt: 500,
            n_gen: 200,
            n_depth: 400,
            n_batch: 512,
        };
        let roofline = BOUNDS.decode(DEMAND, workload);
        assert_eq!((roofline.tok_per_s, roofline.name()), (2000.0, "read"));
    }

    #[test]
    fn prefill_multiplies_by_the_peak_of_its_linears() {
        let check = |arithmetic, expected: Option<(f64, &str)>| {
            let demand = Demand {
                arithmetic,
                ..DEMAND
            };
            let roofline = BOUNDS.prefill(demand);
            let found = roofline.map(|roofline| (roofline.tok_per_s, roofline.name()));
            assert_eq!(found, expected);
        };
        check(Some(Arithmetic::Int8), Some((40_000.0, "int8")));
        check(Some(Arithmetic::F32), Some((10_000.0, "f32")));
        check(None, None);
    }
}
