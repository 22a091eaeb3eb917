//! Polynomials over the rationals in variables, pi, e, i and square roots of primes.
//!
//! Square roots of distinct primes, i, and their products are linearly independent over the
//! rationals, and pi is transcendental, so that two polynomials are one value exactly where their
//! terms are the same. Work is bounded: what becomes too large is `None`.

use std::collections::BTreeMap;

use super::rational::Rational;

/// What a polynomial is a polynomial in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Atom {
    /// The imaginary unit; its square is -1.
    I,
    /// The square root of a prime; its square is the prime.
    Surd(i128),
    /// The circle's number.
    Pi,
    /// The base of the natural logarithm.
    E,
    /// A variable.
    Variable(String),
    /// Something that only its own spelling is known to be equal to, as `cot(x)`.
    Opaque(String),
}

/// A product of powers, in the order of its atoms.
type Monomial = Vec<(Atom, u32)>;

/// Products of terms that one exact form may take.
const MAX_WORK: u32 = 10_000;
/// Most terms of a polynomial.
const MAX_TERMS: usize = 300;
/// Largest exponent of one atom.
const MAX_EXPONENT: u32 = 100_000;

/// The work that is left.
#[derive(Debug)]
pub(super) struct Fuel(u32);

impl Fuel {
    /// Fills up.
    pub(super) const fn full() -> Self {
        Self(MAX_WORK)
    }

    /// Takes `work` out, or `None` where less is left.
    pub(super) fn burn(&mut self, work: usize) -> Option<()> {
        self.0 = self.0.checked_sub(u32::try_from(work).ok()?)?;
        Some(())
    }
}

/// A polynomial: its terms without zero coefficients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Poly {
    terms: BTreeMap<Monomial, Rational>,
}

impl Poly {
    /// Makes a constant.
    pub(super) fn constant(value: Rational) -> Self {
        let mut terms = BTreeMap::new();
        if !value.is_zero() {
            terms.insert(Vec::new(), value);
        }
        Self { terms }
    }

    /// Makes one atom.
    pub(super) fn atom(atom: Atom) -> Self {
        Self {
            terms: BTreeMap::from([(vec![(atom, 1)], Rational::ONE)]),
        }
    }

    /// Tells whether there is no term.
    pub(super) fn is_zero(&self) -> bool {
        self.terms.is_empty()
    }

    /// Returns the value where it is rational.
    pub(super) fn as_rational(&self) -> Option<Rational> {
        match self.terms.iter().next() {
            None => Some(Rational::ZERO),
            Some((monomial, value)) if self.terms.len() == 1 && monomial.is_empty() => Some(*value),
            Some(_) => None,
        }
    }

    /// Adds.
    pub(super) fn add(&self, other: &Self, fuel: &mut Fuel) -> Option<Self> {
        fuel.burn(other.terms.len())?;
        let mut sum = self.clone();
        for (monomial, value) in &other.terms {
            sum.insert(monomial.clone(), *value)?;
        }
        Some(sum)
    }

    /// Changes the sign.
    pub(super) fn neg(&self) -> Option<Self> {
        self.scale(Rational::whole(-1))
    }

    /// Multiplies by a rational.
    pub(super) fn scale(&self, factor: Rational) -> Option<Self> {
        let mut scaled = Self::constant(Rational::ZERO);
        for (monomial, value) in &self.terms {
            scaled.insert(monomial.clone(), value.mul(factor)?)?;
        }
        Some(scaled)
    }

    /// Multiplies.
    pub(super) fn mul(&self, other: &Self, fuel: &mut Fuel) -> Option<Self> {
        fuel.burn(self.terms.len() * other.terms.len() + 1)?;
        let mut product = Self::constant(Rational::ZERO);
        for (left, a) in &self.terms {
            for (right, b) in &other.terms {
                let (monomial, factor) = multiply(left, right, fuel)?;
                product.insert(monomial, a.mul(*b)?.mul(factor)?)?;
            }
        }
        Some(product)
    }

    /// Raises to a power.
    pub(super) fn pow(&self, exponent: u32, fuel: &mut Fuel) -> Option<Self> {
        let mut result = Self::constant(Rational::ONE);
        let (mut square, mut left) = (self.clone(), exponent);
        while left > 0 {
            if left & 1 == 1 {
                result = result.mul(&square, fuel)?;
            }
            left >>= 1;
            if left > 0 {
                square = square.mul(&square, fuel)?;
            }
        }
        Some(result)
    }

    /// Tells whether any atom of any term is as asked.
    pub(super) fn any(&self, asked: impl Fn(&Atom) -> bool) -> bool {
        self.terms.keys().flatten().any(|(atom, _)| asked(atom))
    }

