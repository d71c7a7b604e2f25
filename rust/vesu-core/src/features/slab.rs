//! The order of the passes: slab after slab of z-slices, scale after scale, each pass parallel over rows or planes.
//!
//! For one slab and one scale:
//! 1. every y: standardise the volume's rows, filter them (and their squares) along z;
//! 2. every z: filter along y and x; the smoothed slab, with a few slices more than asked for at either end;
//! 3. every y: products of the smoothed slab's gradient, filtered along z;
//! 4. every z: all channels of one plane, among them what pass 3 and the squares still lack along y and x.
//!
//! Every value is a function of its position alone, so neither slabs nor threads show in the result. Scratch is
//! laid out (y, z, x) between a z-pass and what follows: a z-pass then writes one contiguous piece.

use std::ops::Range;

use rayon::prelude::*;

use super::gaussian::{Kernel, repeat_ends};
use super::memory::{bytes_of, check_limit, zeroed};
use super::plane::{self, PlaneOutputs};
use super::spec::{Family, Spec};
use super::statistics::{Statistics, Voxel};
use super::stencil::Neighbours;
use super::tensor;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Slices a slab: fewer cost more repeated work at the ends, more cost scratch.
const SLAB: usize = 32;

/// What every pass needs to know.
pub struct Job<'a, T> {
    pub volume: &'a [T],
    pub shape: [usize; 3],
    pub spec: &'a Spec,
    pub statistics: Statistics,
    pub cancel: &'a Cancel,
}

/// The slices of one slab at one scale.
#[derive(Clone, Debug)]
pub struct Window {
    /// Slices to return.
    pub out: Range<usize>,
    /// Slices to smooth: those that the differences and the structure tensor of `out` look at.
    pub smooth: Range<usize>,
}

impl Window {
    fn new(out: Range<usize>, kernel: &Kernel, spec: &Spec, nz: usize) -> Self {
        let reach = if spec.has(Family::Planarity) { kernel.radius() + 1 } else { 1 };
        Self { smooth: widen(&out, reach, nz), out }
    }

    /// Slices whose gradient the structure tensor of `out` needs.
    pub fn gradient_rows(&self, kernel: &Kernel, nz: usize) -> Range<usize> {
        widen(&self.out, kernel.radius(), nz)
    }

    /// Floats of a y-piece of the z-filtered volume: smoothed slices, then squares of the returned ones.
    pub fn column_len(&self, nx: usize) -> usize {
        (self.smooth.len() + self.out.len()) * nx
    }

    /// The nine rows of the smoothed slab around (z, y), indices clamped to the volume.
    pub fn neighbours<'a>(&self, shape: [usize; 3], smooth: &'a [f32], z: usize, y: usize) -> Neighbours<'a> {
        let [nz, ny, nx] = shape;
        let around = |at: usize, len: usize| [at.saturating_sub(1), at, (at + 1).min(len - 1)];
        around(z, nz).map(|z| around(y, ny).map(|y| &smooth[((z - self.smooth.start) * ny + y) * (nx + 2)..][..nx + 2]))
    }
}

/// Channels of the slices `z_range` of `volume`, as (channel, z, y, x).
///
/// Statistics and neighbours come from the whole volume: the bits are those of the whole extraction. Refused
/// before allocating when output and scratch together exceed `max_bytes`.
pub fn extract<T: Voxel>(
    volume: &[T],
    shape: [usize; 3],
    spec: &Spec,
    z_range: Range<usize>,
    max_bytes: u64,
    cancel: &Cancel,
) -> Result<Vec<f32>> {
    let [nz, ny, nx] = shape;
    if bytes_of(&shape) / 4 != volume.len() as u64 || volume.is_empty() {
        return Err(Error::argument("shape", format!("{shape:?}"), format!("three axes of {} voxels", volume.len())));
    }
    if z_range.start >= z_range.end || z_range.end > nz {
        return Err(Error::argument("z_range", format!("{z_range:?}"), format!("a non-empty part of 0..{nz}")));
    }
    let kernels: Vec<Kernel> = spec.scales().iter().map(|&sigma| Kernel::new(sigma)).collect();
    let sizes = ScratchSizes::new(shape, spec, &kernels, z_range.len());
    let output_bytes = bytes_of(&[spec.n_channels(), z_range.len(), ny, nx]);
    check_limit("features (with scratch)", output_bytes.saturating_add(sizes.bytes()), max_bytes)?;

    let statistics = Statistics::of(volume, shape, cancel)?;
    let mut output = zeroed("features", spec.n_channels() * z_range.len() * ny * nx)?;
    let mut scratch = Scratch::new(&sizes)?;
    let mut planes: Vec<Option<&mut [f32]>> = output.chunks_exact_mut(ny * nx).map(Some).collect();
    let job = Job { volume, shape, spec, statistics, cancel };
    for start in z_range.clone().step_by(SLAB) {
        let slab = start..z_range.end.min(start + SLAB);
        job.fill_previous(&slab, &mut scratch.previous)?;
        for (scale, kernel) in kernels.iter().enumerate() {
            let outputs = slab.clone().map(|z| {
                let at = |channel: usize| channel * z_range.len() + z - z_range.start;
                Family::ALL.map(|family| spec.channel(family, scale).and_then(|channel| planes[at(channel)].take()))
            });
            let window = Window::new(slab.clone(), kernel, spec, nz);
            job.run(&window, kernel, &mut scratch, outputs.collect())?;
        }
    }
    drop(planes);
    Ok(output)
}

