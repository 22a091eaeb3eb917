//! The tables of tokens: what their activations add up to, group by group.

use crate::{
    kernels::{Activations, rescale},
    lookup::{Entries, Lookup, Packing},
    weights::AlignedBytes,
};

/// Entries of a table; those without a meaning are 0.
pub(crate) const ENTRIES: usize = 16;

/// Tables of some tokens, `(tokens, groups)`.
///
/// A table of i16 is 16 low bytes and then 16 high ones, as shuffles of bytes look them up; one of
/// i8 is 16 bytes, 128 added to each: bytes without sign are widened in sums of two rows. Groups are
/// padded to whole units of the packing.
#[derive(Debug)]
pub struct Tables {
    lookup: Lookup,
    // Tokens of the activations from here on.
    first: usize,
    groups: usize,
    bytes: AlignedBytes,
    // (tokens), of the activations
    scales: Vec<f32>,
    // (tokens), what an entry of 1 is worth; read where entries are rounded
    steps: Vec<f32>,
}

/// Where the tables of one token go.
#[derive(Debug)]
pub struct TablesRow<'a> {
    /// What kind they are of.
    pub lookup: Lookup,
    /// The token, of the activations.
    pub token: usize,
    /// The tables.
    pub bytes: &'a mut [u8],
    /// The scale of the activations.
    pub scale: &'a mut f32,
    /// What an entry of 1 is worth.
    pub step: &'a mut f32,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            lookup: Lookup {
                packing: Packing::Tl1,
                entries: Entries::I16,
            },
            first: 0,
            groups: 0,
            bytes: AlignedBytes::zeroed(0),
            scales: Vec::new(),
            steps: Vec::new(),
        }
    }
}

/// Returns the bytes of a table.
pub(crate) const fn table_bytes(entries: Entries) -> usize {
    match entries {
        Entries::I16 => 2 * ENTRIES,
        Entries::I8 => ENTRIES,
    }
}

impl Tables {
    /// Makes room for the tables of tokens `first..first + tokens`; what was held is forgotten.
    pub fn reshape(&mut self, lookup: Lookup, first: usize, tokens: usize, cols: usize) {
        self.lookup = lookup;
        self.first = first;
        self.groups = lookup.packing.groups(cols);
        self.scales.resize(tokens, 0.0);
        self.steps.resize(tokens, 0.0);
        let bytes = tokens * self.token_bytes();
        if self.bytes.len() < bytes {
            self.bytes = AlignedBytes::zeroed(bytes);
        }
    }

    fn token_bytes(&self) -> usize {
        self.groups * table_bytes(self.lookup.entries)
    }

    /// Returns the tokens' places in order, for writing.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = TablesRow<'_>> {
        let bytes = self.token_bytes().max(1);
        let (lookup, first) = (self.lookup, self.first);
        self.bytes
            .as_mut_slice()
            .chunks_exact_mut(bytes)
            .zip(&mut self.scales)
            .zip(&mut self.steps)
            .enumerate()
            .map(move |(nth, ((bytes, scale), step))| TablesRow {
                lookup,
                token: first + nth,
                bytes,
                scale,
                step,
            })
    }

    /// Returns what kind of tables these are.
    pub fn lookup(&self) -> Lookup {
        self.lookup
    }

    /// Returns the first token that has tables, of those of the activations.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Returns how many tokens have tables.
    pub fn tokens(&self) -> usize {
        self.scales.len()
    }

    /// Returns the tables of the `nth` token.
    #[inline]
    pub(crate) fn token(&self, nth: usize) -> &[u8] {
        &self.bytes[nth * self.token_bytes()..][..self.token_bytes()]
    }

    /// Returns one entry.
    pub(crate) fn entry(&self, token: usize, group: usize, index: usize) -> i32 {
        let size = table_bytes(self.lookup.entries);
        let table = &self.token(token)[group * size..][..size];
        match self.lookup.entries {
            Entries::I16 => {
                let bytes = [table[index], table[ENTRIES + index]];
                i32::from(i16::from_le_bytes(bytes))
            }
            Entries::I8 => i32::from(table[index]) - 128,
        }
    }

    /// Returns what a sum of entries is worth: of exact ones the same as the product's, to the bit.
    #[inline(always)]
    pub(crate) fn value(&self, token: usize, sum: i32, weight_scale: f32) -> f32 {
        let scale = self.scales[token];
        match self.lookup.entries {
            // A sum over two planes is even.
            Entries::I16 => {
                let dot = sum / i32::from(self.lookup.packing.divisor());
                rescale(dot, 0, scale, weight_scale)
            }
            Entries::I8 => sum as f32 * self.steps[token] / scale * weight_scale,
        }
    }
}

