//! NEON: sixteen float lanes in four registers.

use std::{
    arch::{
        aarch64::{
            float32x4_t, int8x16_t, uint8x16_t, uint16x8_t, vadd_f32, vaddq_f32, vandq_u8,
            vcvt_f32_f16, vcvt_high_f32_f16, vcvtq_f32_s32, vdup_n_u16, vdupq_n_f32, vdupq_n_s8,
            vdupq_n_u8, vfmaq_f32, vget_high_f32, vget_low_f16, vget_low_f32, vget_low_s8,
            vget_low_s16, vget_low_u16, vgetq_lane_f32, vld1q_f32, vld1q_u8, vmovl_high_s8,
            vmovl_high_s16, vmovl_s8, vmovl_s16, vmulq_f32, vpadds_f32, vreinterpret_f16_u16,
            vreinterpretq_f16_u16, vreinterpretq_f32_u8, vreinterpretq_f32_u32,
            vreinterpretq_s8_u8, vreinterpretq_u16_u8, vshll_high_n_u16, vshll_n_u16, vshrq_n_u8,
            vst1q_f32, vsubq_s8,
        },
        asm, is_aarch64_feature_detected,
    },
    array,
};

use half::f16;

use super::super::{dense, float::LANES, isa::Isa};

/// NEON; exists only where `detect` saw it.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Neon {
    _proof: (),
}

impl Neon {
    /// Returns the ISA if this CPU has it.
    pub(super) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self { _proof: () })
    }
}

/// 16 lanes: 0..4, 4..8, 8..12 and 12..16.
type Quad = [float32x4_t; 4];

impl Isa for Neon {
    type Lanes = Quad;
    const PART: usize = 4;

    #[inline(always)]
    fn zero(self) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::splat(0.0) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::splat(value) }
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::load(values) }
    }

    #[inline(always)]
    fn store(self, lanes: Quad, values: &mut [f32; LANES]) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::store(lanes, values) }
    }

    #[inline(always)]
    fn mul_add(self, a: Quad, b: Quad, c: Quad) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::mul_add(a, b, c) }
    }

    #[inline(always)]
    fn mul(self, a: Quad, b: Quad) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::mul(a, b) }
    }

    #[inline(always)]
    fn fold(self, lanes: Quad) -> f32 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::fold(lanes) }
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8; 64]) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::load_f32(bytes) }
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8; 32]) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::load_f16(bytes) }
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8; 32]) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::load_bf16(bytes) }
    }

    #[inline(always)]
    fn half(self, half: f16) -> f32 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::half(half) }
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8; 16]) -> Quad {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::load_i8(bytes) }
    }

    #[inline(always)]
    fn load_nibbles(self, bytes: &[u8; 16]) -> [Quad; 2] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { quad::load_nibbles(bytes) }
    }

    #[inline(always)]
    fn tile<const R: usize, const T: usize>(
        self,
        rows: &[f32],
        tokens: &[f32],
        first: bool,
        lanes: &mut [f32],
    ) {
        dense::tile::<_, 4, R, T>(
            first.then(|| {
                // SAFETY: `self` can only come from `detect`.
                unsafe { quad::load_four(&[0.0; 4]) }
            }),
            |values| {
                // SAFETY: `self` can only come from `detect`.
                unsafe { quad::load_four(values) }
            },
            |sums, values| {
                // SAFETY: as above.
                unsafe { quad::store_four(sums, values) }
            },
            |a, b, c| {
                // SAFETY: as above.
                unsafe { quad::mul_add_four(a, b, c) }
            },
            rows,
            tokens,
            lanes,
        );
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], offset: usize) {
        prefetch(bytes.as_ptr().wrapping_add(offset));
    }

    #[inline(always)]
    fn prefetch_l2(self, bytes: &[u8], offset: usize) {
        let address = bytes.as_ptr().wrapping_add(offset);
        // SAFETY: as in [`prefetch`].
        unsafe {
            asm!(
                "prfm pldl2keep, [{address}]",
                address = in(reg) address,
                options(readonly, nostack, preserves_flags)
            );
        }
    }
}

/// Asks for a cache line; the address need not be readable. The intrinsic is still unstable.
#[inline(always)]
pub(super) fn prefetch(address: *const u8) {
    // SAFETY: `prfm` is a hint: it neither faults nor changes memory or registers.
    unsafe {
        asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(readonly, nostack, preserves_flags)
        );
    }
}

