//! Rotary position embedding (arXiv 2104.09864), with Hugging Face's frequencies.

use std::f32::consts::PI;

use crate::config::{ModelConfig, RopePairs, RopeScaling};

/// The tables of a model's layers.
#[derive(Clone, Debug)]
pub(crate) struct Ropes {
    all: Rope,
    /// Of the layers that see only the last positions.
    local: Option<Rope>,
}

impl Ropes {
    /// Makes empty tables for a model.
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let local = config.local.as_ref().map(|local| {
            Rope::new(&ModelConfig {
                rope_theta: local.rope_theta,
                rope_scaling: RopeScaling::None,
                rope_freq_factors: None,
                ..config.clone()
            })
        });
        Self {
            all: Rope::new(config),
            local,
        }
    }

    /// Makes sure that the positions `0..n` are in the tables.
    pub(crate) fn extend(&mut self, n: usize) {
        self.all.extend(n);
        if let Some(local) = &mut self.local {
            local.extend(n);
        }
    }

    /// Returns the table of a layer.
    pub(crate) fn of_layer(&self, config: &ModelConfig, layer: usize) -> &Rope {
        match &self.local {
            Some(local) if config.local_attention(layer).is_some() => local,
            _ => &self.all,
        }
    }
}

/// Cosines and sines of the positions seen so far.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    pairs: RopePairs,
    // (head_dim / 2), radians per position
    frequencies: Vec<f32>,
    // (positions, head_dim / 2), (cos, sin)
    turns: Vec<(f32, f32)>,
}

impl Rope {
    /// Makes an empty table for a model.
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self {
            pairs: config.rope_pairs,
            frequencies: frequencies(config),
            turns: Vec::new(),
        }
    }

    /// Makes sure that the positions `0..n` are in the table.
    ///
    /// The angle is the product in f32, as Hugging Face computes it; its cosine and sine are
    /// rounded from f64, so that they do not depend on the system's library.
    pub(crate) fn extend(&mut self, n: usize) {
        let known = self.turns.len() / self.frequencies.len();
        for position in known..n {
            self.turns.extend(self.frequencies.iter().map(|frequency| {
                let angle = f64::from(position as f32 * frequency);
                (libm::cos(angle) as f32, libm::sin(angle) as f32)
            }));
        }
    }

    /// Rotates one head, `(head_dim)`, to a position of the table.
    pub(crate) fn rotate(&self, position: usize, head: &mut [f32]) {
        let half = self.frequencies.len();
        let turns = &self.turns[position * half..][..half];
        let turn = |x: &mut f32, y: &mut f32, (cos, sin): (f32, f32)| {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        };
        match self.pairs {
            RopePairs::Halves => {
                let (first, second) = head.split_at_mut(half);
                for ((x, y), &cos_sin) in first.iter_mut().zip(second).zip(turns) {
                    turn(x, y, cos_sin);
                }
            }
            RopePairs::Neighbours => {
                for ([x, y], &cos_sin) in head.as_chunks_mut().0.iter_mut().zip(turns) {
                    turn(x, y, cos_sin);
                }
            }
        }
    }
}

/// Returns the angle per position of each pair of a head.
fn frequencies(config: &ModelConfig) -> Vec<f32> {
    let half = config.head_dim / 2;
    let plain = (0..half).map(|i| {
        let exponent = (2 * i) as f32 / config.head_dim as f32;
        let power = libm::pow(f64::from(config.rope_theta), f64::from(exponent)) as f32;
        1.0 / power
    });
    let scaled = plain.map(|frequency| scale(frequency, config.rope_scaling));
    match &config.rope_freq_factors {
        None => scaled.collect(),
        Some(factors) => scaled.zip(factors).map(|(f, factor)| f / factor).collect(),
    }
}

