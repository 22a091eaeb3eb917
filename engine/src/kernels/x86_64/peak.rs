//! The int8 multiply-adds a core can do, out of registers: in assembly, since a compiler would see
//! that nothing comes of them.

use std::arch::asm;

/// `vpmaddubsw` and `vpaddw` on 32 bytes, as the AVX2 tile has them; returns the multiply-adds.
#[target_feature(enable = "avx2")]
pub(super) fn avx2(turns: u64) -> u64 {
    const PAIRS: u64 = 6;
    if turns == 0 {
        return 0;
    }
    // SAFETY: AVX2 is enabled, and only the registers named are written; no memory is touched.
    unsafe {
        asm!(
            "vpcmpeqb {w}, {w}, {w}",
            "2:",
            "vpmaddubsw {t0}, {w}, {w}",
            "vpmaddubsw {t1}, {w}, {w}",
            "vpmaddubsw {t2}, {w}, {w}",
            "vpmaddubsw {t3}, {w}, {w}",
            "vpmaddubsw {t4}, {w}, {w}",
            "vpmaddubsw {t5}, {w}, {w}",
            "vpaddw {a0}, {a0}, {t0}",
            "vpaddw {a1}, {a1}, {t1}",
            "vpaddw {a2}, {a2}, {t2}",
            "vpaddw {a3}, {a3}, {t3}",
            "vpaddw {a4}, {a4}, {t4}",
            "vpaddw {a5}, {a5}, {t5}",
            "dec {n}",
            "jnz 2b",
            w = out(ymm_reg) _,
            t0 = out(ymm_reg) _, t1 = out(ymm_reg) _, t2 = out(ymm_reg) _,
            t3 = out(ymm_reg) _, t4 = out(ymm_reg) _, t5 = out(ymm_reg) _,
            a0 = out(ymm_reg) _, a1 = out(ymm_reg) _, a2 = out(ymm_reg) _,
            a3 = out(ymm_reg) _, a4 = out(ymm_reg) _, a5 = out(ymm_reg) _,
            n = inout(reg) turns => _,
            options(nomem, nostack),
        );
    }
    turns * PAIRS * 32
}

/// `vpdpbusd` on 32 bytes, as the AVX-VNNI tile has it; returns the multiply-adds.
#[target_feature(enable = "avx2,avxvnni")]
pub(super) fn avxvnni(turns: u64) -> u64 {
    const PRODUCTS: u64 = 12;
    if turns == 0 {
        return 0;
    }
    // SAFETY: the features are enabled, and only the registers named are written; no memory is
    // touched.
    unsafe {
        asm!(
            "vpxor {w}, {w}, {w}",
            "2:",
            "{{vex}} vpdpbusd {a0}, {w}, {w}",
            "{{vex}} vpdpbusd {a1}, {w}, {w}",
            "{{vex}} vpdpbusd {a2}, {w}, {w}",
            "{{vex}} vpdpbusd {a3}, {w}, {w}",
            "{{vex}} vpdpbusd {a4}, {w}, {w}",
            "{{vex}} vpdpbusd {a5}, {w}, {w}",
            "{{vex}} vpdpbusd {a6}, {w}, {w}",
            "{{vex}} vpdpbusd {a7}, {w}, {w}",
            "{{vex}} vpdpbusd {a8}, {w}, {w}",
            "{{vex}} vpdpbusd {a9}, {w}, {w}",
            "{{vex}} vpdpbusd {a10}, {w}, {w}",
            "{{vex}} vpdpbusd {a11}, {w}, {w}",
            "dec {n}",
            "jnz 2b",
            w = out(ymm_reg) _,
            a0 = out(ymm_reg) _, a1 = out(ymm_reg) _, a2 = out(ymm_reg) _,
            a3 = out(ymm_reg) _, a4 = out(ymm_reg) _, a5 = out(ymm_reg) _,
            a6 = out(ymm_reg) _, a7 = out(ymm_reg) _, a8 = out(ymm_reg) _,
            a9 = out(ymm_reg) _, a10 = out(ymm_reg) _, a11 = out(ymm_reg) _,
            n = inout(reg) turns => _,
            options(nomem, nostack),
        );
    }
    turns * PRODUCTS * 32
}

/// `vpdpbusd` on 64 bytes, as the AVX-512 tile has it; returns the multiply-adds.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn avx512vnni(turns: u64) -> u64 {
    const PRODUCTS: u64 = 12;
    if turns == 0 {
        return 0;
    }
    // SAFETY: the features are enabled, and only the registers named are written; no memory is
    // touched.
    unsafe {
        asm!(
            "vpxorq {w}, {w}, {w}",
            "2:",
            "vpdpbusd {a0}, {w}, {w}",
            "vpdpbusd {a1}, {w}, {w}",
            "vpdpbusd {a2}, {w}, {w}",
            "vpdpbusd {a3}, {w}, {w}",
            "vpdpbusd {a4}, {w}, {w}",
            "vpdpbusd {a5}, {w}, {w}",
            "vpdpbusd {a6}, {w}, {w}",
            "vpdpbusd {a7}, {w}, {w}",
            "vpdpbusd {a8}, {w}, {w}",
            "vpdpbusd {a9}, {w}, {w}",
            "vpdpbusd {a10}, {w}, {w}",
            "vpdpbusd {a11}, {w}, {w}",
            "dec {n}",
            "jnz 2b",
            w = out(zmm_reg) _,
            a0 = out(zmm_reg) _, a1 = out(zmm_reg) _, a2 = out(zmm_reg) _,
            a3 = out(zmm_reg) _, a4 = out(zmm_reg) _, a5 = out(zmm_reg) _,
            a6 = out(zmm_reg) _, a7 = out(zmm_reg) _, a8 = out(zmm_reg) _,
            a9 = out(zmm_reg) _, a10 = out(zmm_reg) _, a11 = out(zmm_reg) _,
            n = inout(reg) turns => _,
            options(nomem, nostack),
        );
    }
    turns * PRODUCTS * 64
}