/// Makes the tables of a token.
#[inline(always)]
pub(crate) fn make(input: &Activations, mut row: TablesRow<'_>) {
    let codes = input.codes(row.token);
    *row.scale = input.scale(row.token);
    match row.lookup.packing {
        Packing::Tl1 => of_groups(&const { weights::<2>(Packing::Tl1) }, codes, &mut row),
        Packing::Tl2 => of_groups(&const { weights::<3>(Packing::Tl2) }, codes, &mut row),
        Packing::Tmac => of_groups(&const { weights::<4>(Packing::Tmac) }, codes, &mut row),
    }
}

/// The weights of a group's columns in each entry, column by column.
type EntryWeights<const N: usize> = [[i16; ENTRIES]; N];

const fn weights<const N: usize>(packing: Packing) -> EntryWeights<N> {
    let mut weights = [[0; ENTRIES]; N];
    let mut index = 0;
    while index < ENTRIES {
        let entry = packing.entry(index);
        let mut column = 0;
        while column < N {
            weights[column][index] = entry[column];
            column += 1;
        }
        index += 1;
    }
    weights
}

#[inline(always)]
fn of_groups<const N: usize>(weights: &EntryWeights<N>, codes: &[i8], row: &mut TablesRow<'_>) {
    let (groups, rest) = codes.as_chunks::<N>();
    let mut last = [0; N];
    last[..rest.len()].copy_from_slice(rest);
    match row.lookup.entries {
        Entries::I16 => {
            *row.step = 1.0;
            let (tables, _) = row.bytes.as_chunks_mut::<{ 2 * ENTRIES }>();
            fill(tables, groups, &last, |table, group| {
                let sums = sums(weights, group);
                for index in 0..ENTRIES {
                    let [low, high] = sums[index].to_le_bytes();
                    table[index] = low;
                    table[ENTRIES + index] = high;
                }
            });
        }
        Entries::I8 => {
            // In every packing one entry has the signs of its columns, or their opposites.
            let absolute = |group: &[i8; N]| group.iter().map(|x| i16::from(*x).abs()).sum();
            let greatest = groups.iter().map(absolute).fold(absolute(&last), i16::max);
            let greatest = f32::from(greatest.max(1));
            *row.step = greatest / (127.0 * f32::from(row.lookup.packing.divisor()));
            let per_step = 127.0 / greatest;
            // Adding it leaves a rounded number, half to even, and 128 in the lowest byte.
            let rounding = 12_582_912.0 + 128.0;
            let (tables, _) = row.bytes.as_chunks_mut::<ENTRIES>();
            fill(tables, groups, &last, |table, group| {
                let sums = sums(weights, group);
                for index in 0..ENTRIES {
                    let rounded = f32::from(sums[index]) * per_step + rounding;
                    table[index] = rounded.to_bits() as u8;
                }
            });
        }
    }
}

/// Makes a table of each group; behind the columns of the matrix all activations are zero.
#[inline(always)]
fn fill<T, const N: usize>(
    tables: &mut [T],
    groups: &[[i8; N]],
    last: &[i8; N],
    make: impl Fn(&mut T, &[i8; N]),
) {
    let n = tables.len().min(groups.len());
    let (whole, others) = tables.split_at_mut(n);
    for (table, group) in whole.iter_mut().zip(groups) {
        make(table, group);
    }
    for (nth, table) in others.iter_mut().enumerate() {
        make(table, if nth == 0 { last } else { &[0; N] });
    }
}

/// All sums of a group: each at most 4 · 128.
#[inline(always)]
fn sums<const N: usize>(weights: &EntryWeights<N>, group: &[i8; N]) -> [i16; ENTRIES] {
    let mut sums = [0; ENTRIES];
    for index in 0..ENTRIES {
        for column in 0..N {
            sums[index] += weights[column][index] * i16::from(group[column]);
        }
    }
    sums
}
