//! Pixels into one output, in parallel.
//!
//! A band (one strip, or one row of tiles) covers whole rows of one page, so the bands of all pages cut the output into
//! consecutive slices. Work units are runs of bands of at least [`UNIT`] bytes in one page.

use rayon::prelude::*;

use super::codec::Unpacker;
use super::layout::{Chunk, Page, Stack};
use super::samples::{Dtype, Samples, as_bytes_mut, zeroed};
use super::source::Source;
use super::{Compression, Volume, predictor};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Decoded bytes that make a work unit worth its overhead.
const UNIT: usize = 256 << 10;
/// Bytes between two looks at the cancel token.
const STEP: usize = 4 << 20;

pub fn decode(source: &Source<'_>, stack: &Stack, max_bytes: u64, cancel: &Cancel) -> Result<Volume> {
    let n_samples = checked_samples(source, stack, max_bytes)?;
    let shape = stack.shape();
    let fail = || Error::Memory {
        what: source.name().to_owned(),
        needed: (n_samples * stack.dtype.size()) as u64,
        limit: max_bytes,
    };
    macro_rules! fill {
        ($variant:ident, $sample:ty) => {{
            let mut samples: Vec<$sample> = zeroed(n_samples).ok_or_else(fail)?;
            fill(source, stack, as_bytes_mut(&mut samples), cancel)?;
            Samples::$variant(samples)
        }};
    }
    let samples = match stack.dtype {
        Dtype::U8 => fill!(U8, u8),
        Dtype::I8 => fill!(I8, i8),
        Dtype::U16 => fill!(U16, u16),
        Dtype::I16 => fill!(I16, i16),
        Dtype::U32 => fill!(U32, u32),
        Dtype::I32 => fill!(I32, i32),
        Dtype::F32 => fill!(F32, f32),
        Dtype::F64 => fill!(F64, f64),
    };
    Ok(Volume { shape, samples })
}

/// Number of samples; refused when they, and the tiles in flight, need more than `max_bytes`.
fn checked_samples(source: &Source<'_>, stack: &Stack, max_bytes: u64) -> Result<usize> {
    let size = stack.dtype.size() as u128;
    let n_samples: u128 = stack.shape().iter().map(|axis| *axis as u128).product();
    let tile = |page: &Page| if page.tiled { page.chunk_shape.iter().map(|axis| *axis as u128).product() } else { 0 };
    let tiles = stack.pages.iter().map(tile).max().unwrap_or(0) * rayon::current_num_threads() as u128;
    let needed = (n_samples + tiles) * size;
    if needed > u128::from(max_bytes.min(isize::MAX as u64)) {
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        return Err(Error::Memory { what: source.name().to_owned(), needed, limit: max_bytes });
    }
    Ok(n_samples as usize)
}

/// Consecutive bands of one page and their slice of the output.
struct Unit<'o> {
    page: usize,
    first_band: usize,
    n_bands: usize,
    out: &'o mut [u8],
}

/// A worker's reusable memory.
#[derive(Default)]
struct Scratch {
    unpacker: Unpacker,
    together: Vec<u8>,
    single: Vec<u8>,
    tile: Vec<u8>,
    row: Vec<u8>,
}

fn fill(source: &Source<'_>, stack: &Stack, out: &mut [u8], cancel: &Cancel) -> Result<()> {
    let run = |scratch: &mut Scratch, unit: Unit<'_>| {
        let worker = Worker { source, stack, page: &stack.pages[unit.page], cancel };
        worker.run(scratch, unit).err()
    };
    // The first error in file order, so that the message does not depend on the threads.
    match units(stack, out).into_par_iter().map_init(Scratch::default, run).find_map_first(|error| error) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn units<'o>(stack: &Stack, mut out: &'o mut [u8]) -> Vec<Unit<'o>> {
    let [rows, columns] = stack.page_shape;
    let row_bytes = columns * stack.dtype.size();
    let mut units = Vec::new();
    for (page, layout) in stack.pages.iter().enumerate() {
        let band_bytes = layout.chunk_shape[0].min(rows) * row_bytes;
        let (n_bands, at_once) = (rows.div_ceil(layout.chunk_shape[0]), UNIT.div_ceil(band_bytes));
        for first_band in (0..n_bands).step_by(at_once) {
            let n_bands = at_once.min(n_bands - first_band);
            let end_row = rows.min((first_band + n_bands) * layout.chunk_shape[0]);
            let (slice, rest) = out.split_at_mut((end_row - first_band * layout.chunk_shape[0]) * row_bytes);
            out = rest;
            units.push(Unit { page, first_band, n_bands, out: slice });
        }
    }
    units
}

/// Which strip or tile, for messages.
#[derive(Clone, Copy)]
struct Place {
    page: usize,
    index: usize,
}

struct Worker<'w, 'd> {
    source: &'w Source<'d>,
    stack: &'w Stack,
    page: &'w Page,
    cancel: &'w Cancel,
}

