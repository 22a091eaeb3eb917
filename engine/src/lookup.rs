//! Ternary matrices packed for look-up tables, the other family of kernels in the literature.
//!
//! A product with such a matrix multiplies nothing. The activations of a *group* of columns have a
//! table of all sums that trits can make of them; what a matrix stores of a row's trits is which
//! entry to add. Three ways of packing are told apart:
//!
//! - **TL1** (arXiv 2502.11880, section 3): two columns, an index of 4 bits for 9 sums; 2 bits a
//!   weight.
//! - **TL2** (the same): three columns, 27 sums, of which one of each pair `s`, `−s` is stored: an
//!   index of 4 bits for 14 sums, and a bit for the sign; 1.67 bits a weight.
//! - **T-MAC** (arXiv 2407.00088): a matrix is a sum of matrices of one bit, each of which looks up
//!   the same table, 16 sums `±x` of four columns; 2 bits a weight. Of ternary weights the bits are
//!   `w >= 0` and `w > 0`: with `1` and `−1` for them, `w` is half of their sum.
//!
//! The layouts are our own, in the order in which they are read; see [`LookupMatrix`].

use std::thread;

use crate::{
    kernels::{KernelChoice, KernelError},
    load::LoadedModel,
    quant::i2_s,
    weights::{
        AlignedBytes, Bytes, Layer, Matrix, TERNARY_BLOCK, TERNARY_BLOCK_BYTES, TERNARY_GROUP,
        TernaryMatrix, TernaryScale, Weights, ZERO_CODES,
    },
};

/// Rows whose indexes lie together.
pub const TILE: usize = 32;
/// Indexes of a row in a unit.
pub const UNIT: usize = 8;

/// How trits become indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Pairs of columns.
    Tl1,
    /// Triples of columns, the sign apart.
    Tl2,
    /// Four columns, two planes of bits.
    Tmac,
}

impl Packing {
    /// All ways of packing.
    pub const ALL: [Self; 3] = [Self::Tl1, Self::Tl2, Self::Tmac];

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tl1 => "tl1",
            Self::Tl2 => "tl2",
            Self::Tmac => "tmac",
        }
    }

    /// Returns the columns that share a table.
    pub const fn group(self) -> usize {
        match self {
            Self::Tl1 => 2,
            Self::Tl2 => 3,
            Self::Tmac => 4,
        }
    }

    /// Returns how many entries of a table are added for a group.
    pub const fn planes(self) -> usize {
        match self {
            Self::Tl1 | Self::Tl2 => 1,
            Self::Tmac => 2,
        }
    }

    /// Returns what a sum of entries is to be divided by.
    pub const fn divisor(self) -> i16 {
        match self {
            Self::Tl1 | Self::Tl2 => 1,
            Self::Tmac => 2,
        }
    }

    /// Returns the tables that a unit's indexes look up.
    pub const fn unit_groups(self) -> usize {
        UNIT / self.planes()
    }

    /// Returns the columns of a unit.
    pub const fn unit_cols(self) -> usize {
        self.unit_groups() * self.group()
    }

    /// Returns the bytes of a unit of a tile: nibbles, and the plane of signs if there is one.
    pub const fn unit_bytes(self) -> usize {
        TILE * UNIT / 2
            + match self {
                Self::Tl2 => TILE * UNIT / 8,
                Self::Tl1 | Self::Tmac => 0,
            }
    }

    /// Returns the units of a block: the sum of the greatest entries fits in an i16.
    ///
    /// An entry is at most 256, 384, and 512; 120, 80, and 56 are added.
    pub const fn block_units(self) -> usize {
        match self {
            Self::Tl1 => 15,
            Self::Tl2 => 10,
            Self::Tmac => 7,
        }
    }

    /// Returns the units of a row of `cols` weights.
    pub const fn units(self, cols: usize) -> usize {
        cols.div_ceil(self.unit_cols())
    }

    /// Returns the tables of a row of `cols` weights.
    pub const fn groups(self, cols: usize) -> usize {
        self.units(cols) * self.unit_groups()
    }

    /// Returns the weights in an entry's sum, one for each column of the group.
    ///
    /// TL1: the index is `3 (w0 + 1) + w1 + 1`. TL2: of a sum or its negation the one is stored
    /// whose `9 w0 + 3 w1 + w2` is not negative, and that is the index. T-MAC: bit `i` says `+x_i`.
    pub const fn entry(self, index: usize) -> [i16; 4] {
        match self {
            Self::Tl1 if index < 9 => [trit(index / 3), trit(index % 3), 0, 0],
            Self::Tl2 if index < 14 => {
                let codes = index + 13;
                [trit(codes / 9), trit(codes / 3 % 3), trit(codes % 3), 0]
            }
            Self::Tl1 | Self::Tl2 => [0; 4],
            Self::Tmac => [
                2 * trit(index & 1) + 1,
                2 * trit(index >> 1 & 1) + 1,
                2 * trit(index >> 2 & 1) + 1,
                2 * trit(index >> 3 & 1) + 1,
            ],
        }
    }
}

