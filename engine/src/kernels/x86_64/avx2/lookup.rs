//! Look-up products with AVX2: `vpshufb` looks up 32 rows' indexes in one table.
//!
//! What it finds are bytes, and two rows' bytes make a word. They need not be taken apart before
//! they are added: of the words `even + 256 odd` the sum is taken as it is, and of their upper bytes
//! once more; the even rows' sum is the difference. All of it is modulo 2¹⁶, in which the sums of a
//! block lie ([`Packing::block_units`]). Of an i16's high byte only the sum modulo 2⁸ is wanted,
//! which is that of bytes. To unpack the bytes to words takes as many instructions, but four
//! shuffles where this takes two and a shift.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi8, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cmpgt_epi8,
    _mm256_cvtepi16_epi32, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16,
    _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_epi16, _mm256_xor_si256,
};

use super::{
    super::super::lookup::{ENTRIES, LookupIsa, Sums, table_bytes},
    Avx2, prefetch,
    trits::load,
};
use crate::lookup::{Entries, Lookup, Packing, TILE, UNIT};

impl LookupIsa for Avx2 {
    #[inline(always)]
    fn add(self, lookup: Lookup, units: &[u8], tables: &[u8], sums: &mut Sums) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { add_of(lookup, units, tables, sums) }
    }
}

#[target_feature(enable = "avx2")]
fn add_of(lookup: Lookup, units: &[u8], tables: &[u8], sums: &mut Sums) {
    const PLAIN: usize = Packing::Tl1.unit_bytes();
    const SIGNED: usize = Packing::Tl2.unit_bytes();
    const WIDE: usize = UNIT * table_bytes(Entries::I16);
    const NARROW: usize = UNIT * table_bytes(Entries::I8);
    match (lookup.packing, lookup.entries) {
        (Packing::Tl1, Entries::I16) => add::<true, PLAIN, WIDE>(units, tables, sums),
        (Packing::Tl1, Entries::I8) => add::<false, PLAIN, NARROW>(units, tables, sums),
        (Packing::Tl2, Entries::I16) => add::<true, SIGNED, WIDE>(units, tables, sums),
        (Packing::Tl2, Entries::I8) => add::<false, SIGNED, NARROW>(units, tables, sums),
        (Packing::Tmac, Entries::I16) => add::<true, PLAIN, { WIDE / 2 }>(units, tables, sums),
        (Packing::Tmac, Entries::I8) => add::<false, PLAIN, { NARROW / 2 }>(units, tables, sums),
    }
}

/// How far ahead of a stream of indexes memory is asked for, bytes.
const AHEAD: usize = 4096;

