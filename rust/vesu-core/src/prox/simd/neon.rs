//! NEON lanes. Every aarch64 processor has NEON and its fused multiply-add, so there is nothing to detect.

use std::arch::aarch64::*;

/// The bytes of float 0 of a vector, and how far each is from the same byte of the next float.
const FIRST_BYTES: u32 = 0x0302_0100;
const BYTES_A_FLOAT: u32 = 0x0404_0404;

impl super::Simd for float32x4_t {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    methods! {
        splat(value: f32) -> Self { vdupq_n_f32(value) }
        load(from: *const f32) -> Self { vld1q_f32(from) }
        lookup(from: *const f32, index: *const i32) -> Self {
            let index = vld1q_u32(index.cast());
            let bytes = vmlaq_u32(vdupq_n_u32(FIRST_BYTES), index, vdupq_n_u32(BYTES_A_FLOAT));
            vreinterpretq_f32_u8(vqtbl1q_u8(vld1q_u8(from.cast()), vreinterpretq_u8_u32(bytes)))
        }
    }
    methods! {
        store(self: Self, to: *mut f32) { vst1q_f32(to, self) }
        add(self: Self, other: Self) -> Self { vaddq_f32(self, other) }
        sub(self: Self, other: Self) -> Self { vsubq_f32(self, other) }
        mul(self: Self, other: Self) -> Self { vmulq_f32(self, other) }
        div(self: Self, other: Self) -> Self { vdivq_f32(self, other) }
        fma(self: Self, factor: Self, addend: Self) -> Self { vfmaq_f32(addend, self, factor) }
        // `vmaxq_f32` would give NaN for either NaN and +0 for two zeros.
        max(self: Self, other: Self) -> Self { vbslq_f32(vcgtq_f32(self, other), self, other) }
        negative_abs(self: Self) -> Self { vnegq_f32(vabsq_f32(self)) }
        where_negative(self: Self, sign: Self, other: Self) -> Self {
            vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(sign)), self, other)
        }
        scale_exponent(self: Self, rounded: Self) -> Self {
            let shift = vshlq_n_u32::<23>(vreinterpretq_u32_f32(rounded));
            vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(self), shift))
        }
    }
}