impl Worker<'_, '_> {
    fn run(&self, scratch: &mut Scratch, unit: Unit<'_>) -> Result<()> {
        self.cancel.check()?;
        let chunks = &self.page.chunks[unit.first_band * self.page.across..][..unit.n_bands * self.page.across];
        if self.is_plain_run(chunks, unit.out.len()) {
            return self.copy_plain_run(chunks[0].offset, unit.out, &mut scratch.row);
        }
        // One read for the unit where its chunks lie together, as nearly every writer leaves them.
        let first = chunks.iter().map(|chunk| chunk.offset).min().unwrap_or(0);
        let last = chunks.iter().map(|chunk| chunk.offset + chunk.len).max().unwrap_or(0);
        let stored: u64 = chunks.iter().map(|chunk| chunk.len).sum();
        let Scratch { unpacker, together, single, tile, row } = scratch;
        let whole = match last - first <= stored + (64 << 10) {
            true => Some(self.source.range(first, last - first, together)?),
            false => None,
        };
        let mut out = unit.out;
        for (i, chunk) in chunks.iter().enumerate() {
            let (band, across) = (unit.first_band + i / self.page.across, i % self.page.across);
            let band_bytes = self.page.band_rows(band, self.stack.page_shape[0]) * self.row_bytes();
            let data = match whole {
                Some(whole) => &whole[(chunk.offset - first) as usize..][..chunk.len as usize],
                None => self.source.range(chunk.offset, chunk.len, single)?,
            };
            let place = Place { page: unit.page, index: band * self.page.across + across };
            if self.page.tiled {
                let size = self.page.chunk_shape[0] * self.page.chunk_shape[1] * self.stack.dtype.size();
                grow(tile, size).ok_or_else(|| self.no_memory(size))?;
                self.unpack(unpacker, place, data, &mut tile[..size], row)?;
                self.paste(&tile[..size], across, &mut out[..band_bytes]);
            } else {
                self.unpack(unpacker, place, data, &mut out[..band_bytes], row)?;
            }
            if across + 1 == self.page.across {
                out = &mut std::mem::take(&mut out)[band_bytes..];
            }
        }
        Ok(())
    }

    /// Uncompressed strips one after the other: the pixels need no detour.
    fn is_plain_run(&self, chunks: &[Chunk], bytes: usize) -> bool {
        let adjoining = chunks.windows(2).all(|pair| pair[0].offset + pair[0].len == pair[1].offset);
        let stored: u64 = chunks.iter().map(|chunk| chunk.len).sum();
        self.page.compression == Compression::None && !self.page.tiled && adjoining && stored == bytes as u64
    }

    fn copy_plain_run(&self, offset: u64, out: &mut [u8], row: &mut Vec<u8>) -> Result<()> {
        for (step, part) in out.chunks_mut(STEP).enumerate() {
            self.cancel.check()?;
            self.source.read_into(offset + (step * STEP) as u64, part)?;
        }
        self.restore(out, row)
    }

    /// One strip or tile into the slice of exactly its size, as native samples.
    fn unpack(&self, unpacker: &mut Unpacker, at: Place, data: &[u8], out: &mut [u8], row: &mut Vec<u8>) -> Result<()> {
        // A last strip may be stored at full height.
        let full = self.page.chunk_shape.iter().product::<usize>().saturating_mul(self.stack.dtype.size());
        let spare = full.saturating_sub(out.len());
        unpacker.unpack(self.page.compression, data, out, spare, self.cancel)?.map_err(|problem| {
            let kind = if self.page.tiled { "tile" } else { "strip" };
            self.source.bad(format!("page {}: {kind} {}: {problem}", at.page, at.index))
        })?;
        self.restore(out, row)
    }

    /// Undo byte order and predictor of whole rows of a chunk.
    fn restore(&self, rows: &mut [u8], row: &mut Vec<u8>) -> Result<()> {
        let columns = self.page.chunk_shape[1];
        let row_bytes = columns * self.stack.dtype.size();
        for part in rows.chunks_mut(STEP.div_ceil(row_bytes) * row_bytes) {
            self.cancel.check()?;
            predictor::restore(part, columns, self.stack.dtype, self.page.predictor, self.stack.byte_order, row);
        }
        Ok(())
    }

    /// The part of a tile that lies on the page, into its band of the output.
    fn paste(&self, tile: &[u8], across: usize, band: &mut [u8]) {
        let tile_row = self.page.chunk_shape[1] * self.stack.dtype.size();
        let left = across * tile_row;
        let width = tile_row.min(self.row_bytes() - left);
        for (out, stored) in band.chunks_exact_mut(self.row_bytes()).zip(tile.chunks_exact(tile_row)) {
            out[left..left + width].copy_from_slice(&stored[..width]);
        }
    }

    fn row_bytes(&self) -> usize {
        self.stack.page_shape[1] * self.stack.dtype.size()
    }

    fn no_memory(&self, needed: usize) -> Error {
        Error::Memory { what: self.source.name().to_owned(), needed: needed as u64, limit: isize::MAX as u64 }
    }
}

/// Make `buffer` at least `len` long; `None` when the system has no memory left.
fn grow(buffer: &mut Vec<u8>, len: usize) -> Option<()> {
    buffer.try_reserve_exact(len.saturating_sub(buffer.len())).ok()?;
    buffer.resize(len.max(buffer.len()), 0);
    Some(())
}