/// Returns the trit of a code.
const fn trit(code: usize) -> i16 {
    [-1, 0, 1][code]
}

/// What an entry of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    /// The sum itself, in 16 bits: products are exact.
    I16,
    /// The sum rounded to a 127th of the token's greatest, in 8 bits, as T-MAC and the kernels
    /// `TL1_0` and `TL2_0` of bitnet.cpp have it: products are not exact.
    I8,
}

/// A kind of look-up product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// How the weights are packed.
    pub packing: Packing,
    /// What the tables hold.
    pub entries: Entries,
}

impl Lookup {
    /// Returns whether products are those of multiplication, to the bit.
    pub const fn is_lossless(self) -> bool {
        matches!(self.entries, Entries::I16)
    }
}

/// A `(rows, cols)` matrix of trits as indexes of tables.
///
/// Rows are taken in tiles of 32, the columns in units of 8 indexes, and units in blocks
/// ([`Packing::block_units`]). Their order is `(blocks, rows / 32, units of the block)`: while a
/// block's tables are in L1, all rows stream past them. The number of rows is padded to whole tiles
/// and that of columns to whole units, with zeros.
///
/// A unit is four vectors of 32 bytes; vector `v` holds the indexes `2 v` and `2 v + 1`, low nibble
/// and high, of each row. Behind them TL2 has a vector of signs: bit `7 − n` says that index `n` is
/// to be subtracted. T-MAC's indexes are the planes `w >= 0` and `w > 0` of one group, then of the
/// next. In every vector byte `b` belongs to row `b / 2 + 16 (b % 2)` of the tile: the even bytes
/// are rows 0 to 15, so that sums which were widened byte from byte are in order.
#[derive(Clone, Debug)]
pub struct LookupMatrix {
    /// Outputs.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) cols: usize,
    /// How the trits are packed.
    pub(crate) packing: Packing,
    /// What a trit of 1 is worth.
    pub(crate) scale: f32,
    codes: Bytes,
    // TL2: how many signs each row has, `(rows)`; empty otherwise.
    negatives: Vec<i32>,
}

impl LookupMatrix {
    /// Returns the bytes of a matrix's indexes and signs, the padding included.
    pub const fn code_bytes(rows: usize, cols: usize, packing: Packing) -> usize {
        rows.div_ceil(TILE) * packing.units(cols) * packing.unit_bytes()
    }

