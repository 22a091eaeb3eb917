//! The int8 multiply-adds a core can do, out of registers: in assembly, since a compiler would see
//! that nothing comes of them.

use std::arch::asm;

/// `smlal` on 8 bytes, as the NEON tile has it; returns the multiply-adds.
#[target_feature(enable = "neon")]
pub(super) fn neon(turns: u64) -> u64 {
    const PRODUCTS: u64 = 12 * 8;
    if turns == 0 {
        return 0;
    }
    // SAFETY: the features are enabled, and only the registers named are written; no memory is
    // touched.
    unsafe {
        asm!(
            "movi {w:v}.16b, #1",
            "2:",
            "smlal {a0:v}.8h, {w:v}.8b, {w:v}.8b",
            "smlal2 {a1:v}.8h, {w:v}.16b, {w:v}.16b",
            "smlal {a2:v}.8h, {w:v}.8b, {w:v}.8b",
            "smlal2 {a3:v}.8h, {w:v}.16b, {w:v}.16b",
            "smlal {a4:v}.8h, {w:v}.8b, {w:v}.8b",
            "smlal2 {a5:v}.8h, {w:v}.16b, {w:v}.16b",
            "smlal {a6:v}.8h, {w:v}.8b, {w:v}.8b",
            "smlal2 {a7:v}.8h, {w:v}.16b, {w:v}.16b",
            "smlal {a8:v}.8h, {w:v}.8b, {w:v}.8b",
            "smlal2 {a9:v}.8h, {w:v}.16b, {w:v}.16b",
            "smlal {a10:v}.8h, {w:v}.8b, {w:v}.8b",
            "smlal2 {a11:v}.8h, {w:v}.16b, {w:v}.16b",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            w = out(vreg) _,
            a0 = out(vreg) _, a1 = out(vreg) _, a2 = out(vreg) _, a3 = out(vreg) _,
            a4 = out(vreg) _, a5 = out(vreg) _, a6 = out(vreg) _, a7 = out(vreg) _,
            a8 = out(vreg) _, a9 = out(vreg) _, a10 = out(vreg) _, a11 = out(vreg) _,
            n = inout(reg) turns => _,
            options(nomem, nostack),
        );
    }
    turns * PRODUCTS
}

/// `sdot` on 16 bytes, as the `dotprod` tile has it; returns the multiply-adds.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dotprod(turns: u64) -> u64 {
    const PRODUCTS: u64 = 12 * 16;
    if turns == 0 {
        return 0;
    }
    // SAFETY: the features are enabled, and only the registers named are written; no memory is
    // touched.
    unsafe {
        asm!(
            "movi {w:v}.16b, #1",
            "2:",
            "sdot {a0:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a1:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a2:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a3:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a4:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a5:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a6:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a7:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a8:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a9:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a10:v}.4s, {w:v}.16b, {w:v}.16b",
            "sdot {a11:v}.4s, {w:v}.16b, {w:v}.16b",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            w = out(vreg) _,
            a0 = out(vreg) _, a1 = out(vreg) _, a2 = out(vreg) _, a3 = out(vreg) _,
            a4 = out(vreg) _, a5 = out(vreg) _, a6 = out(vreg) _, a7 = out(vreg) _,
            a8 = out(vreg) _, a9 = out(vreg) _, a10 = out(vreg) _, a11 = out(vreg) _,
            n = inout(reg) turns => _,
            options(nomem, nostack),
        );
    }
    turns * PRODUCTS
}

/// `smmla` on two by two times 8 bytes, as the `i8mm` tile has it; returns the multiply-adds.
#[target_feature(enable = "neon,i8mm")]
pub(super) fn i8mm(turns: u64) -> u64 {
    const PRODUCTS: u64 = 12 * 32;
    if turns == 0 {
        return 0;
    }
    // SAFETY: the features are enabled, and only the registers named are written; no memory is
    // touched.
    unsafe {
        asm!(
            "movi {w:v}.16b, #1",
            "2:",
            "smmla {a0:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a1:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a2:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a3:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a4:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a5:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a6:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a7:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a8:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a9:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a10:v}.4s, {w:v}.16b, {w:v}.16b",
            "smmla {a11:v}.4s, {w:v}.16b, {w:v}.16b",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            w = out(vreg) _,
            a0 = out(vreg) _, a1 = out(vreg) _, a2 = out(vreg) _, a3 = out(vreg) _,
            a4 = out(vreg) _, a5 = out(vreg) _, a6 = out(vreg) _, a7 = out(vreg) _,
            a8 = out(vreg) _, a9 = out(vreg) _, a10 = out(vreg) _, a11 = out(vreg) _,
            n = inout(reg) turns => _,
            options(nomem, nostack),
        );
    }
    turns * PRODUCTS
}
