//! Faults in a row that a seed chooses.

use std::time::Duration;

use tokio::time::sleep;

use super::{End, Network, Proxy, Way};
use crate::random::Random;

/// One step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The network is so for a time.
    Network(Network, Duration),
    /// The connections there are end.
    End(End),
}

/// Returns `n` faults, each with a spell of good weather after it.
pub fn chaos(seed: u64, n: usize, longest: Duration) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut steps = Vec::new();
    for _ in 0..n {
        let spell = random.up_to(longest);
        let way = |way| Step::Network(Network::both(way), spell);
        let one_way = |random: &mut Random, way| {
            let mut network = Network::default();
            if random.chance(500) {
                network.up = way;
            } else {
                network.down = way;
            }
            Step::Network(network, spell)
        };
        let step = match random.below(9) {
            0 => way(Way {
                delay: Duration::from_millis(200),
                ..Way::default()
            }),
            1 => way(Way {
                delay: Duration::from_millis(20),
                jitter: Duration::from_millis(80),
                ..Way::default()
            }),
            2 => way(Way {
                bytes_per_s: 20_000 + random.below(100_000),
                ..Way::default()
            }),
            3 => one_way(
                &mut random,
                Way {
                    stalls: true,
                    ..Way::default()
                },
            ),
            4 => one_way(
                &mut random,
                Way {
                    swallows: true,
                    ..Way::default()
                },
            ),
            5 => {
                // What was swallowed is missing, so that only an end can follow.
                steps.push(way(Way {
                    swallows: true,
                    ..Way::default()
                }));
                Step::End(End::Reset)
            }
            6 => {
                steps.push(Step::End(End::Reset));
                Step::Network(
                    Network {
                        refuses: true,
                        ..Network::default()
                    },
                    spell,
                )
            }
            7 => Step::End(End::Close),
            _ => Step::End(End::Reset),
        };
        steps.push(step);
        if let Step::Network(network, _) = step
            && (network.up.swallows || network.down.swallows)
        {
            steps.push(Step::End(End::Reset));
        }
        steps.push(Step::Network(Network::default(), random.up_to(longest)));
    }
    steps
}

impl Proxy {
    /// Plays a script; the network is good at its end.
    pub async fn play(&self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Network(network, spell) => {
                    self.set(network);
                    sleep(spell).await;
                }
                Step::End(how) => self.end(how),
            }
        }
        self.set(Network::default());
    }
}
