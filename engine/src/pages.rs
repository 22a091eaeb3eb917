//! Memory for weights: regions in huge pages, given out piece by piece.
//!
//! A buffer of its own begins and ends within a huge page, which the system then leaves in small
//! ones: of matrices of 4 MiB half of the bytes, of smaller ones all. Weights made one after the
//! other lie side by side here, in the order in which the layers stream them, and every byte is in
//! a huge page where the system gives such pages at all.
#![expect(
    unsafe_code,
    reason = "pieces of one map are written by their owners, each its own bytes"
)]

use std::{
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use memmap2::{Advice, MmapMut};

/// Bytes of a huge page on x86-64 and, with pages of 4 KiB, on ARM.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a region. The pages behind its last piece are never touched and cost nothing.
const REGION: usize = 64 << 20;
/// A piece begins at a multiple of this: a cache line.
const LINE: usize = 64;

/// A map of which pieces are given out, from the front on.
struct Region {
    // Keeps the memory; read and written through `start` only.
    _map: MmapMut,
    // The first byte, at a huge page's beginning.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the map, which any thread may drop, and each byte of it is reached
// through the one piece it was given to.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; a shared region gives no access to its bytes.
unsafe impl Sync for Region {}

impl Region {
    fn new(len: usize) -> Option<Self> {
        let mut map = MmapMut::map_anon(len.checked_add(HUGE_PAGE)?).ok()?;
        // Without huge pages the region is only slower.
        let _ = map.advise(Advice::HugePage);
        let skip = map.as_ptr().align_offset(HUGE_PAGE);
        let start = NonNull::from(map.get_mut(skip..)?.first_mut()?);
        Some(Self {
            _map: map,
            start,
            len,
        })
    }
}

/// Some bytes of a region, owned. They are zero at first.
pub(crate) struct Piece {
    region: Arc<Region>,
    first: usize,
    len: usize,
}

/// The region that pieces come from, and how much of it is taken.
struct Open {
    // Weak, so that a region goes with the last of its pieces.
    region: Weak<Region>,
    taken: usize,
}

static OPEN: Mutex<Open> = Mutex::new(Open {
    region: Weak::new(),
    taken: 0,
});

impl Piece {
    /// Takes `len` zero bytes, or returns `None` if the system gives no memory this way.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (region, first) = match open.region.upgrade() {
            Some(region) if region.len - open.taken >= len => (region, open.taken),
            _ => {
                let region = Arc::new(Region::new(len.next_multiple_of(REGION))?);
                open.region = Arc::downgrade(&region);
                (region, 0)
            }
        };
        open.taken = (first + len).next_multiple_of(LINE).min(region.len);
        Some(Self { region, first, len })
    }

    /// Returns the bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `zeroed` gave these bytes of the map to this piece alone, they were zero when
        // mapped, and the region lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    /// Returns the bytes for writing.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: `first` is at most the region's length.
        unsafe { self.region.start.add(self.first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_and_apart_whatever_their_sizes() {
        let lens = [1, 63, 64, 65, 4096, 0, 3 << 20, REGION, REGION + 1, 100];
        let mut pieces: Vec<Piece> = lens.map(|len| Piece::zeroed(len).unwrap()).into();
        for (nth, (piece, len)) in (1..).zip(pieces.iter_mut().zip(lens)) {
            assert_eq!(piece.as_slice().len(), len);
            assert_eq!(piece.as_slice().as_ptr().align_offset(LINE), 0);
            assert!(piece.as_slice().iter().all(|&byte| byte == 0));
            piece.as_mut_slice().fill(nth);
        }
        for (nth, piece) in (1..).zip(&pieces) {
            assert!(piece.as_slice().iter().all(|&byte| byte == nth));
        }
    }

    #[test]
    fn threads_take_pieces_at_once() {
        let sums: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=4)
                .map(|value: u8| {
                    scope.spawn(move || {
                        let mut pieces: Vec<_> =
                            (0..50).map(|_| Piece::zeroed(10_000).unwrap()).collect();
                        for piece in &mut pieces {
                            piece.as_mut_slice().fill(value);
                        }
                        let all = pieces.iter().flat_map(Piece::as_slice);
                        all.map(|&byte| u64::from(byte)).sum()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(sums, [500_000, 1_000_000, 1_500_000, 2_000_000]);
    }
}
