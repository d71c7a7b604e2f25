//! Vector lanes: a dozen operations, four instruction sets, one kernel source.
//!
//! Candidates stand in lanes and never mix, and the AVX2, AVX-512 and NEON forms use the same operations in the same
//! order, so these three give the same bits. The portable form has no fused multiply-add on plain x86-64 and rounds
//! differently there.

use std::ops::{Deref, DerefMut};

use crate::{Error, Result};

/// Instruction-set path of the kernels. Bits are reproducible on one path; record it with the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    Portable,
    Neon,
    Avx2,
    Avx512,
}

impl Isa {
    /// The widest last: `choose` takes the last one that the machine has.
    const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The name used by `VESU_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    pub fn is_supported(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
                    && is_x86_feature_detected!("lzcnt")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && Self::Avx2.is_supported()
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The paths of this machine.
    pub fn supported() -> impl DoubleEndedIterator<Item = Self> + Clone {
        Self::ALL.into_iter().filter(|isa| isa.is_supported())
    }

    /// `requested`, else `VESU_SIMD`, else the widest path of this machine.
    pub fn choose(requested: Option<&str>) -> Result<Self> {
        match requested {
            Some(name) => Self::parse("simd", name),
            None => match std::env::var("VESU_SIMD") {
                Ok(name) => Self::parse("VESU_SIMD", name.trim()),
                Err(_) => Ok(Self::supported().next_back().unwrap_or(Self::Portable)),
            },
        }
    }

    fn parse(argument: &'static str, name: &str) -> Result<Self> {
        let mut supported = Self::supported();
        supported.clone().find(|isa| isa.name() == name).ok_or_else(|| {
            let first = supported.next().map_or("", Self::name);
            let names = supported.fold(first.to_owned(), |text, isa| text + ", " + isa.name());
            Error::argument(argument, format!("{name:?}"), format!("{names} on this machine"))
        })
    }

    /// One rounding for a multiply-add. The paths that fuse give the same bits as each other.
    pub(super) const fn fuses(self) -> bool {
        !matches!(self, Self::Portable) || cfg!(any(target_arch = "aarch64", target_feature = "fma"))
    }

    /// 32-bit lanes of one vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable => <[f32; 4] as Simd>::LANES,
            Self::Neon => 4,
            Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }
}

/// Adding and taking away 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// A vector of `LANES` floats.
///
/// # Safety
/// Every method may only run where the implementing type's CPU features are present, inside a function compiled
/// with them; pointers must be valid for `LANES` elements.
pub(super) trait Simd: Copy {
    const LANES: usize;
    /// Vector registers of the path: tiles are as large as these hold.
    const REGISTERS: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `from[index[lane]]` for each lane; every index is below `LANES`, and `from` holds `LANES` elements.
    unsafe fn lookup(from: *const f32, index: *const i32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + addend`.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// The larger; `other` where either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// `-|self|`.
    unsafe fn negative_abs(self) -> Self;
    /// `self` where the sign bit of `sign` is set, else `other`.
    unsafe fn where_negative(self, sign: Self, other: Self) -> Self;
    /// `self * 2^n` for an integer n given as `n + ROUND`.
    unsafe fn scale_exponent(self, rounded: Self) -> Self;

    /// Append the lanes that are not zero, in order, to `weights`, and their `offsets` to `kept`; returns how many. All
    /// pointers are valid for one vector.
    #[inline(always)]
    unsafe fn keep_nonzero(self, offsets: *const u32, weights: *mut f32, kept: *mut u32) -> usize {
        let mut lanes = [0f32; MAX_LANES];
        let mut n = 0;
        // SAFETY: n stays below LANES; MAX_LANES bounds the lanes of every path.
        unsafe {
            self.store(lanes.as_mut_ptr());
            for (lane, &weight) in lanes[..Self::LANES].iter().enumerate() {
                *weights.add(n) = weight;
                *kept.add(n) = *offsets.add(lane);
                n += usize::from(weight != 0.0);
            }
        }
        n
    }
}

