//! What of an item is put together into a figure of its task: one of its scores, or how likely its
//! text is.

use tritmark_proto::record::{Answer, Item, ItemScore, RollingAnswer};

use crate::stats::Likelihood;

/// A figure of a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Figure {
    /// The mean of a score.
    Score {
        /// The metric's name.
        metric: String,
        /// What answers went through before.
        filter: String,
    },
    /// Of rolling answers.
    Rolling(Rolling),
}

/// How likely texts are, told in three ways (lm-evaluation-harness's `loglikelihood_rolling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rolling {
    /// exp(−Σ log-likelihood / Σ words).
    WordPerplexity,
    /// exp(−Σ log-likelihood / Σ bytes).
    BytePerplexity,
    /// −Σ log-likelihood / (Σ bytes · ln 2).
    BitsPerByte,
}

impl Rolling {
    /// All, in lm-evaluation-harness's order.
    pub const ALL: [Self; 3] = [
        Self::WordPerplexity,
        Self::BytePerplexity,
        Self::BitsPerByte,
    ];

    /// Returns lm-evaluation-harness's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
        }
    }

    /// Returns the unit of its values.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::WordPerplexity | Self::BytePerplexity => "ppl",
            Self::BitsPerByte => "bit/B",
        }
    }

    /// Returns its value, or `None` of no words or bytes.
    pub fn of(self, likelihood: Likelihood) -> Option<f64> {
        match self {
            Self::WordPerplexity => likelihood.word_perplexity(),
            Self::BytePerplexity => likelihood.byte_perplexity(),
            Self::BitsPerByte => likelihood.bits_per_byte(),
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl Figure {
    /// Returns an item's figures in the task's order.
    ///
    /// A rolling answer has the three of [`Rolling::ALL`], whatever scores came with it: they are of
    /// all items together and no mean of single ones.
    pub fn all_of(item: &Item) -> Vec<Self> {
        let is_rolling = matches!(item.answer, Answer::Rolling(_));
        let rolling = Rolling::ALL
            .into_iter()
            .filter(|_| is_rolling)
            .map(Self::Rolling);
        let scores = item
            .scores
            .iter()
            .filter(|score| !is_rolling || !is_of_rolling(&score.metric))
            .map(|score| Self::Score {
                metric: score.metric.clone(),
                filter: score.filter.clone(),
            });
        rolling.chain(scores).collect()
    }

    /// Returns a score taken of answers as they are.
    pub fn plain(metric: &str) -> Self {
        Self::Score {
            metric: metric.to_owned(),
            filter: tritmark_proto::record::NO_FILTER.to_owned(),
        }
    }

    /// Returns the metric's name.
    pub fn metric(&self) -> &str {
        match self {
            Self::Score { metric, .. } => metric,
            Self::Rolling(rolling) => rolling.name(),
        }
    }

    /// Returns the filter's name.
    pub fn filter(&self) -> &str {
        match self {
            Self::Score { filter, .. } => filter,
            Self::Rolling(_) => tritmark_proto::record::NO_FILTER,
        }
    }

    /// Returns the unit of its values; `1` of shares.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Score { .. } => "1",
            Self::Rolling(rolling) => rolling.unit(),
        }
    }

    /// Tells whether more is better.
    pub fn higher_is_better(&self) -> bool {
        matches!(self, Self::Score { .. })
    }

    /// Returns an item's score, decided or not; `None` where it has no such score.
    pub fn score<'a>(&self, item: &'a Item) -> Option<&'a ItemScore> {
        match self {
            Self::Score { metric, filter } => item.score(metric, filter),
            Self::Rolling(_) => None,
        }
    }

    /// Returns an item's value; `None` where it is not decided, or there is none.
    pub fn value(&self, item: &Item) -> Option<f64> {
        self.score(item)?.value
    }
}

/// Returns how likely the text of a rolling answer is.
pub fn likelihood(item: &Item) -> Option<Likelihood> {
    match &item.answer {
        Answer::Rolling(RollingAnswer {
            loglikelihood,
            n_tokens: _,
            n_words,
            n_bytes,
        }) => Some(Likelihood {
            loglikelihood: *loglikelihood,
            words: u64::from(*n_words),
            bytes: u64::from(*n_bytes),
        }),
        Answer::Choice(_) | Answer::Generated(_) => None,
    }
}

fn is_of_rolling(metric: &str) -> bool {
    // Also what a task may call the sum itself.
    Rolling::by_name(metric).is_some() || matches!(metric, "perplexity" | "loglikelihood")
}