/// Returns the divisors of the frequencies that do what Llama 3's rule does, `(head_dim / 2)`; None
/// under another rule.
pub(crate) fn llama3_factors(config: &ModelConfig) -> Option<Vec<f32>> {
    if !matches!(config.rope_scaling, RopeScaling::Llama3 { .. }) {
        return None;
    }
    let plain = frequencies(&ModelConfig {
        rope_scaling: RopeScaling::None,
        rope_freq_factors: None,
        ..config.clone()
    });
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
    let factor = |&frequency: &f32| {
        let scaled = scale(frequency, config.rope_scaling);
        match config.rope_scaling {
            // As it is, or divided by the rule's own factor: to the bit.
            _ if same(scaled, frequency) => 1.0,
            RopeScaling::Llama3 { factor, .. } if same(scaled, frequency / factor) => factor,
            _ => frequency / scaled,
        }
    };
    Some(plain.iter().map(factor).collect())
}

/// Applies a scaling rule to one frequency (HF `modeling_rope_utils.py`).
fn scale(frequency: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        } => {
            let original = original_context as f32;
            let wavelength = 2.0 * PI / frequency;
            if wavelength < original / high_freq_factor {
                frequency
            } else if wavelength > original / low_freq_factor {
                frequency / factor
            } else {
                let smooth = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "these results are exact")]

    use super::*;
    use crate::testing::tiny_config;

    #[test]
    fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
        let rule = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 256,
        };
        // Wavelengths 2π, 2π / 0.01 and 2π / 0.05, by the rule of arXiv 2407.21783's code.
        assert_eq!(scale(1.0, rule), 1.0);
        assert_eq!(scale(0.01, rule), 0.01 / 8.0);
        let smooth = (256.0 * 0.05 / (2.0 * f64::from(PI)) - 1.0) / 3.0;
        let expected = (1.0 - smooth) * 0.05 / 8.0 + smooth * 0.05;
        assert!((f64::from(scale(0.05, rule)) - expected).abs() < 1e-8);
    }

    #[test]
    fn both_pairings_turn_the_same_pairs_of_a_permuted_head() {
        let halves = tiny_config();
        let neighbours = ModelConfig {
            rope_pairs: RopePairs::Neighbours,
            ..halves.clone()
        };
        let dim = halves.head_dim;
        let permute = |head: &[f32]| -> Vec<f32> {
            (0..dim).map(|i| head[i % 2 * (dim / 2) + i / 2]).collect()
        };
        let head: Vec<f32> = (0..dim).map(|i| i as f32 - 3.0).collect();
        let [by_halves, by_neighbours] = [(&halves, head.clone()), (&neighbours, permute(&head))]
            .map(|(config, mut head)| {
                let mut rope = Rope::new(config);
                rope.extend(10);
                rope.rotate(9, &mut head);
                head
            });
        assert_eq!(permute(&by_halves), by_neighbours);
        assert_ne!(by_halves, head);
    }

    #[test]
    fn file_factors_divide_the_frequencies() {
        let mut config = tiny_config();
        let plain = frequencies(&config);
        config.rope_freq_factors = Some(vec![2.0; config.head_dim / 2]);
        let halved: Vec<f32> = plain.iter().map(|f| f / 2.0).collect();
        assert_eq!(frequencies(&config), halved);
    }

    #[test]
    fn divisors_do_what_llama_3s_rule_does() {
        let config = ModelConfig {
            head_dim: 64,
            rope_theta: 500_000.0,
            rope_scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 256,
            },
            ..tiny_config()
        };
        let factors = llama3_factors(&config).unwrap();
        assert!(
            factors.contains(&1.0) && factors.contains(&8.0),
            "{factors:?}"
        );
        assert!(
            factors.iter().any(|factor| (1.5..7.5).contains(factor)),
            "{factors:?}"
        );
        let divided = ModelConfig {
            rope_scaling: RopeScaling::None,
            rope_freq_factors: Some(factors),
            ..config.clone()
        };
        for (ruled, divided) in frequencies(&config).iter().zip(frequencies(&divided)) {
            assert!(
                (ruled / divided - 1.0).abs() <= f32::EPSILON,
                "{ruled} {divided}"
            );
        }
        assert_eq!(llama3_factors(&tiny_config()), None);
    }
}
