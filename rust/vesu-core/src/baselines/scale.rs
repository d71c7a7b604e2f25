//! The map that takes a volume's least value to 0 and its greatest to 1.

use rayon::prelude::*;

use crate::features::Voxel;
use crate::features::statistics::Statistics;
use crate::volume::Shape;
use crate::{Cancel, Result};

const CHUNK: usize = 1 << 16;

/// `scaled = (value - least) * factor`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    least: f64,
    factor: f64,
    /// Standard deviation of the scaled volume.
    pub std: f64,
}

impl Scale {
    /// `None` for a constant volume. Refuses non-finite values with their count and the first one's place.
    pub fn of<T: Voxel>(volume: &[T], shape: Shape, cancel: &Cancel) -> Result<Option<Self>> {
        let Statistics { std, .. } = Statistics::of(volume, shape, cancel)?;
        let (least, most) = volume
            .par_chunks(CHUNK)
            .map(|chunk| {
                cancel.check()?;
                Ok(extremes(chunk))
            })
            // The least and the greatest do not depend on the order.
            .try_reduce(|| (f64::INFINITY, f64::NEG_INFINITY), |a, b| Ok((a.0.min(b.0), a.1.max(b.1))))?;
        if least >= most {
            return Ok(None);
        }
        let factor = 1.0 / (most - least);
        Ok(Some(Self { least, factor, std: std * factor }))
    }

    pub fn row<T: Voxel>(&self, out: &mut [f32], row: &[T]) {
        T::standardise(out, row, self.least, self.factor);
    }
}

fn extremes<T: Voxel>(values: &[T]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        let value = value.as_f64();
        (least.min(value), most.max(value))
    })
}