impl<T: Voxel> Job<'_, T> {
    /// All passes of one window; consumes the output planes of its slices at this scale.
    fn run(
        &self,
        window: &Window,
        kernel: &Kernel,
        scratch: &mut Scratch,
        outputs: Vec<PlaneOutputs<'_>>,
    ) -> Result<()> {
        let [_, ny, nx] = self.shape;
        let columns = &mut scratch.columns[..ny * window.column_len(nx)];
        columns.par_chunks_exact_mut(window.column_len(nx)).enumerate().try_for_each_init(
            Buffers::default,
            |buffers, (y, column)| {
                self.cancel.check()?;
                self.filter_columns(window, kernel, y, column, buffers);
                Ok(())
            },
        )?;
        let columns = &*columns;

        let smooth = &mut scratch.smooth[..window.smooth.len() * ny * (nx + 2)];
        smooth
            .par_chunks_exact_mut(ny * (nx + 2))
            .enumerate()
            .try_for_each_init(Buffers::default, |buffers, (z, plane)| {
                self.smooth_plane(window, kernel, columns, (z, plane), buffers)
            })?;
        let smooth = &*smooth;

        let tensor_len = if self.spec.has(Family::Planarity) { 6 * window.out.len() * nx } else { 0 };
        let tensor = &mut scratch.tensor[..ny * tensor_len];
        tensor.par_chunks_mut(tensor_len.max(1)).enumerate().try_for_each_init(
            tensor::Buffers::default,
            |buffers, item| {
                self.cancel.check()?;
                tensor::filter_products(self, window, kernel, smooth, item, buffers);
                Ok(())
            },
        )?;

        let slab = plane::Slab { window, kernel, columns, smooth, tensor };
        let previous = scratch.previous.par_chunks_exact_mut(ny * nx);
        outputs.into_par_iter().zip(previous).enumerate().try_for_each_init(
            || plane::Buffers::new(nx, kernel.radius()),
            |buffers, (at, (outputs, previous))| plane::finish(self, &slab, at, outputs, previous, buffers),
        )
    }

    /// Pass 1 for one `y`.
    fn filter_columns(&self, window: &Window, kernel: &Kernel, y: usize, column: &mut [f32], buffers: &mut Buffers) {
        let [nz, _, nx] = self.shape;
        let input = widen(&window.smooth, kernel.radius(), nz);
        buffers.rows.resize(input.len() * nx, 0.0);
        for (row, z) in buffers.rows.chunks_exact_mut(nx).zip(input.clone()) {
            self.standardised_row(row, z, y);
        }
        let start = |z: usize| (z - input.start) * nx;
        let (smooth, square) = column.split_at_mut(window.smooth.len() * nx);
        for (row, z) in smooth.chunks_exact_mut(nx).zip(window.smooth.clone()) {
            kernel.filter_row(row, &buffers.rows, z, nz, &mut buffers.starts, start);
        }
        if self.spec.has(Family::Variance) {
            for value in &mut buffers.rows {
                *value *= *value;
            }
            for (row, z) in square.chunks_exact_mut(nx).zip(window.out.clone()) {
                kernel.filter_row(row, &buffers.rows, z, nz, &mut buffers.starts, start);
            }
        }
    }

    /// Pass 2 for the `z`-th smoothed plane; its rows get one repeated value at either end.
    fn smooth_plane(
        &self,
        window: &Window,
        kernel: &Kernel,
        columns: &[f32],
        (z, plane): (usize, &mut [f32]),
        buffers: &mut Buffers,
    ) -> Result<()> {
        let [_, ny, nx] = self.shape;
        buffers.rows.resize(nx + 2 * kernel.radius(), 0.0);
        for (y, row) in plane.chunks_exact_mut(nx + 2).enumerate() {
            self.cancel.check()?;
            let start = |y: usize| y * window.column_len(nx) + z * nx;
            filter_yx(kernel, &mut row[1..=nx], columns, (y, ny), &mut buffers.rows, &mut buffers.starts, start);
            repeat_ends(row, 1);
        }
        Ok(())
    }

    fn standardised_row(&self, out: &mut [f32], z: usize, y: usize) {
        let [_, ny, nx] = self.shape;
        let Statistics { mean, std } = self.statistics;
        T::standardise(out, &self.volume[(z * ny + y) * nx..][..nx], mean, 1.0 / std);
    }

    /// Before the first scale, the band-pass is taken against the unsmoothed volume.
    fn fill_previous(&self, slab: &Range<usize>, previous: &mut [f32]) -> Result<()> {
        let [_, ny, nx] = self.shape;
        previous.par_chunks_exact_mut(ny * nx).zip(slab.clone()).try_for_each(|(plane, z)| {
            self.cancel.check()?;
            plane.chunks_exact_mut(nx).enumerate().for_each(|(y, row)| self.standardised_row(row, z, y));
            Ok(())
        })
    }
}

