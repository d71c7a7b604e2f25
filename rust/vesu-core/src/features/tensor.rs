//! The structure tensor's first half: products of the gradient's components, filtered along z.

use super::gaussian::Kernel;
use super::simd::multiversion;
use super::slab::{Job, Window};
use super::stencil;

/// The components in the order zz, yy, xx, zy, zx, yx.
const PAIRS: [(usize, usize); 6] = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)];

/// Scratch of one thread.
#[derive(Default)]
pub struct Buffers {
    gradient: [Vec<f32>; 3],
    product: Vec<f32>,
    starts: Vec<usize>,
}

/// Fill `out`, laid out (component, z, x), for one `y`: the z-filtered products of the gradient of `smooth`.
pub fn filter_products<T>(
    job: &Job<'_, T>,
    window: &Window,
    kernel: &Kernel,
    smooth: &[f32],
    (y, out): (usize, &mut [f32]),
    buffers: &mut Buffers,
) {
    let [nz, _, nx] = job.shape;
    let input = window.gradient_rows(kernel, nz);
    for part in buffers.gradient.iter_mut().chain([&mut buffers.product]) {
        part.resize(input.len() * nx, 0.0);
    }
    for (at, z) in input.clone().enumerate() {
        let rows = window.neighbours(job.shape, smooth, z, y);
        stencil::gradient(buffers.gradient.each_mut().map(|part| &mut part[at * nx..][..nx]), &rows);
    }
    for ((a, b), component) in PAIRS.into_iter().zip(out.chunks_exact_mut(window.out.len() * nx)) {
        multiply(&mut buffers.product, &buffers.gradient[a], &buffers.gradient[b]);
        for (row, z) in component.chunks_exact_mut(nx).zip(window.out.clone()) {
            let start = |z: usize| (z - input.start) * nx;
            kernel.filter_row(row, &buffers.product, z, nz, &mut buffers.starts, start);
        }
    }
}

multiversion! {
    fn multiply(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a * b;
        }
    }
}