    /// Packs a matrix on all CPUs, `None` if its blocks have scales of their own.
    ///
    /// Those are told apart by 256 columns, which are no whole number of triples; hardly a file has
    /// them.
    pub fn pack(matrix: &TernaryMatrix, packing: Packing) -> Option<Self> {
        let TernaryMatrix {
            rows,
            cols,
            codes: _,
            scale,
        } = matrix;
        let (&rows, &cols) = (rows, cols);
        let TernaryScale::Tensor(scale) = *scale else {
            return None;
        };
        let mut codes = AlignedBytes::for_weights(Self::code_bytes(rows, cols, packing));
        let mut negatives = match packing {
            Packing::Tl2 => vec![0; rows.next_multiple_of(TILE)],
            Packing::Tl1 | Packing::Tmac => Vec::new(),
        };
        let units = packing.units(cols);
        let mut tiles: Vec<Tile<'_>> = (0..rows.div_ceil(TILE)).map(Tile::new).collect();
        let mut rest = codes.as_mut_slice();
        for first in (0..units).step_by(packing.block_units()) {
            let bytes = packing.block_units().min(units - first) * packing.unit_bytes();
            for tile in &mut tiles {
                let (part, others) = rest.split_at_mut(bytes);
                tile.blocks.push(part);
                rest = others;
            }
        }
        for (tile, negatives) in tiles.iter_mut().zip(negatives.chunks_mut(TILE)) {
            tile.negatives = negatives;
        }
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let mut parts = tiles.chunks_mut(rows.div_ceil(TILE).div_ceil(cpus).max(1));
            let own = parts.next();
            let work = |tiles: &mut [Tile<'_>]| {
                let mut transposed = Vec::new();
                for tile in tiles {
                    transpose(matrix, tile.nth, packing, &mut transposed);
                    pack_tile(packing, &transposed, tile);
                }
            };
            for tiles in parts {
                scope.spawn(move || work(tiles));
            }
            if let Some(tiles) = own {
                work(tiles);
            }
        });
        drop(tiles);
        negatives.truncate(rows);
        Some(Self {
            rows,
            cols,
            packing,
            scale,
            codes: Bytes::Owned(codes.into()),
            negatives,
        })
    }

    /// Returns the matrix in the layout of multiplying kernels.
    pub fn unpack(&self) -> TernaryMatrix {
        let row_bytes = TernaryMatrix::row_bytes(self.cols);
        let mut codes = vec![0; self.rows * row_bytes];
        for (row, codes) in codes.chunks_exact_mut(row_bytes).enumerate() {
            i2_s::pack_row(&self.trits(row), codes);
        }
        TernaryMatrix::from_i2_s_rows(
            self.rows,
            self.cols,
            &codes,
            TernaryScale::Tensor(self.scale),
        )
    }

    /// Returns the bytes of indexes, signs and what belongs to them.
    pub fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(&self.negatives[..]) + size_of_val(&self.scale)
    }

    /// Returns the units of one tile in a block.
    ///
    /// # Panics
    /// If there is no such block or tile.
    #[inline]
    pub fn block(&self, block: usize, tile: usize) -> &[u8] {
        let first = block * self.packing.block_units();
        let units = (self.packing.units(self.cols) - first).min(self.packing.block_units());
        let tiles = self.rows.div_ceil(TILE);
        assert!(tile < tiles, "a tile of the matrix");
        let unit = self.packing.unit_bytes();
        &self.codes[(first * tiles + tile * units) * unit..][..units * unit]
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> usize {
        self.packing
            .units(self.cols)
            .div_ceil(self.packing.block_units())
    }

    /// Returns how many of a row's entries are subtracted.
    #[inline]
    pub fn negatives(&self, row: usize) -> i32 {
        self.negatives.get(row).copied().unwrap_or(0)
    }

    /// Returns a row's `nth` index, and whether its entry is to be subtracted.
    ///
    /// # Panics
    /// If there is no such row or index.
    pub fn index(&self, row: usize, nth: usize) -> (usize, bool) {
        assert!(row < self.rows, "a row of the matrix");
        let (unit, n) = (nth / UNIT, nth % UNIT);
        let block = self.block(unit / self.packing.block_units(), row / TILE);
        let in_block = unit % self.packing.block_units();
        let unit = &block[in_block * self.packing.unit_bytes()..][..self.packing.unit_bytes()];
        let byte = place(row % TILE);
        let (vectors, _) = unit.as_chunks::<TILE>();
        let index = vectors[n / 2][byte] >> (4 * (n % 2)) & 15;
        let negative = vectors
            .get(UNIT / 2)
            .is_some_and(|signs| signs[byte] << n & 0x80 != 0);
        (usize::from(index), negative)
    }

    /// Returns the trits of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn trits(&self, row: usize) -> Vec<i8> {
        let planes = self.packing.planes();
        let groups = 0..self.cols.div_ceil(self.packing.group());
        let trits = groups.flat_map(|group| {
            let mut sums = [0; 4];
            for plane in 0..planes {
                let (index, negative) = self.index(row, group * planes + plane);
                for (sum, weight) in sums.iter_mut().zip(self.packing.entry(index)) {
                    *sum += if negative { -weight } else { weight };
                }
            }
            let trits = sums.map(|sum| (sum / self.packing.divisor()) as i8);
            trits.into_iter().take(self.packing.group())
        });
        trits.take(self.cols).collect()
    }
}

/// Where the packed form of 32 rows goes.
struct Tile<'a> {
    nth: usize,
    blocks: Vec<&'a mut [u8]>,
    negatives: &'a mut [i32],
}

impl Tile<'_> {
    fn new(nth: usize) -> Self {
        Self {
            nth,
            blocks: Vec::new(),
            negatives: &mut [],
        }
    }
}