/// Filter along y and x what is already filtered along z; `start(y)` is where row y begins in `columns`.
pub fn filter_yx(
    kernel: &Kernel,
    out: &mut [f32],
    columns: &[f32],
    (y, ny): (usize, usize),
    wide: &mut [f32],
    starts: &mut Vec<usize>,
    start: impl Fn(usize) -> usize,
) {
    let radius = kernel.radius();
    kernel.filter_row(&mut wide[radius..radius + out.len()], columns, y, ny, starts, start);
    repeat_ends(wide, radius);
    kernel.filter_along(out, wide, starts);
}

/// `range` and `by` more at either end, within `0..len`.
fn widen(range: &Range<usize>, by: usize, len: usize) -> Range<usize> {
    range.start.saturating_sub(by)..len.min(range.end + by)
}

/// Scratch of one thread in passes 1 and 2.
#[derive(Default)]
struct Buffers {
    rows: Vec<f32>,
    starts: Vec<usize>,
}

/// Floats of each shared scratch array, enough for every slab at every scale.
struct ScratchSizes([[usize; 3]; 4]);

impl ScratchSizes {
    fn new([nz, ny, nx]: [usize; 3], spec: &Spec, kernels: &[Kernel], n_slices: usize) -> Self {
        let depth = n_slices.min(SLAB);
        let widest = kernels.iter().map(Kernel::radius).max().unwrap_or(0);
        let reach = if spec.has(Family::Planarity) { widest + 1 } else { 1 };
        let smooth = nz.min(depth + 2 * reach);
        let tensor = if spec.has(Family::Planarity) { 6 * depth } else { 0 };
        Self([[ny, smooth + depth, nx], [smooth, ny, nx.saturating_add(2)], [ny, tensor, nx], [depth, ny, nx]])
    }

    fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, factors| sum.saturating_add(bytes_of(factors)))
    }
}

struct Scratch {
    columns: Vec<f32>,
    smooth: Vec<f32>,
    tensor: Vec<f32>,
    previous: Vec<f32>,
}

impl Scratch {
    fn new(sizes: &ScratchSizes) -> Result<Self> {
        let [columns, smooth, tensor, previous] =
            sizes.0.map(|factors| zeroed("scratch of the features", factors.iter().product()));
        Ok(Self { columns: columns?, smooth: smooth?, tensor: tensor?, previous: previous? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(shape: [usize; 3], z_range: Range<usize>, max_bytes: u64, cancel: &Cancel) -> Result<Vec<f32>> {
        let volume: Vec<u8> = (0..shape.iter().product::<usize>()).map(|i| (i * 37 % 251) as u8).collect();
        let spec = Spec::new(&[1.0, 2.0], &Family::ALL.map(Family::name), true).unwrap();
        extract(&volume, shape, &spec, z_range, max_bytes, cancel)
    }

    #[test]
    fn slabs_do_not_show() {
        let shape = [2 * SLAB + 5, 4, 9];
        let whole = all(shape, 0..shape[0], u64::MAX, &Cancel::new()).unwrap();
        let plane = shape[1] * shape[2];
        for z in [0, SLAB - 1, SLAB, 2 * SLAB + 4] {
            let one = all(shape, z..z + 1, u64::MAX, &Cancel::new()).unwrap();
            for (channel, found) in one.chunks_exact(plane).enumerate() {
                assert_eq!(found, &whole[(channel * shape[0] + z) * plane..][..plane], "channel {channel}, z {z}");
            }
        }
    }

    #[test]
    fn instruction_sets_do_not_show() {
        use std::sync::atomic::Ordering;

        use crate::features::simd::FORCE_PORTABLE;

        let shape = [20, 21, 90];
        let wide = all(shape, 0..20, u64::MAX, &Cancel::new()).unwrap();
        FORCE_PORTABLE.store(true, Ordering::Relaxed); // tests beside this one then also take it: same bits
        let portable = all(shape, 0..20, u64::MAX, &Cancel::new()).unwrap();
        FORCE_PORTABLE.store(false, Ordering::Relaxed);
        assert!(wide.iter().zip(&portable).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn refusals() {
        let shape = [3, 4, 5];
        let cancelled = Cancel::new();
        cancelled.cancel();
        assert!(matches!(all(shape, 0..3, u64::MAX, &cancelled), Err(Error::Cancelled)));
        assert!(matches!(all(shape, 0..3, 1000, &Cancel::new()), Err(Error::Memory { limit: 1000, .. })));
        for range in [0..0, 2..4] {
            assert!(matches!(
                all(shape, range, u64::MAX, &Cancel::new()),
                Err(Error::Argument { name: "z_range", .. })
            ));
        }
        let spec = Spec::new(&[1.0], &["intensity"], true).unwrap();
        let wrong = extract(&[0u8; 7], [2, 2, 2], &spec, 0..2, u64::MAX, &Cancel::new());
        assert!(matches!(wrong, Err(Error::Argument { name: "shape", .. })));
    }
}
