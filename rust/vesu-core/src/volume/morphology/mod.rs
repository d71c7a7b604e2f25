//! Dilation, erosion, opening and closing by balls and boxes.
//!
//! Voxels outside the volume are ignored. That makes dilation and erosion adjoint on the volume, so closing never takes
//! a voxel away, opening never adds one, and both change nothing the second time.

mod dilate;
mod element;
mod fused;
mod join;
mod lattice;
pub(super) mod packed;
mod section;

use std::borrow::Cow;

use rayon::prelude::*;

use super::Shape;
use super::check::{refusal, same_length};
use crate::pages::zeroed;
use crate::{Cancel, Result};
use dilate::dilate;
use element::{Element, elements};
pub use element::{ElementShape, MAX_RADIUS};
use fused::{Fused, Stage};
use join::Best;
use lattice::{Bits, Largest, Smallest};
use packed::{pack_row, tail_mask, unpack_row, words_of};
use section::Sections;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Dilation,
    Erosion,
    /// Erosion, then dilation.
    Opening,
    /// Dilation, then erosion.
    Closing,
}

#[derive(Clone, Copy, PartialEq)]
enum Half {
    Dilation,
    Erosion,
}

impl Operation {
    fn halves(self) -> &'static [Half] {
        match self {
            Self::Dilation => &[Half::Dilation],
            Self::Erosion => &[Half::Erosion],
            Self::Opening => &[Half::Erosion, Half::Dilation],
            Self::Closing => &[Half::Dilation, Half::Erosion],
        }
    }
}

/// A symmetric structuring element: radii along z, y, x.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    pub radius: [u64; 3],
    pub shape: ElementShape,
}

/// Binary morphology; the result is 0 or 1.
pub fn binary_morphology(
    mask: &[u8],
    shape: Shape,
    operation: Operation,
    structure: Structure,
    cancel: &Cancel,
) -> Result<Vec<u8>> {
    same_length("volume", mask.len(), shape)?;
    let steps = elements(structure.radius, structure.shape, shape)?;
    let nx = shape[2];
    let mut bits = zeroed("the packed mask", shape[0] * shape[1] * words_of(nx))?;
    by_slices(&mut bits, words_of(nx), mask, nx, shape, cancel, |words, voxels| pack_row(voxels, words))?;
    for half in operation.halves() {
        bits = binary_half(bits, shape, *half, &steps, cancel)?;
    }
    let mut result = zeroed("the mask", mask.len())?;
    by_slices(&mut result, nx, &bits, words_of(nx), shape, cancel, |voxels, words| unpack_row(words, voxels))?;
    Ok(result)
}

/// An erosion dilates the background.
fn binary_half(mut bits: Vec<u64>, shape: Shape, half: Half, steps: &[Element], cancel: &Cancel) -> Result<Vec<u64>> {
    if half == Half::Erosion {
        complement(&mut bits, shape);
    }
    let mut dilated = dilate::<Bits>(bits.into(), shape, steps, cancel)?;
    if half == Half::Erosion {
        complement(&mut dilated, shape);
    }
    Ok(dilated)
}

fn complement(bits: &mut [u64], [_, ny, nx]: Shape) {
    let words = words_of(nx);
    bits.par_chunks_mut(ny * words).for_each(|slice| {
        slice.iter_mut().for_each(|word| *word = !*word);
        slice.iter_mut().skip(words - 1).step_by(words).for_each(|word| *word &= tail_mask(nx));
    });
}

/// Make each row of `to` from the same row of `from`.
fn by_slices<T: Send, S: Sync>(
    to: &mut [T],
    to_row: usize,
    from: &[S],
    from_row: usize,
    [_, ny, _]: Shape,
    cancel: &Cancel,
    convert: impl Fn(&mut [T], &[S]) + Sync,
) -> Result<()> {
    to.par_chunks_mut(ny * to_row).zip(from.par_chunks(ny * from_row)).try_for_each(|(to, from)| {
        for (to, from) in to.chunks_exact_mut(to_row).zip(from.chunks_exact(from_row)) {
            cancel.check()?;
            convert(to, from);
        }
        Ok(())
    })
}

/// Grey morphology: the largest or smallest value under the element. NaN is refused. Of zeros of either sign that meet,
/// either may stay: the same one on every run and any number of threads.
pub fn grey_morphology(
    volume: &[f32],
    shape: Shape,
    operation: Operation,
    structure: Structure,
    cancel: &Cancel,
) -> Result<Vec<f32>> {
    same_length("volume", volume.len(), shape)?;
    let steps = elements(structure.radius, structure.shape, shape)?;
    if let Some(stages) = stages(operation, &steps)
        && let Some(fused) = Fused::new(stages, shape)
        && let Some(result) = fused.run(volume, cancel)?
    {
        return Ok(result);
    }
    refuse_nan(volume, shape, cancel)?;
    one_by_one(volume, shape, operation, &steps, cancel)
}

/// By elements too wide to hold all that lies between: a whole volume after each.
fn one_by_one(
    volume: &[f32],
    shape: Shape,
    operation: Operation,
    steps: &[Element],
    cancel: &Cancel,
) -> Result<Vec<f32>> {
    let mut result = Cow::Borrowed(volume);
    for half in operation.halves() {
        result = Cow::Owned(match half {
            Half::Dilation => dilate::<Largest>(result, shape, steps, cancel)?,
            Half::Erosion => dilate::<Smallest>(result, shape, steps, cancel)?,
        });
    }
    Ok(result.into_owned())
}

fn stages(operation: Operation, steps: &[Element]) -> Option<Vec<Stage>> {
    let mut stages = Vec::new();
    for half in operation.halves() {
        let best = match half {
            Half::Dilation => Best::Largest,
            Half::Erosion => Best::Smallest,
        };
        for step in steps {
            stages.push(Stage { best, sections: Sections::of(step)? });
        }
    }
    Some(stages)
}

/// Values looked at between two polls of the cancel token.
const CHUNK: usize = 1 << 16;

/// Refuse NaN, with their number and the first one's place.
pub(super) fn refuse_nan(volume: &[f32], shape: Shape, cancel: &Cancel) -> Result<()> {
    let count = volume
        .par_chunks(CHUNK)
        .map(|chunk| {
            cancel.check()?;
            Ok(chunk.iter().filter(|value| value.is_nan()).count())
        })
        .sum::<Result<usize>>()?;
    if count == 0 { Ok(()) } else { Err(refusal("volume", volume, shape, count, f32::is_nan, "float32 without NaN")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    const BALL: Structure = Structure { radius: [1, 1, 1], shape: ElementShape::Ball };

    #[test]
    fn a_set_token_stops_both_kinds() {
        let (cancel, shape) = (Cancel::new(), [16, 16, 16]);
        cancel.cancel();
        let binary = binary_morphology(&[1; 4096], shape, Operation::Closing, BALL, &cancel);
        assert!(matches!(binary, Err(Error::Cancelled)));
        let grey = grey_morphology(&[0.5; 4096], shape, Operation::Closing, BALL, &cancel);
        assert!(matches!(grey, Err(Error::Cancelled)));
    }

    #[test]
    fn a_slice_of_the_wrong_length_is_refused() {
        let (cancel, shape) = (Cancel::new(), [2, 2, 2]);
        assert!(binary_morphology(&[1; 7], shape, Operation::Opening, BALL, &cancel).is_err());
        assert!(grey_morphology(&[0.5; 9], shape, Operation::Erosion, BALL, &cancel).is_err());
    }
}
