//! The stand-in held to results worked out by hand, in every form of an operand; where the CPU has
//! the instruction, the CPU itself.

use std::arch::{
    asm,
    x86_64::{__m256i, _mm256_loadu_si256, _mm256_storeu_si256},
};

use super::{
    super::{super::Level, AvxVnni},
    *,
};

/// Values at an address that is a multiple of eight.
#[repr(align(32))]
struct Values([u8; 32]);

/// Sums, codes and values, and what comes of them, one lane each.
const LANES: [(i32, [u8; 4], [i8; 4], i32); 8] = [
    (0, [255; 4], [-128; 4], -130_560),
    (0, [255; 4], [127; 4], 129_540),
    (i32::MAX, [1, 0, 0, 0], [1; 4], i32::MIN),
    (i32::MIN, [255; 4], [-128; 4], i32::MAX - 130_559),
    (7, [1, 2, 3, 4], [1, -1, 1, -1], 5),
    (-1, [0; 4], [-128; 4], -1),
    (100, [128, 0, 128, 255], [-128, 127, 127, 1], 227),
    (5, [200, 100, 50, 25], [-1, 2, -4, 8], 5),
];

fn flat<const N: usize>(lanes: impl Fn(usize) -> [u8; N]) -> [u8; 32] {
    std::array::from_fn(|at| lanes(at / N)[at % N])
}

#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: `bytes` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn check(sums: __m256i, expected: &[u8; 32], form: &str) {
    let mut found = [0; 32];
    // SAFETY: `found` is 32 writable bytes, and storeu asks no alignment.
    unsafe { _mm256_storeu_si256(found.as_mut_ptr().cast(), sums) };
    assert_eq!(found, *expected, "{form}");
}

/// Executes the instruction with operands and holds the sums to what is expected.
macro_rules! check {
    ($sums:expr, $codes:expr, $expected:expr, $operands:literal, $name:tt = $register:tt $(, $($more:tt)*)?) => {{
        let mut sums = load($sums);
        // SAFETY: AVX-VNNI is there or emulated; the operands are readable, and only the sums are
        // written.
        unsafe {
            asm!(
                concat!("{{vex}} vpdpbusd ", $operands),
                $($($more)*)?
                inout($name) sums,
                in($register) load($codes),
                options(nostack, readonly, preserves_flags),
            );
        }
        check(sums, $expected, $operands);
    }};
}

#[target_feature(enable = "avx2")]
fn check_forms() {
    static VALUES: Values = Values({
        let mut values = [0; 32];
        let mut at = 0;
        while at < 32 {
            values[at] = LANES[at / 4].2[at % 4].cast_unsigned();
            at += 1;
        }
        values
    });
    let sums = &flat(|lane| LANES[lane].0.to_le_bytes());
    let codes = &flat(|lane| LANES[lane].1);
    let expected = &flat(|lane| LANES[lane].3.to_le_bytes());
    let address = VALUES.0.as_ptr();
    let before = |bytes: usize| address.wrapping_sub(bytes);
    let values = load(&VALUES.0);

    check!(sums, codes, expected, "ymm0, ymm1, ymm2", "ymm0" = "ymm1", in("ymm2") values,);
    check!(sums, codes, expected, "ymm15, ymm8, ymm9", "ymm15" = "ymm8", in("ymm9") values,);
    check!(sums, codes, expected, "ymm7, ymm14, [rax]", "ymm7" = "ymm14", in("rax") address,);
    check!(sums, codes, expected, "ymm8, ymm7, [r12]", "ymm8" = "ymm7", in("r12") address,);
    check!(sums, codes, expected, "ymm0, ymm1, [r13]", "ymm0" = "ymm1", in("r13") address,);
    check!(sums, codes, expected, "ymm0, ymm1, [rsi + 32]", "ymm0" = "ymm1", in("rsi") before(32),);
    check!(sums, codes, expected, "ymm0, ymm1, [r9 - 96]", "ymm0" = "ymm1",
        in("r9") before(0).wrapping_add(96),);
    check!(sums, codes, expected, "ymm0, ymm1, [rdx + 4096]", "ymm0" = "ymm1",
        in("rdx") before(4096),);
    check!(sums, codes, expected, "ymm0, ymm1, [r12 - 4096]", "ymm0" = "ymm1",
        in("r12") before(0).wrapping_add(4096),);
    check!(sums, codes, expected, "ymm0, ymm1, [rax + 8*rcx]", "ymm0" = "ymm1",
        in("rax") before(80), in("rcx") 10_i64,);
    check!(sums, codes, expected, "ymm0, ymm1, [r13 + 4*r9 + 64]", "ymm0" = "ymm1",
        in("r13") before(60), in("r9") -1_i64,);
    check!(sums, codes, expected, "ymm0, ymm1, [rdi + r12 + 512]", "ymm0" = "ymm1",
        in("rdi") before(0), in("r12") -512_i64,);
    check!(sums, codes, expected, "ymm0, ymm1, [8*rcx]", "ymm0" = "ymm1",
        in("rcx") address as usize / 8,);
    check!(sums, codes, expected, "ymm0, ymm1, [rip + {values}]", "ymm0" = "ymm1",
        values = sym VALUES,);

    // Of 128 bits: the upper halves become zero.
    let mut half = *expected;
    half[16..].fill(0);
    check!(sums, codes, &half, "xmm0, xmm1, [rax]", "ymm0" = "ymm1", in("rax") address,);
    check!(sums, codes, &half, "xmm9, xmm1, xmm2", "ymm9" = "ymm1", in("ymm2") values,);
}

#[test]
fn the_instruction_does_what_its_definition_says_with_every_operand() {
    if AvxVnni::detect().or_else(AvxVnni::emulated).is_some() {
        // SAFETY: the level has AVX2.
        unsafe { check_forms() }
    }
}

#[test]
fn sums_that_follow_one_another_are_all_executed() {
    let Some(level) = AvxVnni::detect().or_else(AvxVnni::emulated) else {
        return;
    };
    // 12 instructions in a row, some turns.
    assert_eq!(level.int8_peak(3), 3 * 12 * 32);
    assert_eq!(level.int8_peak(0), 0);
}

#[test]
fn other_instructions_are_not_executed() {
    let known = [0xc4, 0xe2, 0x75, 0x50, 0xc2];
    let decoded = |code: [u8; 5]| decode(code.into_iter());
    assert_eq!(
        decoded(known),
        Some(Instruction {
            bytes: 5,
            is_wide: true,
            sums: 0,
            codes: 1,
            values: Operand::Register(2),
        })
    );
    for (at, byte) in [
        // `vpdpbusds`, `vpdpwssd`; W1; the prefixes none, F3 and F2; the maps 0F and 0F3A; EVEX.
        (3, 0x51),
        (3, 0x52),
        (2, 0xf5),
        (2, 0x74),
        (2, 0x76),
        (2, 0x77),
        (1, 0xe1),
        (1, 0xe3),
        (0, 0x62),
    ] {
        let mut other = known;
        other[at] = byte;
        assert_eq!(decoded(other), None, "{other:x?}");
    }
}