/// Returns the byte of a vector that belongs to a row of the tile.
const fn place(row: usize) -> usize {
    2 * (row % 16) + row / 16
}

/// Codes of one column, in the order of a vector's bytes.
type Column = [u8; TILE];

/// Unpacks a tile to `(cols, 32)` codes; rows and columns that are missing become zeros.
fn transpose(matrix: &TernaryMatrix, tile: usize, packing: Packing, out: &mut Vec<Column>) {
    out.clear();
    let cols = (packing.units(matrix.cols) * packing.unit_cols()).max(matrix.cols);
    out.resize(cols.next_multiple_of(TERNARY_BLOCK), [0; TILE]);
    let (blocks, _) = out.as_chunks_mut::<TERNARY_BLOCK>();
    let rows = tile * TILE..matrix.rows.min((tile + 1) * TILE);
    for (nth, block) in blocks.iter_mut().enumerate() {
        // Bytes before their four codes are taken apart: a quarter of the moves.
        let mut packed = [[ZERO_CODES; TILE]; TERNARY_BLOCK_BYTES];
        if nth < matrix.cols.div_ceil(TERNARY_BLOCK) {
            for row in rows.clone() {
                let bytes = &matrix.group(row / TERNARY_GROUP)[nth][row % TERNARY_GROUP];
                let place = place(row % TILE);
                for (packed, byte) in packed.iter_mut().zip(bytes) {
                    packed[place] = *byte;
                }
            }
        }
        for (plane, columns) in block.chunks_exact_mut(TERNARY_BLOCK_BYTES).enumerate() {
            for (column, packed) in columns.iter_mut().zip(&packed) {
                for (code, packed) in column.iter_mut().zip(packed) {
                    *code = packed >> (6 - 2 * plane) & 3;
                }
            }
        }
    }
}

fn pack_tile(packing: Packing, columns: &[Column], tile: &mut Tile<'_>) {
    let mut units = columns.chunks_exact(packing.unit_cols());
    for block in &mut tile.blocks {
        for (out, columns) in block.chunks_exact_mut(packing.unit_bytes()).zip(&mut units) {
            let (vectors, _) = out.as_chunks_mut::<TILE>();
            match packing {
                Packing::Tl1 => pack_pairs(columns, vectors),
                Packing::Tl2 => pack_triples(columns, vectors, tile.negatives),
                Packing::Tmac => pack_planes(columns, vectors),
            }
        }
    }
}

fn pack_pairs(columns: &[Column], vectors: &mut [Column]) {
    let (fours, _) = columns.as_chunks::<4>();
    for (vector, [a, b, c, d]) in vectors.iter_mut().zip(fours) {
        for byte in 0..TILE {
            let low = 3 * a[byte] + b[byte];
            let high = 3 * c[byte] + d[byte];
            vector[byte] = low | high << 4;
        }
    }
}

fn pack_triples(columns: &[Column], vectors: &mut [Column], negatives: &mut [i32]) {
    let (triples, _) = columns.as_chunks::<3>();
    for (n, [a, b, c]) in triples.iter().enumerate() {
        let mut indexes = [0; TILE];
        let mut signs = [0; TILE];
        for byte in 0..TILE {
            let sum = 9 * a[byte] + 3 * b[byte] + c[byte];
            signs[byte] = u8::from(sum < 13);
            indexes[byte] = sum.abs_diff(13);
        }
        for byte in 0..TILE {
            vectors[n / 2][byte] |= indexes[byte] << (4 * (n % 2));
            vectors[UNIT / 2][byte] |= signs[byte] << (7 - n);
        }
        for (row, negatives) in negatives.iter_mut().enumerate() {
            *negatives += i32::from(signs[place(row)]);
        }
    }
}

fn pack_planes(columns: &[Column], vectors: &mut [Column]) {
    let (fours, _) = columns.as_chunks::<4>();
    for (vector, columns) in vectors.iter_mut().zip(fours) {
        for (bit, column) in columns.iter().enumerate() {
            for byte in 0..TILE {
                let planes = u8::from(column[byte] >= 1) | u8::from(column[byte] == 2) << 4;
                vector[byte] |= planes << bit;
            }
        }
    }
}

