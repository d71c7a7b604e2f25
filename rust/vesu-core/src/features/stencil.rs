//! Central finite differences of a smoothed volume, one row at a time.
//!
//! Rows carry one repeated value at either end, so that every loop runs over the whole row; clamped edges
//! throughout, as SciPy's `correlate1d(mode="nearest")`.

use super::simd::multiversion;

/// Rows around the one in question: `[dz + 1][dy + 1]`, each one voxel wider at either end.
pub type Neighbours<'a> = [[&'a [f32]; 3]; 3];

multiversion! {
    /// First differences along z, y, x: `(next - previous) / 2`.
    pub fn gradient(out: [&mut [f32]; 3], rows: &Neighbours<'_>) {
        let [out_z, out_y, out_x] = out;
        let n = out_z.len();
        let (out_y, out_x) = (&mut out_y[..n], &mut out_x[..n]);
        let (z_low, z_high) = (&rows[0][1][1..n + 1], &rows[2][1][1..n + 1]);
        let (y_low, y_high) = (&rows[1][0][1..n + 1], &rows[1][2][1..n + 1]);
        let (x_low, x_high) = (&rows[1][1][..n], &rows[1][1][2..n + 2]);
        for x in 0..n {
            out_z[x] = 0.5 * (z_high[x] - z_low[x]);
            out_y[x] = 0.5 * (y_high[x] - y_low[x]);
            out_x[x] = 0.5 * (x_high[x] - x_low[x]);
        }
    }
}

multiversion! {
    /// Second differences, in the order zz, yy, xx, zy, zx, yx: `(1, -2, 1)` along one axis, and the product
    /// of two first differences across two.
    pub fn hessian(out: &mut [Vec<f32>; 6], rows: &Neighbours<'_>) {
        let [zz, yy, xx, zy, zx, yx] = out;
        let n = zz.len();
        let (yy, xx, zy, zx, yx) = (&mut yy[..n], &mut xx[..n], &mut zy[..n], &mut zx[..n], &mut yx[..n]);
        let row = |dz: usize, dy: usize, dx: usize| &rows[dz][dy][dx..n + dx];
        let centre = row(1, 1, 1);
        let (z_low, z_high) = (row(0, 1, 1), row(2, 1, 1));
        let (y_low, y_high) = (row(1, 0, 1), row(1, 2, 1));
        let (x_low, x_high) = (row(1, 1, 0), row(1, 1, 2));
        for x in 0..n {
            let twice = 2.0 * centre[x];
            zz[x] = (z_low[x] + z_high[x]) - twice;
            yy[x] = (y_low[x] + y_high[x]) - twice;
            xx[x] = (x_low[x] + x_high[x]) - twice;
        }
        let zy_rows = [row(2, 2, 1), row(2, 0, 1), row(0, 2, 1), row(0, 0, 1)];
        let zx_rows = [row(2, 1, 2), row(2, 1, 0), row(0, 1, 2), row(0, 1, 0)];
        let yx_rows = [row(1, 2, 2), row(1, 2, 0), row(1, 0, 2), row(1, 0, 0)];
        for (out, [high_high, high_low, low_high, low_low]) in [(zy, zy_rows), (zx, zx_rows), (yx, yx_rows)] {
            for x in 0..n {
                out[x] = 0.25 * ((high_high[x] - high_low[x]) - (low_high[x] - low_low[x]));
            }
        }
    }
}

multiversion! {
    /// Euclidean length of the gradient.
    pub fn magnitude(out: &mut [f32], gradient: [&[f32]; 3]) {
        let n = out.len();
        let (gz, gy, gx) = (&gradient[0][..n], &gradient[1][..n], &gradient[2][..n]);
        for x in 0..n {
            out[x] = (gz[x] * gz[x] + gy[x] * gy[x] + gx[x] * gx[x]).sqrt();
        }
    }
}

multiversion! {
    /// Trace of the Hessian.
    pub fn laplacian(out: &mut [f32], hessian: &[Vec<f32>; 6]) {
        let n = out.len();
        let (zz, yy, xx) = (&hessian[0][..n], &hessian[1][..n], &hessian[2][..n]);
        for x in 0..n {
            out[x] = zz[x] + yy[x] + xx[x];
        }
    }
}
