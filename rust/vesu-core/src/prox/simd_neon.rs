//! NEON lanes. Every aarch64 processor has NEON and its fused multiply-add, so there is nothing to detect and the
//! intrinsics are safe calls; only memory access asks for the caller's promise.

use std::arch::aarch64::*;

use super::simd::Simd;

/// Bytes 0 to 3 of a float, and the same bytes counted four by four: together the bytes of float `index`.
const FIRST_BYTES: u32 = 0x0302_0100;
const BYTES_PER_FLOAT: u32 = 0x0404_0404;

impl Simd for float32x4_t {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        vdupq_n_f32(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four elements.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for four elements.
        unsafe { vst1q_f32(to, self) }
    }
    #[inline(always)]
    unsafe fn lookup(from: *const f32, index: *const i32) -> Self {
        // SAFETY: the caller vouches for four elements and four indices.
        let (table, index) = unsafe { (vld1q_f32(from), vld1q_u32(index.cast())) };
        let bytes = vmlaq_u32(vdupq_n_u32(FIRST_BYTES), index, vdupq_n_u32(BYTES_PER_FLOAT));
        vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(table), vreinterpretq_u8_u32(bytes)))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        vaddq_f32(self, other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        vsubq_f32(self, other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        vmulq_f32(self, other)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        vdivq_f32(self, other)
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        vfmaq_f32(addend, self, factor)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // `vmaxq_f32` returns NaN for either NaN and +0 for both zeros: not x86's rule.
        vbslq_f32(vcgtq_f32(self, other), self, other)
    }
    #[inline(always)]
    unsafe fn negative_abs(self) -> Self {
        vnegq_f32(vabsq_f32(self))
    }
    #[inline(always)]
    unsafe fn where_negative(self, sign: Self, other: Self) -> Self {
        vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(sign)), self, other)
    }
    #[inline(always)]
    unsafe fn scale_exponent(self, rounded: Self) -> Self {
        let shift = vshlq_n_u32::<23>(vreinterpretq_u32_f32(rounded));
        vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(self), shift))
    }
}
