//! Checks that every kernel of this module shares.

use rayon::prelude::*;

use super::Shape;
use crate::{Cancel, Error, Result};

const CHUNK: usize = 1 << 16;

/// Number of voxels of `shape`: at least 1, and at most 2^32 - 1, because labels and run indices are `u32`.
pub fn voxel_count(name: &'static str, shape: Shape) -> Result<usize> {
    let voxels = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
    match voxels {
        Some(voxels) if voxels > 0 && u32::try_from(voxels).is_ok() => Ok(voxels),
        _ => Err(Error::argument(name, format!("shape {shape:?}"), "1 to 4294967295 voxels (labels are 32 bits wide)")),
    }
}

/// Refuse a slice whose length is not that of `shape`.
pub(super) fn same_length(name: &'static str, length: usize, shape: Shape) -> Result<()> {
    if voxel_count(name, shape)? == length {
        Ok(())
    } else {
        Err(Error::argument(name, format!("{length} values"), format!("as many as shape {shape:?} holds")))
    }
}

/// `length` times `value`, or an error that names `what` where memory is short.
pub(super) fn filled<T: Clone>(what: &'static str, value: T, length: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(length).map_err(|_| Error::Memory {
        what: what.to_owned(),
        needed: (length as u64).saturating_mul(size_of::<T>() as u64),
        limit: isize::MAX as u64,
    })?;
    values.resize(length, value);
    Ok(values)
}

/// Refuse probabilities that are NaN or outside [0, 1], with their number and the first one's place.
pub(super) fn unit_interval(name: &'static str, values: &[f32], shape: Shape, cancel: &Cancel) -> Result<()> {
    let bad = values
        .par_chunks(CHUNK)
        .map(|chunk| {
            cancel.check()?;
            Ok(chunk.iter().filter(|&&value| outside_unit_interval(value)).count())
        })
        .sum::<Result<usize>>()?;
    if bad == 0 { Ok(()) } else { Err(refusal(name, values, shape, bad, outside_unit_interval, "float32 in [0, 1]")) }
}

/// True for NaN as well.
pub(super) fn outside_unit_interval(value: f32) -> bool {
    !(0.0..=1.0).contains(&value)
}

/// The error for `count` values that are `bad`.
pub(super) fn refusal<T: Copy + std::fmt::Display>(
    name: &'static str,
    values: &[T],
    shape: Shape,
    count: usize,
    bad: fn(T) -> bool,
    accepted: &str,
) -> Error {
    let first = values.iter().position(|&value| bad(value)).unwrap_or(0);
    let (z, y, x) = (first / (shape[1] * shape[2]), first / shape[2] % shape[1], first % shape[2]);
    let plural = if count == 1 { "value" } else { "values" };
    let got = format!("{count} forbidden {plural}, the first {} at (z, y, x) = ({z}, {y}, {x})", values[first]);
    Error::argument(name, got, accepted)
}
