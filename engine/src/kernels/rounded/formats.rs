//! The block formats as SIMD kernels read them: groups of eight blocks of 32 weights.

use super::LANES;
use crate::weights::DenseType;

/// What is done with the sums of a group's blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// Signed codes of a byte.
    Signed,
    /// Codes with an offset of `1 << n`.
    Offset(i32),
    /// Codes of one sign, and a min.
    LessMin,
    /// Codes with an offset of 32, and a scale for each half.
    Halves,
}

/// A format's groups.
pub(in super::super) trait Format {
    /// The format.
    const DTYPE: DenseType;
    /// What its sums ask for.
    const KIND: Kind;
    /// A group as stored.
    type Group: Copy + AsRef<[u8]> + AsMut<[u8]>;
    /// A group of zeros.
    const ZERO: Self::Group;

    /// Splits a row into whole groups and the bytes left over.
    fn groups(row: &[u8]) -> (&[Self::Group], &[u8]);

    /// Returns blocks behind which there are none, filled up with zeros.
    #[inline(always)]
    fn padded(rest: &[u8]) -> Self::Group {
        let mut group = Self::ZERO;
        group.as_mut()[..rest.len()].copy_from_slice(rest);
        group
    }
}

macro_rules! format {
    ($name:ident, $bytes:expr, $kind:expr) => {
        pub(in super::super) struct $name;

        impl Format for $name {
            const DTYPE: DenseType = DenseType::$name;
            const KIND: Kind = $kind;
            type Group = [u8; $bytes];
            const ZERO: Self::Group = [0; $bytes];

            #[inline(always)]
            fn groups(row: &[u8]) -> (&[Self::Group], &[u8]) {
                row.as_chunks()
            }
        }
    };
}

format!(Q8_0, LANES * 34, Kind::Signed);
format!(Q4_0, LANES * 18, Kind::Offset(3));
format!(Q5_0, LANES * 22, Kind::Offset(4));
format!(Q4K, 144, Kind::LessMin);
format!(Q5K, 176, Kind::LessMin);
format!(Q6K, 210, Kind::Halves);