/// 16 float lanes in four registers.
pub(super) mod quad {
    use super::{
        LANES, Quad, array, f16, float32x4_t, int8x16_t, uint8x16_t, uint16x8_t, vadd_f32,
        vaddq_f32, vandq_u8, vcvt_f32_f16, vcvt_high_f32_f16, vcvtq_f32_s32, vdup_n_u16,
        vdupq_n_f32, vdupq_n_s8, vdupq_n_u8, vfmaq_f32, vget_high_f32, vget_low_f16, vget_low_f32,
        vget_low_s8, vget_low_s16, vget_low_u16, vgetq_lane_f32, vld1q_f32, vld1q_u8,
        vmovl_high_s8, vmovl_high_s16, vmovl_s8, vmovl_s16, vmulq_f32, vpadds_f32,
        vreinterpret_f16_u16, vreinterpretq_f16_u16, vreinterpretq_f32_u8, vreinterpretq_f32_u32,
        vreinterpretq_s8_u8, vreinterpretq_u16_u8, vshll_high_n_u16, vshll_n_u16, vshrq_n_u8,
        vst1q_f32, vsubq_s8,
    };

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn splat(value: f32) -> Quad {
        [vdupq_n_f32(value); 4]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn load(values: &[f32; LANES]) -> Quad {
        let (fours, _) = values.as_chunks::<4>();
        array::from_fn(|i| load_four(&fours[i]))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn store(lanes: Quad, values: &mut [f32; LANES]) {
        let (fours, _) = values.as_chunks_mut::<4>();
        for i in 0..4 {
            store_four(lanes[i], &mut fours[i]);
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn load_four(values: &[f32; 4]) -> float32x4_t {
        // SAFETY: `values` is four readable floats.
        unsafe { vld1q_f32(values.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn store_four(lanes: float32x4_t, values: &mut [f32; 4]) {
        // SAFETY: `values` is four writable floats.
        unsafe { vst1q_f32(values.as_mut_ptr(), lanes) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn mul_add_four(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn mul_add(a: Quad, b: Quad, c: Quad) -> Quad {
        array::from_fn(|i| mul_add_four(a[i], b[i], c[i]))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn mul(a: Quad, b: Quad) -> Quad {
        array::from_fn(|i| vmulq_f32(a[i], b[i]))
    }

    /// 16 → 8 → 4 → 2 → 1, lane `j` with lane `j + half`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn fold(lanes: Quad) -> f32 {
        let low = vaddq_f32(lanes[0], lanes[2]);
        let high = vaddq_f32(lanes[1], lanes[3]);
        let four = vaddq_f32(low, high);
        let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        vpadds_f32(two)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn load_f32(bytes: &[u8; 64]) -> Quad {
        let (fours, _) = bytes.as_chunks::<16>();
        array::from_fn(|i| vreinterpretq_f32_u8(load_128(&fours[i])))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn load_f16(bytes: &[u8; 32]) -> Quad {
        let [low, high] = halves(bytes).map(|eight| vreinterpretq_f16_u16(eight));
        [
            vcvt_f32_f16(vget_low_f16(low)),
            vcvt_high_f32_f16(low),
            vcvt_f32_f16(vget_low_f16(high)),
            vcvt_high_f32_f16(high),
        ]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn half(half: f16) -> f32 {
        let four = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half.to_bits())));
        vgetq_lane_f32::<0>(four)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn load_bf16(bytes: &[u8; 32]) -> Quad {
        let [low, high] = halves(bytes);
        [
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(low))),
            vreinterpretq_f32_u32(vshll_high_n_u16::<16>(low)),
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high))),
            vreinterpretq_f32_u32(vshll_high_n_u16::<16>(high)),
        ]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn load_i8(bytes: &[u8; 16]) -> Quad {
        widen_i8(vreinterpretq_s8_u8(load_128(bytes)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn load_nibbles(bytes: &[u8; 16]) -> [Quad; 2] {
        let packed = load_128(bytes);
        let eight = vdupq_n_s8(8);
        let low = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(packed));
        [
            widen_i8(vsubq_s8(low, eight)),
            widen_i8(vsubq_s8(high, eight)),
        ]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn widen_i8(codes: int8x16_t) -> Quad {
        let low = vmovl_s8(vget_low_s8(codes));
        let high = vmovl_high_s8(codes);
        [
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
            vcvtq_f32_s32(vmovl_high_s16(low)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
            vcvtq_f32_s32(vmovl_high_s16(high)),
        ]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn halves(bytes: &[u8; 32]) -> [uint16x8_t; 2] {
        let (halves, _) = bytes.as_chunks::<16>();
        array::from_fn(|i| vreinterpretq_u16_u8(load_128(&halves[i])))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn load_128(bytes: &[u8; 16]) -> uint8x16_t {
        // SAFETY: `bytes` is 16 readable bytes, and ld1 asks no alignment of them.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }
}
