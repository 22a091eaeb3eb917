//! Sizes as people write them.

use std::str::FromStr;

/// A number of bytes: `800MiB`, `1.5TB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size: write e.g. 800MiB, 200GiB or a number of bytes")]
pub struct NoSize(String);

/// Units, the longer of two with one ending first.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("", 1),
];

impl FromStr for Size {
    type Err = NoSize;

    #[expect(clippy::cast_sign_loss, reason = "digits have no sign")]
    fn from_str(text: &str) -> Result<Self, NoSize> {
        let no_size = || NoSize(text.to_owned());
        let units = UNITS.iter();
        let mut units = units.filter_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
        let (number, unit) = units.next().ok_or_else(no_size)?;
        let number = number.trim_end();
        let is_number = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number: f64 = number.parse().map_err(|_| no_size())?;
        let bytes = number * *unit as f64;
        // Beyond 2^53 not every number of bytes has an f64, and no disk has so many.
        if is_number && bytes <= (1_u64 << 53) as f64 {
            Ok(Self(bytes as u64))
        } else {
            Err(no_size())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_either_kind() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("800MiB", 800 << 20),
            ("200 GiB", 200 << 30),
            ("1.5TB", 1_500_000_000_000),
            ("2kB", 2000),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "1e3",
            "inf",
            "NaN",
            "10 gib",
            "99999999TiB",
            "1.2.3",
        ] {
            let refusal = text.parse::<Size>().unwrap_err().to_string();
            assert!(refusal.contains(&format!("`{text}`")), "{refusal}");
        }
    }
}
