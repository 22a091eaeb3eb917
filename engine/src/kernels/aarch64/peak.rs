//! The int8 multiply-adds a core can do, out of registers: in assembly, since a compiler would see
//! that nothing comes of them.

use std::arch::asm;

/// Defines a function that adds products to 12 sums `turns` times, to the even ones by one
/// instruction and to the odd ones by another, and returns the multiply-adds; 12 hide the latency.
///
/// An instruction is given as its name and what follows its first operand, the sum.
macro_rules! peak {
    ($(#[$attribute:meta])* $name:ident, $products:literal, $even:tt, $odd:tt) => {
        peak!(
            $(#[$attribute])* $name, $products, $even, $odd,
            a0 a1, a2 a3, a4 a5, a6 a7, a8 a9, a10 a11
        );
    };
    (
        $(#[$attribute:meta])* $name:ident, $products:literal,
        ($even:literal, $even_operands:literal), ($odd:literal, $odd_operands:literal),
        $($a:ident $b:ident),+
    ) => {
        $(#[$attribute])*
        pub(super) fn $name(turns: u64) -> u64 {
            if turns == 0 {
                return 0;
            }
            // SAFETY: the features are enabled, and only the registers named are written; no memory
            // is touched.
            unsafe {
                asm!(
                    "movi {w:v}.16b, #1",
                    "2:",
                    $(
                        concat!($even, " {", stringify!($a), ":v}", $even_operands),
                        concat!($odd, " {", stringify!($b), ":v}", $odd_operands),
                    )+
                    "subs {n}, {n}, #1",
                    "b.ne 2b",
                    w = out(vreg) _,
                    $($a = out(vreg) _, $b = out(vreg) _,)+
                    n = inout(reg) turns => _,
                    options(nomem, nostack),
                );
            }
            turns * 12 * $products
        }
    };
}

peak!(
    /// `smlal` on 8 bytes, as the NEON tile has it.
    #[target_feature(enable = "neon")]
    neon,
    8,
    ("smlal", ".8h, {w:v}.8b, {w:v}.8b"),
    ("smlal2", ".8h, {w:v}.16b, {w:v}.16b")
);

peak!(
    /// `sdot` on 16 bytes, as the `dotprod` tile has it.
    #[target_feature(enable = "neon,dotprod")]
    dotprod,
    16,
    ("sdot", ".4s, {w:v}.16b, {w:v}.16b"),
    ("sdot", ".4s, {w:v}.16b, {w:v}.16b")
);

peak!(
    /// `smmla` on two by two times 8 bytes, as the `i8mm` tile has it.
    #[target_feature(enable = "neon,i8mm")]
    i8mm,
    32,
    ("smmla", ".4s, {w:v}.16b, {w:v}.16b"),
    ("smmla", ".4s, {w:v}.16b, {w:v}.16b")
);
