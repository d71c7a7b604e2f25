//! 3-D multi-scale sheet features: nine families over any list of scales (default 1, 2, 4 voxels).
//!
//! Everything is built from Gaussian-smoothed copies of the standardised volume, in slabs of a few z-slices:
//! [`slab`] holds the order of the passes, [`gaussian`] the one filter kernel, [`stencil`] the finite
//! differences, [`eigen`] the eigenvalues. No arithmetic is fused or reordered, so the bits agree on any number
//! of threads, on any instruction set and for any range of slices.

mod eigen;
mod gather;
pub(crate) mod gaussian;
mod memory;
mod moments;
mod plane;
pub(crate) mod simd;
mod slab;
mod spec;
pub(crate) mod statistics;
mod stencil;
mod tensor;

pub use gather::gather;
pub use moments::{CHUNK as MOMENT_CHUNK, Moments, moment_sums, moments};
pub use slab::extract;
pub(crate) use slab::filter_yx;
pub use spec::{Family, Spec};
pub use statistics::Voxel;