/// Lanes of the widest path.
pub(super) const MAX_LANES: usize = 16;

/// float32 values that begin on a cache line, so that no vector read or written at a multiple of its length straddles two.
#[derive(Clone, Debug)]
pub(super) struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; MAX_LANES]);

impl Aligned {
    pub fn zeros(length: usize) -> Self {
        Self { lines: vec![Line([0.0; MAX_LANES]); length.div_ceil(MAX_LANES)], length }
    }

    /// At least `length` values, zeros where there were fewer.
    pub fn grow(&mut self, length: usize) {
        if length > self.length {
            *self = Self::zeros(length);
        }
    }
}

impl Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: a line is MAX_LANES floats without padding, and there are lines for `length` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// Work that is compiled once for each path.
pub(super) trait SimdWork {
    /// # Safety
    /// As for [`Simd`]; must be `inline(always)`, so that its body is compiled with the path's CPU features.
    unsafe fn run<V: Simd>(self);
}

/// Run `work` on a path that the machine has.
pub(super) fn dispatch<W: SimdWork>(isa: Isa, work: W) {
    assert!(isa.is_supported());
    match isa {
        // SAFETY: the portable lanes need no CPU feature.
        Isa::Portable => unsafe { work.run::<[f32; 4]>() },
        // SAFETY: the features were detected above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::run_avx2(work) },
        // SAFETY: as for AVX2.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::run_avx512(work) },
        // SAFETY: every aarch64 processor has NEON.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { work.run::<std::arch::aarch64::float32x4_t>() },
        _ => unreachable!("not supported here"),
    }
}

/// The expression for lanes 0 to 3, written out: no closure that a build without link-time passes leaves as a call.
macro_rules! lanes {
    ($lane:ident => $value:expr) => {
        [
            {
                const $lane: usize = 0;
                $value
            },
            {
                const $lane: usize = 1;
                $value
            },
            {
                const $lane: usize = 2;
                $value
            },
            {
                const $lane: usize = 3;
                $value
            },
        ]
    };
}

impl Simd for [f32; 4] {
    const LANES: usize = 4;
    const REGISTERS: usize = 16;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four elements; the read is unaligned.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for four elements; the write is unaligned.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn lookup(from: *const f32, index: *const i32) -> Self {
        // SAFETY: the caller vouches for four indices, each below four, and four elements.
        unsafe { lanes!(I => *from.add(*index.add(I) as usize)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        lanes!(I => self[I] + other[I])
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        lanes!(I => self[I] - other[I])
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        lanes!(I => self[I] * other[I])
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        lanes!(I => self[I] / other[I])
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        // Without the instruction `mul_add` is a slow library call.
        const FUSED: bool = Isa::Portable.fuses();
        lanes!(I => if FUSED { self[I].mul_add(factor[I], addend[I]) } else { self[I] * factor[I] + addend[I] })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        lanes!(I => if self[I] > other[I] { self[I] } else { other[I] })
    }
    #[inline(always)]
    unsafe fn negative_abs(self) -> Self {
        lanes!(I => -self[I].abs())
    }
    #[inline(always)]
    unsafe fn where_negative(self, sign: Self, other: Self) -> Self {
        lanes!(I => if sign[I].is_sign_negative() { self[I] } else { other[I] })
    }
    #[inline(always)]
    unsafe fn scale_exponent(self, rounded: Self) -> Self {
        lanes!(I => f32::from_bits(self[I].to_bits().wrapping_add(rounded[I].to_bits() << 23)))
    }
}

/// Each method is its intrinsic; bodies are `unsafe` as a whole because all of them need the CPU feature.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! methods {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? $body:block)*) => {
        $(#[inline(always)]
        unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            // SAFETY: the trait's contract: CPU features present, pointers good for one vector.
            unsafe { $body }
        })*
    };
}

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;