/// Adds what units of `UNIT_BYTES` look up in `TABLES` bytes each; the entries are i16 if `WIDE`.
#[inline]
#[target_feature(enable = "avx2")]
fn add<const WIDE: bool, const UNIT_BYTES: usize, const TABLES: usize>(
    units: &[u8],
    tables: &[u8],
    sums: &mut Sums,
) {
    let bytes = const { table_bytes(if WIDE { Entries::I16 } else { Entries::I8 }) };
    let planes = UNIT * bytes / TABLES;
    let nibble = _mm256_set1_epi8(15);
    let (units, _) = units.as_chunks::<UNIT_BYTES>();
    let (tables, _) = tables.as_chunks::<TABLES>();
    let mut found = Found::zero();
    for (unit, tables) in units.iter().zip(tables) {
        for line in 0..UNIT_BYTES.div_ceil(64) {
            prefetch(unit.as_ptr().wrapping_add(AHEAD + 64 * line));
        }
        let (vectors, _) = unit.as_chunks::<TILE>();
        // The sign of the next index is each byte's uppermost bit.
        let mut signs = vectors.get(UNIT / 2).map(|signs| load(signs));
        for v in 0..UNIT / 2 {
            let packed = load(&vectors[v]);
            let low = _mm256_and_si256(packed, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
            for (nth, indexes) in [low, high].into_iter().enumerate() {
                let table = &tables[(2 * v + nth) / planes * bytes..][..bytes];
                let flip = signs.map(|signs| flip(signs));
                signs = signs.map(|signs| next(signs));
                if WIDE {
                    found.add_wide(table, indexes, flip);
                } else {
                    found.add_narrow(table, indexes, flip);
                }
            }
        }
    }
    let [even, odd] = if WIDE {
        found.wide_rows()
    } else {
        found.narrow_rows(UNIT * units.len())
    };
    let (eights, _) = sums.as_chunks_mut::<8>();
    let halves = [
        _mm256_castsi256_si128(even),
        _mm256_extracti128_si256::<1>(even),
        _mm256_castsi256_si128(odd),
        _mm256_extracti128_si256::<1>(odd),
    ];
    for i in 0..4 {
        let sum = _mm256_add_epi32(load_i32(&eights[i]), _mm256_cvtepi16_epi32(halves[i]));
        store_i32(&mut eights[i], sum);
    }
}

/// All ones where the sign is set.
#[inline]
#[target_feature(enable = "avx2")]
fn flip(signs: __m256i) -> __m256i {
    _mm256_cmpgt_epi8(_mm256_setzero_si256(), signs)
}

/// The signs of the next index.
#[inline]
#[target_feature(enable = "avx2")]
fn next(signs: __m256i) -> __m256i {
    _mm256_add_epi8(signs, signs)
}

/// What was found so far, modulo 2¹⁶, in words of two rows.
#[derive(Clone, Copy)]
struct Found {
    /// Low bytes of the even rows' entries, and 256 times those of the odd rows'.
    both: __m256i,
    /// Low bytes of the odd rows' entries.
    odd: __m256i,
    /// High bytes, modulo 2⁸.
    high: __m256i,
}

impl Found {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn zero() -> Self {
        let zero = _mm256_setzero_si256();
        Self {
            both: zero,
            odd: zero,
            high: zero,
        }
    }

    /// Adds entries of i16, complemented where `flip` is all ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_wide(&mut self, table: &[u8], indexes: __m256i, flip: Option<__m256i>) {
        let (low, high) = table.split_at(ENTRIES);
        self.add_narrow(low, indexes, flip);
        self.high = _mm256_add_epi8(self.high, look_up(high, indexes, flip));
    }

    /// Adds entries of a byte.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_narrow(&mut self, table: &[u8], indexes: __m256i, flip: Option<__m256i>) {
        let entries = look_up(table, indexes, flip);
        self.both = _mm256_add_epi16(self.both, entries);
        self.odd = _mm256_add_epi16(self.odd, _mm256_srli_epi16::<8>(entries));
    }

    /// Returns the sums of low bytes, even rows and odd ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn low(self) -> [__m256i; 2] {
        let even = _mm256_sub_epi16(self.both, _mm256_slli_epi16::<8>(self.odd));
        [even, self.odd]
    }

    /// Returns the sums of i16 entries, even rows and odd ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn wide_rows(self) -> [__m256i; 2] {
        let [even, odd] = self.low();
        let upper = _mm256_set1_epi16(0xff00_u16.cast_signed());
        [
            _mm256_add_epi16(even, _mm256_slli_epi16::<8>(self.high)),
            _mm256_add_epi16(odd, _mm256_and_si256(self.high, upper)),
        ]
    }

    /// Returns the sums of byte entries, each of which was stored 128 too great.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow_rows(self, n_entries: usize) -> [__m256i; 2] {
        let excess = _mm256_set1_epi16((128 * n_entries as u16).cast_signed());
        let [even, odd] = self.low();
        [
            _mm256_sub_epi16(even, excess),
            _mm256_sub_epi16(odd, excess),
        ]
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: &[u8], indexes: __m256i, flip: Option<__m256i>) -> __m256i {
    let table: &[u8; ENTRIES] = table.first_chunk().expect("a table is that long");
    // SAFETY: `table` is 16 readable bytes, and loadu asks no alignment.
    let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
    let entries = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), indexes);
    match flip {
        Some(flip) => _mm256_xor_si256(entries, flip),
        None => entries,
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_i32(values: &[i32; 8]) -> __m256i {
    // SAFETY: `values` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_i32(values: &mut [i32; 8], lanes: __m256i) {
    // SAFETY: `values` is 32 writable bytes, and storeu asks no alignment.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), lanes) }
}
