//! Every operation of every path that this machine has against scalar arithmetic, and the whole search against bits
//! recorded once, so that paths which no single machine has side by side are still held to the same result.

use super::datafit::Constants;
use super::simd::{Isa, ROUND, Simd, SimdWork, dispatch};
use super::tests::{run, samples};

/// Scalar arithmetic in the shape of a path: with `FUSED`, a multiply-add rounds once.
#[derive(Clone, Copy)]
struct Scalar<const FUSED: bool>(f32);

impl<const FUSED: bool> Simd for Scalar<FUSED> {
    const LANES: usize = 1;
    const REGISTERS: usize = 16;
    unsafe fn splat(value: f32) -> Self {
        Self(value)
    }
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for one element.
        Self(unsafe { *from })
    }
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for one element.
        unsafe { *to = self.0 }
    }
    unsafe fn lookup(from: *const f32, index: *const i32) -> Self {
        // SAFETY: the caller vouches for one index and its element.
        Self(unsafe { *from.add(*index as usize) })
    }
    unsafe fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    unsafe fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
    unsafe fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
    unsafe fn div(self, other: Self) -> Self {
        Self(self.0 / other.0)
    }
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Self(if FUSED { self.0.mul_add(factor.0, addend.0) } else { self.0 * factor.0 + addend.0 })
    }
    unsafe fn max(self, other: Self) -> Self {
        Self(if self.0 > other.0 { self.0 } else { other.0 })
    }
    unsafe fn negative_abs(self) -> Self {
        Self(self.0.copysign(-1.0))
    }
    unsafe fn where_negative(self, sign: Self, other: Self) -> Self {
        if sign.0.is_sign_negative() { self } else { other }
    }
    unsafe fn scale_exponent(self, rounded: Self) -> Self {
        // An exact product in the normal range.
        Self((f64::from(self.0) * f64::from(rounded.0 - ROUND).exp2()) as f32)
    }
}

/// Something to do with the vectors of a path.
trait Probe {
    type Out;
    fn on<V: Simd>(&self) -> Self::Out;
}

struct Probing<'a, P: Probe>(&'a P, &'a mut Option<P::Out>);

impl<P: Probe> SimdWork for Probing<'_, P> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        *self.1 = Some(self.0.on::<V>());
    }
}

fn on_path<P: Probe>(isa: Isa, probe: &P) -> P::Out {
    let mut out = None;
    dispatch(isa, Probing(probe, &mut out));
    out.expect("dispatch runs its work")
}

fn on_scalar<P: Probe>(isa: Isa, probe: &P) -> P::Out {
    if isa.fuses() { probe.on::<Scalar<true>>() } else { probe.on::<Scalar<false>>() }
}

/// `value(i)` for the `i`th vector, as the bits of `n` lanes.
fn column<V: Simd>(n: usize, mut value: impl FnMut(usize) -> V) -> Vec<u32> {
    assert!(n.is_multiple_of(V::LANES));
    let mut out = vec![0.0; n];
    for (i, lanes) in out.chunks_exact_mut(V::LANES).enumerate() {
        // SAFETY: `lanes` has room for one vector.
        unsafe { value(i).store(lanes.as_mut_ptr()) };
    }
    out.into_iter().map(f32::to_bits).collect()
}

/// The `i`th vector of `values`.
fn vector<V: Simd>(values: &[f32], i: usize) -> V {
    // SAFETY: the slice holds one vector.
    unsafe { V::load(values[i * V::LANES..][..V::LANES].as_ptr()) }
}

/// Numbers with every rule about them: zeros, infinities, NaN of both signs, the ends of the range, roundings.
const NUMBERS: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    -f32::NAN,
    f32::MIN_POSITIVE,
    -1e-40,
    f32::MAX,
    -126.0,
    1.000_244_1,  // 1 + 2^-12: its square needs 25 bits
    -1.000_488_3, // -(1 + 2^-11): that square rounded to float32
    0.333_333_34,
    -2.718_281_7,
];

