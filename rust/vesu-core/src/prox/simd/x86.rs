//! AVX2 and AVX-512 lanes.

use std::arch::x86_64::*;

use super::SimdWork;

#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
pub(super) unsafe fn run_avx2<W: SimdWork>(work: W) {
    // SAFETY: compiled with the features that the lanes need; the rest is the caller's promise.
    unsafe { work.run::<__m256>() }
}

// Without VL a vector whose halves are taken apart later must stay in the first 16 registers, and tiles spill.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
pub(super) unsafe fn run_avx512<W: SimdWork>(work: W) {
    // SAFETY: as for AVX2.
    unsafe { work.run::<__m512>() }
}

/// For each mask of eight lanes, the lanes that are set, in order, a byte each.
const KEPT: [u64; 256] = {
    let mut table = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut n) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask] |= lane << (8 * n);
                n += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

impl super::Simd for __m256 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    methods! {
        splat(value: f32) -> Self { _mm256_set1_ps(value) }
        load(from: *const f32) -> Self { _mm256_loadu_ps(from) }
        lookup(from: *const f32, index: *const i32) -> Self {
            _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), _mm256_loadu_si256(index.cast()))
        }
    }
    methods! {
        store(self: Self, to: *mut f32) { _mm256_storeu_ps(to, self) }
        add(self: Self, other: Self) -> Self { _mm256_add_ps(self, other) }
        sub(self: Self, other: Self) -> Self { _mm256_sub_ps(self, other) }
        mul(self: Self, other: Self) -> Self { _mm256_mul_ps(self, other) }
        div(self: Self, other: Self) -> Self { _mm256_div_ps(self, other) }
        fma(self: Self, factor: Self, addend: Self) -> Self { _mm256_fmadd_ps(self, factor, addend) }
        max(self: Self, other: Self) -> Self { _mm256_max_ps(self, other) }
        negative_abs(self: Self) -> Self { _mm256_or_ps(self, _mm256_set1_ps(-0.0)) }
        where_negative(self: Self, sign: Self, other: Self) -> Self { _mm256_blendv_ps(other, self, sign) }
        scale_exponent(self: Self, rounded: Self) -> Self {
            let shift = _mm256_slli_epi32::<23>(_mm256_castps_si256(rounded));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self), shift))
        }
        keep_nonzero(self: Self, offsets: *const u32, weights: *mut f32, kept: *mut u32) -> usize {
            let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(self, _mm256_setzero_ps())) as usize;
            let lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(KEPT[mask] as i64));
            _mm256_storeu_ps(weights, _mm256_permutevar8x32_ps(self, lanes));
            let offsets = _mm256_loadu_si256(offsets.cast());
            _mm256_storeu_si256(kept.cast(), _mm256_permutevar8x32_epi32(offsets, lanes));
            mask.count_ones() as usize
        }
    }
}

impl super::Simd for __m512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    methods! {
        splat(value: f32) -> Self { _mm512_set1_ps(value) }
        load(from: *const f32) -> Self { _mm512_loadu_ps(from) }
        lookup(from: *const f32, index: *const i32) -> Self {
            _mm512_permutexvar_ps(_mm512_loadu_si512(index.cast()), _mm512_loadu_ps(from))
        }
    }
    methods! {
        store(self: Self, to: *mut f32) { _mm512_storeu_ps(to, self) }
        add(self: Self, other: Self) -> Self { _mm512_add_ps(self, other) }
        sub(self: Self, other: Self) -> Self { _mm512_sub_ps(self, other) }
        mul(self: Self, other: Self) -> Self { _mm512_mul_ps(self, other) }
        div(self: Self, other: Self) -> Self { _mm512_div_ps(self, other) }
        fma(self: Self, factor: Self, addend: Self) -> Self { _mm512_fmadd_ps(self, factor, addend) }
        max(self: Self, other: Self) -> Self { _mm512_max_ps(self, other) }
        negative_abs(self: Self) -> Self {
            let sign = _mm512_set1_epi32(i32::MIN);
            _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(self), sign))
        }
        where_negative(self: Self, sign: Self, other: Self) -> Self {
            let mask = _mm512_cmplt_epi32_mask(_mm512_castps_si512(sign), _mm512_setzero_si512());
            _mm512_mask_blend_ps(mask, other, self)
        }
        scale_exponent(self: Self, rounded: Self) -> Self {
            let shift = _mm512_slli_epi32::<23>(_mm512_castps_si512(rounded));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self), shift))
        }
        keep_nonzero(self: Self, offsets: *const u32, weights: *mut f32, kept: *mut u32) -> usize {
            let mask = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self, _mm512_setzero_ps());
            _mm512_storeu_ps(weights, _mm512_maskz_compress_ps(mask, self));
            let offsets = _mm512_loadu_si512(offsets.cast());
            _mm512_storeu_si512(kept.cast(), _mm512_maskz_compress_epi32(mask, offsets));
            mask.count_ones() as usize
        }
    }
}
