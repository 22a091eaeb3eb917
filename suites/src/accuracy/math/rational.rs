//! Exact fractions of `i128`; what does not fit is `None`, and the caller falls back to floats.

/// A fraction in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rational {
    num: i128,
    den: i128,
}

impl Rational {
    /// Nought.
    pub(super) const ZERO: Self = Self { num: 0, den: 1 };
    /// One.
    pub(super) const ONE: Self = Self { num: 1, den: 1 };

    /// Makes `num / den`, or `None` of a zero denominator or an overflow.
    pub(super) fn new(num: i128, den: i128) -> Option<Self> {
        if den == 0 {
            return None;
        }
        let divisor = i128::try_from(gcd(num.unsigned_abs(), den.unsigned_abs())).ok()?;
        let (num, den) = (num / divisor, den / divisor);
        if den < 0 {
            return Some(Self {
                num: num.checked_neg()?,
                den: den.checked_neg()?,
            });
        }
        Some(Self { num, den })
    }

    /// Makes a whole number.
    pub(super) const fn whole(value: i128) -> Self {
        Self { num: value, den: 1 }
    }

    /// Reads digits with at most one decimal point (`12`, `.5`, `3.`).
    pub(super) fn parse(digits: &str) -> Option<Self> {
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
        let mut num: i128 = 0;
        for byte in whole.bytes().chain(part.bytes()) {
            let digit = char::from(byte).to_digit(10)?;
            num = num.checked_mul(10)?.checked_add(i128::from(digit))?;
        }
        Self::new(num, scale)
    }

    /// Returns the numerator.
    pub(super) const fn num(self) -> i128 {
        self.num
    }

    /// Returns the denominator, which is positive.
    pub(super) const fn den(self) -> i128 {
        self.den
    }

    /// Returns the value where it is whole.
    pub(super) fn as_whole(self) -> Option<i128> {
        (self.den == 1).then_some(self.num)
    }

    /// Tells whether this is nought.
    pub(super) const fn is_zero(self) -> bool {
        self.num == 0
    }

    /// Returns the nearest float, or one of its neighbours.
    pub(super) fn to_f64(self) -> f64 {
        self.num as f64 / self.den as f64
    }

    /// Adds.
    pub(super) fn add(self, other: Self) -> Option<Self> {
        let left = self.num.checked_mul(other.den)?;
        let right = other.num.checked_mul(self.den)?;
        Self::new(left.checked_add(right)?, self.den.checked_mul(other.den)?)
    }

    /// Multiplies.
    pub(super) fn mul(self, other: Self) -> Option<Self> {
        // Crosswise first, so that the products stay as small as the result lets them.
        let a = Self::new(self.num, other.den)?;
        let b = Self::new(other.num, self.den)?;
        Self::new(a.num.checked_mul(b.num)?, a.den.checked_mul(b.den)?)
    }

    /// Divides; `None` of a zero divisor.
    pub(super) fn div(self, other: Self) -> Option<Self> {
        self.mul(Self::new(other.den, other.num)?)
    }

    /// Changes the sign.
    pub(super) fn neg(self) -> Option<Self> {
        Some(Self {
            num: self.num.checked_neg()?,
            den: self.den,
        })
    }
}

/// Returns the greatest common divisor, at least 1.
fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// Returns the whole `n`-th root of `value` where there is one.
pub(super) fn whole_root(value: i128, n: u32) -> Option<i128> {
    if value < 0 || n == 0 {
        return None;
    }
    let guess = (value as f64).powf(1.0 / f64::from(n)).round() as i128;
    // Not below nought: (-1)^2 is 1 too.
    (guess.saturating_sub(2).max(0)..=guess.saturating_add(2))
        .find(|root| root.checked_pow(n) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_in_lowest_terms() {
        assert_eq!(Rational::new(6, -4), Rational::new(-3, 2));
        assert_eq!(Rational::new(1, 0), None);
        assert_eq!(Rational::parse("1.25"), Rational::new(5, 4));
        assert_eq!(Rational::parse(".5"), Rational::new(1, 2));
    }

    #[test]
    fn overflow_is_none() {
        let big = Rational::whole(i128::MAX);
        assert_eq!(big.add(Rational::ONE), None);
        assert_eq!(big.mul(big), None);
        assert_eq!(Rational::whole(i128::MIN).neg(), None);
        assert_eq!(Rational::new(i128::MIN, -1), None);
        assert_eq!(Rational::parse(&"9".repeat(60)), None);
    }

    #[test]
    fn whole_roots_are_found_and_no_others() {
        assert_eq!(whole_root(144, 2), Some(12));
        assert_eq!(whole_root(1, 2), Some(1));
        assert_eq!(whole_root(0, 3), Some(0));
        assert_eq!(whole_root(145, 2), None);
        assert_eq!(whole_root(1 << 90, 3), Some(1 << 30));
        assert_eq!(whole_root(-8, 3), None);
    }
}