impl Weights {
    /// Packs all ternary matrices for a kernel: of either layout one copy stays.
    ///
    /// Matrices with scales of their own for each 256 weights keep the layout of multiplication.
    pub fn pack(&mut self, packing: Option<Packing>) {
        for linear in self.layers.iter_mut().flat_map(Layer::linears_mut) {
            if let Matrix::Lookup(matrix) = &linear.matrix
                && Some(matrix.packing) != packing
            {
                linear.matrix = Matrix::Ternary(matrix.unpack());
            }
            if let Matrix::Ternary(matrix) = &linear.matrix
                && let Some(packing) = packing
                && let Some(matrix) = LookupMatrix::pack(matrix, packing)
            {
                linear.matrix = Matrix::Lookup(matrix);
            }
        }
    }
}

impl LoadedModel {
    /// Packs the weights as a kernel reads them, which is what [`source`](Self::source) then says.
    ///
    /// An engine does it itself; several engines of one model then share the one copy.
    pub fn pack(&mut self, kernel: &KernelChoice) -> Result<(), KernelError> {
        let lookup = kernel.lookup()?;
        self.weights.pack(lookup.map(|lookup| lookup.packing));
        let linears = || self.weights.layers.iter().flat_map(Layer::linears);
        let bytes: u64 = linears().map(|linear| linear.matrix.bytes()).sum();
        let mut formats: Vec<_> = linears().map(|linear| linear.matrix.format()).collect();
        formats.sort_unstable();
        formats.dedup();
        let source = &mut self.source;
        source.linear_format = formats.join("+");
        source.weight_bytes = source.weight_bytes - source.linear_weight_bytes + bytes;
        source.linear_weight_bytes = bytes;
        source.bits_per_weight = 8.0 * bytes as f64 / source.n_linear_params.max(1) as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{TestRng, pack_ternary, random_ternary};

    #[test]
    fn bits_a_weight_are_those_of_the_papers() {
        for (packing, expected) in [
            (Packing::Tl1, 2.0),
            (Packing::Tl2, 5.0 / 3.0),
            (Packing::Tmac, 2.0),
        ] {
            // Whole units: 6912 is a multiple of 16 and of 24.
            let bytes = LookupMatrix::code_bytes(2560, 6912, packing);
            let bits = 8.0 * bytes as f64 / (2560.0 * 6912.0);
            assert!((bits - expected).abs() < 1e-12, "{packing:?}: {bits}");
        }
    }

    #[test]
    fn the_sums_of_a_block_fit_in_16_bits() {
        for packing in Packing::ALL {
            let greatest = (0..16)
                .map(|index| packing.entry(index).map(i16::abs).iter().sum::<i16>())
                .max();
            assert_eq!(greatest.map(usize::try_from), Some(Ok(packing.group())));
            let sum = packing.block_units() * UNIT * packing.group() * 128;
            assert!(i16::try_from(sum).is_ok(), "{packing:?}: {sum}");
        }
    }

    #[test]
    fn every_group_of_trits_has_an_entry() {
        for packing in Packing::ALL {
            let n = packing.group();
            let rows = 3_usize.pow(n as u32);
            let trits: Vec<i8> = (0..rows)
                .flat_map(|row| (0..n).map(move |i| (row / 3_usize.pow(i as u32) % 3) as i8 - 1))
                .collect();
            let matrix = pack_ternary(&trits, rows, n, TernaryScale::Tensor(1.0));
            let packed = LookupMatrix::pack(&matrix, packing).unwrap();
            for (row, trits) in trits.chunks_exact(n).enumerate() {
                assert_eq!(packed.trits(row), trits, "{packing:?}");
            }
        }
    }

    #[test]
    fn blocks_with_scales_of_their_own_are_not_packed() {
        let matrix = random_ternary(&mut TestRng::new(1), 3, 300, true);
        assert!(LookupMatrix::pack(&matrix, Packing::Tl1).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn matrices_of_any_shape_read_back(
            seed: u64,
            rows in 1_usize..100,
            cols in 1_usize..700,
        ) {
            let matrix = random_ternary(&mut TestRng::new(seed), rows, cols, false);
            for packing in Packing::ALL {
                let packed = LookupMatrix::pack(&matrix, packing).unwrap();
                prop_assert_eq!(packed.unpack().i2_s_rows(), matrix.i2_s_rows());
                for row in 0..rows {
                    let signs = (0..packing.groups(cols) * packing.planes())
                        .filter(|&nth| packed.index(row, nth).1);
                    prop_assert_eq!(usize::try_from(packed.negatives(row)), Ok(signs.count()));
                }
            }
        }
    }
}