/// Operations on every triple of NUMBERS.
struct Arithmetic;

impl Probe for Arithmetic {
    type Out = Vec<(&'static str, Vec<u32>)>;
    fn on<V: Simd>(&self) -> Self::Out {
        let n = NUMBERS.len().pow(3);
        let number = |place: usize| (0..n).map(|i| NUMBERS[i / place % NUMBERS.len()]).collect::<Vec<f32>>();
        let (a, b, c) = (number(1), number(16), number(256));
        let (a, b, c) = (|i| vector::<V>(&a, i), |i| vector::<V>(&b, i), |i| vector::<V>(&c, i));
        // SAFETY: `on` runs only where the machine has V's path.
        unsafe {
            vec![
                ("add", column(n, |i| a(i).add(b(i)))),
                ("sub", column(n, |i| a(i).sub(b(i)))),
                ("mul", column(n, |i| a(i).mul(b(i)))),
                ("div", column(n, |i| a(i).div(b(i)))),
                ("fma", column(n, |i| a(i).fma(b(i), c(i)))),
                ("max", column(n, |i| a(i).max(b(i)))),
                ("negative_abs", column(n, |i| a(i).negative_abs())),
                ("where_negative", column(n, |i| a(i).where_negative(b(i), c(i)))),
            ]
        }
    }
}

/// The same bits; arithmetic may choose its own NaN.
fn same(operation: &str, got: u32, wanted: u32) -> bool {
    let arithmetic = matches!(operation, "add" | "sub" | "mul" | "div" | "fma");
    got == wanted || arithmetic && f32::from_bits(got).is_nan() && f32::from_bits(wanted).is_nan()
}

#[test]
fn every_operation_is_scalar_arithmetic() {
    for isa in Isa::supported() {
        let (got, wanted) = (on_path(isa, &Arithmetic), on_scalar(isa, &Arithmetic));
        for ((operation, got), (_, wanted)) in got.into_iter().zip(wanted) {
            for (i, (got, wanted)) in got.into_iter().zip(wanted).enumerate() {
                let from = [1, 16, 256].map(|place| NUMBERS[i / place % 16]);
                let values = (f32::from_bits(got), f32::from_bits(wanted));
                assert!(same(operation, got, wanted), "{isa:?} {operation} {from:?}: {values:?}");
            }
        }
    }
}

/// The rules that the kernel leans on, spelt out: `max` gives `other` for a NaN and for two zeros.
#[test]
fn max_and_the_multiply_add_follow_their_rules() {
    for isa in Isa::supported() {
        let outcome = on_path(isa, &Arithmetic);
        let at = |a: usize, b: usize, c: usize| a + 16 * b + 256 * c;
        let column = |name: &str| &outcome.iter().find(|(operation, _)| *operation == name).unwrap().1;
        for (a, b) in [(0, 1), (1, 0), (6, 2), (2, 6), (7, 4), (4, 7)] {
            assert_eq!(column("max")[at(a, b, 0)], NUMBERS[b].to_bits(), "{isa:?} max of {a} and {b}");
        }
        let square_less_itself = f32::from_bits(column("fma")[at(12, 12, 13)]);
        assert_eq!(square_less_itself, if isa.fuses() { 2f32.powi(-24) } else { 0.0 }, "{isa:?}");
    }
}

/// Powers of two times numbers in [1, 2), over the whole normal range.
struct ScaleExponent;

impl Probe for ScaleExponent {
    type Out = Vec<u32>;
    fn on<V: Simd>(&self) -> Vec<u32> {
        let exponents = -126..=127;
        let rounded: Vec<f32> = exponents.flat_map(|n| [n as f32 + ROUND; 16]).collect();
        let numbers: Vec<f32> = (0..rounded.len()).map(|i| 1.0 + (i * 37 % 1024) as f32 / 1024.0).collect();
        // SAFETY: `on` runs only where the machine has V's path.
        column(rounded.len(), |i| unsafe { vector::<V>(&numbers, i).scale_exponent(vector(&rounded, i)) })
    }
}

#[test]
fn scaling_by_a_power_of_two_is_exact() {
    for isa in Isa::supported() {
        assert_eq!(on_path(isa, &ScaleExponent), on_scalar(isa, &ScaleExponent), "{isa:?}");
    }
}

/// (got, wanted) of the operations that touch memory, at odd addresses.
struct Memory;

impl Probe for Memory {
    type Out = (Vec<f32>, Vec<f32>);
    fn on<V: Simd>(&self) -> Self::Out {
        let table: Vec<f32> = (0..=V::LANES).map(|i| 1.5 * i as f32 - 3.0).collect();
        let (mut got, mut wanted) = (vec![f32::NAN; 0], vec![0.0; 0]);
        let mut keep = |vector: V, expected: &dyn Fn(usize) -> f32| {
            let mut room = vec![-7.0; V::LANES + 2];
            // SAFETY: one vector from the second element on; `on` runs only where the machine has V's path.
            unsafe { vector.store(room.as_mut_ptr().add(1)) };
            got.extend(room);
            wanted.push(-7.0);
            wanted.extend((0..V::LANES).map(expected));
            wanted.push(-7.0);
        };
        // SAFETY: table and indices hold a vector after their first element, and indices stay below LANES.
        unsafe {
            keep(V::splat(0.25), &|_| 0.25);
            keep(V::load(table.as_ptr().add(1)), &|lane| table[1 + lane]);
            for shift in 0..V::LANES {
                for step in [0, 1, V::LANES - 1] {
                    let from = |lane: usize| (shift + step * lane) % V::LANES;
                    let index: Vec<i32> = (0..=V::LANES).map(|i| from(i.saturating_sub(1)) as i32).collect();
                    let vector = V::lookup(table.as_ptr().add(1), index.as_ptr().add(1));
                    keep(vector, &|lane| table[1 + from(lane)]);
                }
            }
        }
        (got, wanted)
    }
}

#[test]
fn loads_stores_and_lookups_touch_their_lanes_alone() {
    for isa in Isa::supported() {
        let (got, wanted) = on_path(isa, &Memory);
        assert_eq!(got.len(), (3 * isa.lanes() + 2) * (isa.lanes() + 2), "lanes of {isa:?}");
        assert_eq!(got, wanted, "{isa:?}");
    }
}

/// What `keep_nonzero` keeps of 64 weights that are zero by the bits of every mask of sixteen, -0 and NaN among them.
struct KeepNonzero;

impl Probe for KeepNonzero {
    type Out = Vec<(Vec<u32>, Vec<u32>)>;
    fn on<V: Simd>(&self) -> Self::Out {
        let offsets: Vec<u32> = (0..16).map(|i| 7 * i + 3).collect();
        let keep = |mask: u32| {
            let zero = if mask.is_multiple_of(2) { 0.0 } else { -0.0 };
            let weight = |i: u32| if mask >> i & 1 == 0 { zero } else { [1.0, f32::NAN, -2.5, 1e-40][i as usize % 4] };
            let values: Vec<f32> = (0..16).map(weight).collect();
            let (mut weights, mut kept, mut n) = (vec![0.0; 32], vec![0; 32], 0);
            for i in (0..16).step_by(V::LANES) {
                // SAFETY: sixteen values and offsets hold this vector; n <= i leaves room for one behind it.
                n += unsafe {
                    let weights = weights.as_mut_ptr().add(n);
                    vector::<V>(&values[i..], 0).keep_nonzero(
                        offsets.as_ptr().add(i),
                        weights,
                        kept.as_mut_ptr().add(n),
                    )
                };
            }
            (weights[..n].iter().map(|weight| weight.to_bits()).collect(), kept[..n].to_vec())
        };
        (0..1 << 16).map(keep).collect()
    }
}

#[test]
fn lists_keep_the_lanes_that_are_not_zero() {
    let wanted = on_scalar(Isa::Portable, &KeepNonzero);
    assert!(wanted.iter().enumerate().all(|(mask, (weights, _))| weights.len() == mask.count_ones() as usize));
    for isa in Isa::supported() {
        assert!(on_path(isa, &KeepNonzero) == wanted, "{isa:?}");
    }
}

/// Signed rows of a block that ends with the samples, so that its last rows have no room for a vector behind them.
struct Rows(usize);

impl Probe for Rows {
    type Out = Vec<u32>;
    fn on<V: Simd>(&self) -> Vec<u32> {
        let data = samples(41, self.0);
        let width = data.design().n_coefficients() + 1;
        let mut rows = vec![0.0; 40 * width + 16];
        // SAFETY: `on` runs only where the machine has V's path; behind the rows is room for one vector.
        unsafe { data.design().fill_rows_simd::<V>(1, 40, &mut rows) };
        rows[..40 * width].iter().map(|value| value.to_bits()).collect()
    }
}

#[test]
fn rows_have_the_bits_of_scalar_arithmetic() {
    for isa in Isa::supported() {
        for n_features in [1, 3, 4, 6, 16, 21] {
            let (got, wanted) = (on_path(isa, &Rows(n_features)), on_scalar(isa, &Rows(n_features)));
            assert!(got == wanted, "{isa:?} {n_features} features");
        }
    }
}

/// (sigmoid, softplus) of margins over the whole range, extremes included.
struct Sigmoid;

impl Probe for Sigmoid {
    type Out = (Vec<u32>, Vec<u32>);
    fn on<V: Simd>(&self) -> Self::Out {
        let extremes = [0.0, -0.0, 125.9, -125.9, 126.0, -126.1, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY];
        let margins: Vec<f32> =
            (-12_000..12_000).map(|i| i as f32 * 0.011).chain(extremes.into_iter().cycle().take(160)).collect();
        let (n, constants) = (margins.len(), Constants::new());
        // SAFETY: `on` runs only where the machine has V's path.
        let both = |i: usize| unsafe { constants.sigmoid_softplus([[vector::<V>(&margins, i)]]) };
        (column(n, |i| both(i).0[0][0]), column(n, |i| both(i).1[0][0]))
    }
}

#[test]
fn sigmoid_and_softplus_have_the_bits_of_scalar_arithmetic() {
    for isa in Isa::supported() {
        assert!(on_path(isa, &Sigmoid) == on_scalar(isa, &Sigmoid), "{isa:?}");
    }
}

/// BLAKE3 of the params (little-endian float64) of the searches in `every_path_gives_the_recorded_bits`: the paths that
/// fuse, and the one that does not. A change of the kernel's blocks or summation order changes both: run the test, which
/// prints what it found, and record that once the paths at hand agree on it.
const RECORDED_FUSED: &str = "78d75c9e8887c09fb19aa65b54bb2e4b15152257e667375f3d4d0a821f05f897";
const RECORDED_SEPARATE: &str = "4ea1158b7c7639ea6dd8c3f367f542738df03c8b9b3a0eb039aa4d3670f6cfd6";

#[test]
fn every_path_gives_the_recorded_bits() {
    // (meta-neurons, features): full and half groups on every width of vectors, gradient tiles of many heights.
    const SEARCHES: [(usize, usize); 5] = [(7, 3), (3, 6), (2, 1), (5, 2), (1, 20)];
    let found = Isa::supported().map(|isa| {
        let mut hasher = blake3::Hasher::new();
        for (neurons, n_features) in SEARCHES {
            let search = run(&samples(1_003, n_features), neurons, isa, 8, 1);
            assert_eq!(search.isa(), isa);
            assert!(search.state().diverged.iter().all(|diverged| !diverged));
            search.params().iter().for_each(|value| _ = hasher.update(&value.to_le_bytes()));
        }
        println!("{isa:?}: {}", hasher.finalize());
        (isa, hasher.finalize().to_string())
    });
    for (isa, found) in found.collect::<Vec<_>>() {
        assert_eq!(found, if isa.fuses() { RECORDED_FUSED } else { RECORDED_SEPARATE }, "{isa:?}");
    }
}