    /// Tells whether this is linear in its variables, of which there is at least one, with rational
    /// coefficients.
    pub(super) fn is_plain_linear(&self) -> bool {
        let plain = |monomial: &Monomial| match monomial.as_slice() {
            [] => true,
            [(Atom::Variable(_), exponent)] => *exponent == 1,
            _ => false,
        };
        self.terms.keys().all(plain) && self.terms.keys().any(|monomial| !monomial.is_empty())
    }

    /// Returns the rational that `other` is `self` times, where there is one.
    pub(super) fn ratio(&self, other: &Self) -> Option<Rational> {
        let (monomial, value) = self.terms.iter().next()?;
        let factor = other.terms.get(monomial)?.div(*value)?;
        (self.scale(factor)? == *other).then_some(factor)
    }

    /// Writes the terms down; equal polynomials have the same spelling.
    pub(super) fn spelling(&self) -> String {
        let term = |(monomial, value): (&Monomial, &Rational)| {
            let atoms: Vec<String> = monomial
                .iter()
                .map(|(atom, n)| format!("{}^{n}", atom.spelling()))
                .collect();
            format!("{}/{} {}", value.num(), value.den(), atoms.join(" "))
        };
        self.terms.iter().map(term).collect::<Vec<_>>().join(" + ")
    }

    /// Adds one term.
    fn insert(&mut self, monomial: Monomial, value: Rational) -> Option<()> {
        let sum = self
            .terms
            .get(&monomial)
            .copied()
            .unwrap_or(Rational::ZERO)
            .add(value)?;
        if sum.is_zero() {
            self.terms.remove(&monomial);
        } else {
            self.terms.insert(monomial, sum);
        }
        (self.terms.len() <= MAX_TERMS).then_some(())
    }
}

impl Atom {
    fn spelling(&self) -> String {
        match self {
            Self::I => "i".to_owned(),
            Self::Surd(prime) => format!("root {prime}"),
            Self::Pi => "pi".to_owned(),
            Self::E => "e".to_owned(),
            Self::Variable(name) => format!("<{name}>"),
            Self::Opaque(spelling) => format!("[{spelling}]"),
        }
    }
}

/// Multiplies two products of powers; squares of i and of roots go into the rational factor.
fn multiply(left: &Monomial, right: &Monomial, fuel: &mut Fuel) -> Option<(Monomial, Rational)> {
    fuel.burn((left.len() + right.len()) / 4)?;
    let mut powers: BTreeMap<&Atom, u32> = left.iter().map(|(atom, n)| (atom, *n)).collect();
    for (atom, n) in right {
        let power = powers.entry(atom).or_insert(0);
        *power = power.checked_add(*n).filter(|n| *n <= MAX_EXPONENT)?;
    }
    let mut factor = Rational::ONE;
    let mut monomial = Vec::with_capacity(powers.len());
    for (atom, n) in powers {
        let square = match atom {
            Atom::I => Some(-1),
            Atom::Surd(prime) => Some(*prime),
            _ => None,
        };
        let left = match square {
            Some(square) => {
                let square = square.checked_pow(n / 2)?;
                factor = factor.mul(Rational::whole(square))?;
                n % 2
            }
            None => n,
        };
        if left > 0 {
            monomial.push((atom.clone(), left));
        }
    }
    Some((monomial, factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(name: &str) -> Poly {
        Poly::atom(Atom::Variable(name.to_owned()))
    }

    #[test]
    fn products_are_expanded_and_collected() {
        let fuel = &mut Fuel::full();
        let sum = var("x").add(&var("y"), fuel).expect("small");
        let difference = var("x")
            .add(&var("y").neg().expect("small"), fuel)
            .expect("small");
        let product = sum.mul(&difference, fuel).expect("small");
        let squares = var("x").pow(2, fuel).expect("small");
        let squares = squares.add(
            &var("y").pow(2, fuel).expect("small").neg().expect("small"),
            fuel,
        );
        assert_eq!(Some(product), squares);
    }

    #[test]
    fn squares_of_roots_are_rational() {
        let fuel = &mut Fuel::full();
        let root = Poly::atom(Atom::Surd(3));
        assert_eq!(
            root.mul(&root, fuel).and_then(|p| p.as_rational()),
            Some(Rational::whole(3))
        );
        let i = Poly::atom(Atom::I);
        assert_eq!(
            i.pow(2, fuel).and_then(|p| p.as_rational()),
            Some(Rational::whole(-1))
        );
        assert_eq!(
            i.pow(4, fuel).and_then(|p| p.as_rational()),
            Some(Rational::ONE)
        );
    }

    #[test]
    fn work_is_bounded() {
        let fuel = &mut Fuel::full();
        let sum = var("x").add(&var("y"), fuel).expect("small");
        let sum = sum.add(&var("z"), fuel).expect("small");
        assert_eq!(sum.pow(1000, fuel), None);
        assert_eq!(
            Poly::constant(Rational::whole(3)).pow(100_000, &mut Fuel::full()),
            None
        );
        assert!(var("x").pow(1000, &mut Fuel::full()).is_some());
    }
}
