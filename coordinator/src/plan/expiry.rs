//! Until when a run is wanted: a time, or how long after its submission.

use std::str::FromStr;

use jiff::Timestamp;

/// Longest time a run may be given: ten years.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;

/// Until when a run is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many seconds after it was submitted.
    After(u64),
    /// At a time.
    At(Timestamp),
}

impl Expiry {
    /// Returns the time, of a run that is submitted at `submitted_unix_ns`.
    pub fn unix_ns(self, submitted_unix_ns: i64) -> i64 {
        match self {
            Self::After(seconds) => {
                let ns = i64::try_from(seconds.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX);
                submitted_unix_ns.saturating_add(ns)
            }
            Self::At(at) => i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX),
        }
    }
}

/// The text says neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a time to come, e.g. 90s, 45m, 12h or 3d, at most ten years, nor a moment, \
     e.g. 2027-01-31T08:00:00Z"
)]
pub struct NoExpiry(String);

impl FromStr for Expiry {
    type Err = NoExpiry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let none = || NoExpiry(text.chars().take(60).collect());
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let number = text
            .strip_suffix(['s', 'm', 'h', 'd'])
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(none)?;
        let factor = match text.as_bytes().last() {
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            _ => 1,
        };
        let seconds = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        match seconds {
            Some(seconds @ 1..=MAX_SECONDS) => Ok(Self::After(seconds)),
            _ => Err(none()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_from_the_submission_and_a_moment_is_one() {
        let check = |text: &str, unix_ns: i64| {
            let expiry: Expiry = text.parse().unwrap();
            assert_eq!(expiry.unix_ns(5), unix_ns, "{text}");
        };
        check("90s", 90_000_000_005);
        check(" 45m ", 2_700_000_000_005);
        check("2h", 7_200_000_000_005);
        check("1d", 86_400_000_000_005);
        check("1970-01-01T00:01:00Z", 60_000_000_000);
        check("1970-01-01T02:00:00+01:00", 3_600_000_000_000);
    }

    #[test]
    fn what_is_neither_is_refused_and_shown() {
        for text in [
            "",
            "s",
            "5",
            "0h",
            "-1h",
            "1.5h",
            "4000d",
            "tomorrow",
            "99999999999999999999d",
        ] {
            let refusal = text.parse::<Expiry>().unwrap_err().to_string();
            assert!(refusal.contains(&format!("`{text}`")), "{refusal}");
        }
    }
}
