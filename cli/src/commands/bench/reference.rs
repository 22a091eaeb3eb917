//! What other engines reach with the 2B-4T shape, to stand beside our own figures.
//!
//! Measured with each engine's own llama-bench on a virtual machine with two cores of an AMD EPYC
//! of the Zen 4 generation (AVX-512 with VNNI, 3.66 GHz), random weights, decode of 128 tokens.
//! Other machines differ; on one machine the order of the rows is what holds.

use tritmark_engine::config::ModelConfig;

/// Machine of the figures.
pub(super) const MACHINE: &str = "2 vCPU EPYC Zen 4 (AVX-512 VNNI), medians";

/// Decode speed of an engine.
pub(super) struct Reference {
    /// Engine, weights, head.
    pub(super) engine: &'static str,
    /// tok/s with one thread.
    pub(super) one_thread: f64,
    /// tok/s with two.
    pub(super) two_threads: f64,
}

/// Decode, fastest last.
pub(super) const DECODE: [Reference; 5] = [
    Reference {
        engine: "llama.cpp 0c1e570, F16",
        one_thread: 4.9,
        two_threads: 7.4,
    },
    Reference {
        engine: "bitnet.cpp I2_S, F16 head (the official file)",
        one_thread: 14.0,
        two_threads: 21.8,
    },
    Reference {
        engine: "llama.cpp 0c1e570, TQ2_0, Q6_K head",
        one_thread: 18.4,
        two_threads: 23.0,
    },
    Reference {
        engine: "bitnet.cpp I2_S, Q6_K head",
        one_thread: 18.7,
        two_threads: 26.3,
    },
    Reference {
        engine: "ik_llama.cpp IQ2_BN, Q6_K head, repacked",
        one_thread: 23.0,
        two_threads: 32.3,
    },
];

/// Shapes with known figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// microsoft/bitnet-b1.58-2B-4T.
    TwoB4T,
}

impl Shape {
    /// Returns the known shape a model has.
    pub(super) fn of(config: &ModelConfig) -> Option<Self> {
        let shape = (
            config.hidden_size,
            config.ffn_size,
            config.n_layers,
            config.n_heads,
            config.n_kv_heads,
        );
        (shape == (2560, 6912, 30, 20, 5)).then_some(Self::TwoB4T)
    }
}
