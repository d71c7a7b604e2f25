//! What can be measured of components, part by part.

use super::Shape;
use super::bits::WORD;

/// The voxels of one component in one word of one row.
pub(super) struct Part {
    pub z: usize,
    pub y: usize,
    pub word: usize,
    /// May be none.
    pub bits: u64,
}

impl Part {
    /// x of the first and of the last voxel.
    #[inline(always)]
    pub fn ends(&self) -> (usize, usize) {
        let first = self.bits.trailing_zeros() as usize;
        (self.word * WORD + first, self.word * WORD + 63 - self.bits.leading_zeros() as usize)
    }
}

/// A sum over the parts of a component, in which order does not matter.
pub(super) trait Measure: Sync {
    type Total: Copy + Send + Sync;
    fn nothing(&self) -> Self::Total;
    fn add(&self, total: &mut Self::Total, part: &Part);
    fn join(&self, total: &mut Self::Total, other: Self::Total);
}

/// Voxels.
pub(super) struct Size;

impl Measure for Size {
    type Total = u32;
    fn nothing(&self) -> u32 {
        0
    }
    #[inline(always)]
    fn add(&self, total: &mut u32, part: &Part) {
        *total += part.bits.count_ones();
    }
    #[inline(always)]
    fn join(&self, total: &mut u32, other: u32) {
        *total += other;
    }
}

/// Place of the first voxel in C order.
pub(super) struct First {
    pub shape: Shape,
}

impl Measure for First {
    type Total = u32;
    fn nothing(&self) -> u32 {
        u32::MAX
    }
    #[inline(always)]
    fn add(&self, total: &mut u32, part: &Part) {
        if part.bits != 0 {
            let [_, ny, nx] = self.shape;
            *total = ((part.z * ny + part.y) * nx + part.ends().0).min(*total as usize) as u32;
        }
    }
    #[inline(always)]
    fn join(&self, total: &mut u32, other: u32) {
        *total = other.min(*total);
    }
}

/// Whether a voxel lies on a face of the volume.
pub(super) struct OnBorder {
    pub shape: Shape,
}

impl Measure for OnBorder {
    type Total = bool;
    fn nothing(&self) -> bool {
        false
    }
    #[inline(always)]
    fn add(&self, total: &mut bool, part: &Part) {
        let [nz, ny, nx] = self.shape;
        let outer_row = part.z == 0 || part.z + 1 == nz || part.y == 0 || part.y + 1 == ny;
        let first = part.word == 0 && part.bits & 1 == 1;
        let last = part.word == (nx - 1) / WORD && part.bits >> ((nx - 1) % WORD) & 1 == 1;
        *total |= part.bits != 0 && outer_row || first || last;
    }
    #[inline(always)]
    fn join(&self, total: &mut bool, other: bool) {
        *total |= other;
    }
}

/// Per axis the first voxel's place and the one after the last.
pub(super) struct BoundingBox;

impl Measure for BoundingBox {
    type Total = [[u32; 2]; 3];
    fn nothing(&self) -> Self::Total {
        [[u32::MAX, 0]; 3]
    }
    #[inline(always)]
    fn add(&self, total: &mut Self::Total, part: &Part) {
        if part.bits != 0 {
            let (first, last) = part.ends();
            let within = [(part.z, part.z), (part.y, part.y), (first, last)];
            self.join(total, within.map(|(first, last)| [first as u32, last as u32 + 1]));
        }
    }
    #[inline(always)]
    fn join(&self, total: &mut Self::Total, other: Self::Total) {
        for (axis, other) in total.iter_mut().zip(other) {
            *axis = [axis[0].min(other[0]), axis[1].max(other[1])];
        }
    }
}

/// Whether a voxel's value reaches a threshold, of those between a component's voxels in a row too.
///
/// Those lie below the component's own, lower threshold, so they cannot.
pub(super) struct Reaches<'p> {
    pub probability: &'p [f32],
    pub shape: Shape,
    pub threshold: f32,
}

impl Measure for Reaches<'_> {
    type Total = bool;
    fn nothing(&self) -> bool {
        false
    }
    #[inline(always)]
    fn add(&self, total: &mut bool, part: &Part) {
        if part.bits != 0 && !*total {
            let [_, ny, nx] = self.shape;
            let (first, last) = part.ends();
            let row = (part.z * ny + part.y) * nx;
            // A fold without an early exit: the compiler turns it into vector compares.
            let values = &self.probability[row + first..=row + last];
            *total = values.iter().fold(false, |any, &p| any | (p >= self.threshold));
        }
    }
    #[inline(always)]
    fn join(&self, total: &mut bool, other: bool) {
        *total |= other;
    }
}

/// Two measures in one pass.
pub(super) struct Both<A, B>(pub A, pub B);

impl<A: Measure, B: Measure> Measure for Both<A, B> {
    type Total = (A::Total, B::Total);
    fn nothing(&self) -> Self::Total {
        (self.0.nothing(), self.1.nothing())
    }
    #[inline(always)]
    fn add(&self, total: &mut Self::Total, part: &Part) {
        self.0.add(&mut total.0, part);
        self.1.add(&mut total.1, part);
    }
    #[inline(always)]
    fn join(&self, total: &mut Self::Total, other: Self::Total) {
        self.0.join(&mut total.0, other.0);
        self.1.join(&mut total.1, other.1);
    }
}
