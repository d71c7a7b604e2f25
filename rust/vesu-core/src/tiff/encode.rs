//! Writing: one strip of about 256 KiB after the other, packed in parallel, the same bytes on every run.
//!
//! Each page is its directory, then its tag arrays, then its pixels, so that a file is written front to back without
//! seeking. The file is a BigTIFF exactly when the worst case of the packing could pass 4 GiB.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::{Compress, FlushCompress, Status};
use rayon::prelude::*;

use super::samples::{Dtype, Sample, as_bytes};
use super::{ByteOrder, Compression};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Raw bytes of a strip, about: small enough to share a page among cores, large enough to pack well.
const STRIP: usize = 256 << 10;
/// Raw bytes packed before they are written: bounds the memory beside the volume.
const BATCH: usize = 32 << 20;
const DEFLATE_LEVEL: u32 = 6;

/// A volume to write: native samples as bytes.
#[derive(Clone, Copy)]
pub struct VolumeRef<'a> {
    shape: [usize; 3],
    dtype: Dtype,
    bytes: &'a [u8],
}

impl<'a> VolumeRef<'a> {
    pub fn new<T: Sample>(shape: [usize; 3], samples: &'a [T]) -> Result<Self> {
        let (dtype, bytes) = (T::DTYPE, as_bytes(samples));
        let size = shape.iter().try_fold(dtype.size(), |size, axis| size.checked_mul(*axis));
        let fits = shape[1..].iter().all(|axis| u32::try_from(*axis).is_ok());
        if size != Some(bytes.len()) || bytes.is_empty() || !fits {
            let got = format!("shape {shape:?} and {} bytes of {}", bytes.len(), dtype.name());
            return Err(Error::argument("volume", got, "(z, y, x), no axis of length 0, one value a voxel"));
        }
        Ok(Self { shape, dtype, bytes })
    }

    fn row_bytes(&self) -> usize {
        self.shape[2] * self.dtype.size()
    }

    fn page_bytes(&self) -> usize {
        self.shape[1] * self.row_bytes()
    }

    fn rows_per_strip(&self) -> usize {
        STRIP.div_ceil(self.row_bytes()).min(self.shape[1])
    }

    fn strips_per_page(&self) -> usize {
        self.shape[1].div_ceil(self.rows_per_strip())
    }
}

/// Write to a new or emptied file. No fsync: the caller decides on durability.
pub fn write(path: &Path, volume: VolumeRef<'_>, compression: Compression, cancel: &Cancel) -> Result<()> {
    let file = File::create(path).map_err(|error| Error::io(path, error))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    encode(volume, compression, &mut out, cancel)?.map_err(|error| Error::io(path, error))?;
    out.flush().map_err(|error| Error::io(path, error))
}

pub fn encode_to_vec(volume: VolumeRef<'_>, compression: Compression, cancel: &Cancel) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    encode(volume, compression, &mut out, cancel)?.map_err(|error| Error::io("<memory>", error))?;
    Ok(out)
}

/// Write front to back into `out`; the inner error is the writer's.
pub fn encode(
    volume: VolumeRef<'_>,
    compression: Compression,
    out: &mut impl Write,
    cancel: &Cancel,
) -> Result<io::Result<()>> {
    let format = Format { bigtiff: worst_case(&volume, compression) > u64::from(u32::MAX) };
    let mut position = format.header_bytes();
    if let Err(error) = out.write_all(&format.header()) {
        return Ok(Err(error));
    }
    let pages_at_once = (BATCH / volume.page_bytes()).clamp(1, volume.shape[0]);
    for first in (0..volume.shape[0]).step_by(pages_at_once) {
        let end = volume.shape[0].min(first + pages_at_once);
        let strips = pack(&volume, compression, first..end, cancel)?;
        for (page, strips) in (first..end).zip(strips.chunks_exact(volume.strips_per_page())) {
            let directory = format.directory(&volume, compression, page, position, strips);
            position = directory.next_page;
            let written = out
                .write_all(&directory.bytes)
                .and_then(|()| strips.iter().try_for_each(|strip| out.write_all(strip)))
                .and_then(|()| out.write_all(&[0; 8][..directory.padding]));
            if let Err(error) = written {
                return Ok(Err(error));
            }
        }
    }
    Ok(Ok(()))
}

/// No file is longer than this.
fn worst_case(volume: &VolumeRef<'_>, compression: Compression) -> u64 {
    let raw = volume.bytes.len() as u64;
    let strips = (volume.shape[0] * volume.strips_per_page()) as u64;
    let pixels = match compression {
        Compression::None => raw,
        Compression::Lzw => raw + raw / 2, // at most 12 bits a byte
        Compression::Deflate => raw + raw / 100,
        Compression::PackBits => raw + raw / 128 + (volume.shape[0] * volume.shape[1]) as u64,
    };
    pixels + 64 * strips + 512 * (volume.shape[0] as u64 + 1)
}

/// All strips of some pages, in order.
fn pack<'v>(
    volume: &VolumeRef<'v>,
    compression: Compression,
    pages: std::ops::Range<usize>,
    cancel: &Cancel,
) -> Result<Vec<Cow<'v, [u8]>>> {
    let strip_bytes = volume.rows_per_strip() * volume.row_bytes();
    let bytes = &volume.bytes[pages.start * volume.page_bytes()..pages.end * volume.page_bytes()];
    let raw: Vec<&'v [u8]> =
        bytes.chunks_exact(volume.page_bytes()).flat_map(|page| page.chunks(strip_bytes)).collect();
    let row_bytes = volume.row_bytes();
    raw.into_par_iter()
        .map_init(
            || None,
            |deflate: &mut Option<Compress>, strip| {
                cancel.check()?;
                Ok(match compression {
                    Compression::None => Cow::Borrowed(strip),
                    Compression::Lzw => Cow::Owned(lzw(strip)?),
                    Compression::Deflate => Cow::Owned(zip(deflate.get_or_insert_with(new_deflate), strip)?),
                    Compression::PackBits => Cow::Owned(pack_bits(strip, row_bytes)),
                })
            },
        )
        .collect()
}

fn new_deflate() -> Compress {
    Compress::new(flate2::Compression::new(DEFLATE_LEVEL), true)
}

fn zip(deflate: &mut Compress, strip: &[u8]) -> Result<Vec<u8>> {
    deflate.reset();
    let mut out = Vec::with_capacity(strip.len() / 2 + 64);
    loop {
        let used = deflate.total_in() as usize;
        match deflate.compress_vec(&strip[used..], &mut out, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => return Ok(out),
            Ok(_) => out.reserve(strip.len() / 2 + 64),
            Err(error) => return Err(Error::format("deflate", error.to_string())),
        }
    }
}

fn lzw(strip: &[u8]) -> Result<Vec<u8>> {
    weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
        .encode(strip)
        .map_err(|error| Error::format("lzw", error.to_string()))
}

/// Row by row, as the specification wants: runs of 3 and more are repeated, the rest goes literally.
fn pack_bits(strip: &[u8], row_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(strip.len() / 4 + 16);
    for row in strip.chunks(row_bytes) {
        let mut literals = 0; // first byte not yet written
        let mut at = 0;
        while at < row.len() {
            let run = row[at..].iter().take(128).take_while(|byte| **byte == row[at]).count();
            if run >= 3 {
                push_literals(&mut out, &row[literals..at]);
                out.extend([(257 - run) as u8, row[at]]);
                literals = at + run;
            }
            at += run;
        }
        push_literals(&mut out, &row[literals..]);
    }
    out
}

fn push_literals(out: &mut Vec<u8>, literals: &[u8]) {
    for part in literals.chunks(128) {
        out.push((part.len() - 1) as u8);
        out.extend_from_slice(part);
    }
}

/// Classic TIFF or BigTIFF, in the machine's byte order.
struct Format {
    bigtiff: bool,
}

struct Directory {
    /// The directory and its tag arrays; the strips follow at once.
    bytes: Vec<u8>,
    padding: usize,
    next_page: u64,
}

const SHORT: u16 = 3;
const LONG: u16 = 4;
const LONG8: u16 = 16;
const ASCII: u16 = 2;

impl Format {
    fn header_bytes(&self) -> u64 {
        if self.bigtiff { 16 } else { 8 }
    }

    fn header(&self) -> Vec<u8> {
        let mut header = if ByteOrder::NATIVE == ByteOrder::Little { b"II".to_vec() } else { b"MM".to_vec() };
        if self.bigtiff {
            for word in [43_u16, 8, 0] {
                header.extend(word.to_ne_bytes());
            }
        } else {
            header.extend(42_u16.to_ne_bytes());
        }
        self.push_offset(&mut header, self.header_bytes());
        header
    }

    /// The directory of the page that begins at `position`.
    fn directory(
        &self,
        volume: &VolumeRef<'_>,
        compression: Compression,
        page: usize,
        position: u64,
        strips: &[Cow<'_, [u8]>],
    ) -> Directory {
        let code = match compression {
            Compression::None => 1,
            Compression::Lzw => 5,
            Compression::Deflate => 8,
            Compression::PackBits => 32773,
        };
        let offset_kind = if self.bigtiff { LONG8 } else { LONG };
        let [z, rows, columns] = volume.shape.map(|axis| axis as u64);
        let counts: Vec<u64> = strips.iter().map(|strip| strip.len() as u64).collect();
        let mut tags = vec![
            (256, LONG, vec![columns]),
            (257, LONG, vec![rows]),
            (258, SHORT, vec![volume.dtype.size() as u64 * 8]),
            (259, SHORT, vec![code]),
            (262, SHORT, vec![1]),                     // black is zero
            (273, offset_kind, vec![0; counts.len()]), // known once the directory's size is
            (277, SHORT, vec![1]),
            (278, LONG, vec![volume.rows_per_strip() as u64]),
            (279, offset_kind, counts.clone()),
            (339, SHORT, vec![u64::from(volume.dtype.sample_format())]),
        ];
        if z == 1 {
            // tifffile's note of the shape, without which it would drop the axis of a volume of one slice. (With more
            // slices it needs none, and would take the note of a tiny volume as a promise of adjoining pixels.)
            let text = format!("{{\"shape\": [{z}, {rows}, {columns}]}}\0");
            tags.insert(5, (270, ASCII, text.bytes().map(u64::from).collect()));
        }
        let pixels = position + self.lay_out(&tags, position, 0).len() as u64;
        let mut at = pixels;
        let mut offsets = Vec::with_capacity(counts.len());
        for count in &counts {
            offsets.push(at);
            at += count;
        }
        let padding = (at.next_multiple_of(8) - at) as usize;
        let next_page = at + padding as u64;
        for (tag, _, values) in &mut tags {
            if *tag == 273 {
                values.clone_from(&offsets);
            }
        }
        let is_last = page + 1 == volume.shape[0];
        let bytes = self.lay_out(&tags, position, if is_last { 0 } else { next_page });
        Directory { bytes, padding, next_page }
    }

    /// Entries, the link to the next page, then the values that do not fit into their entry.
    fn lay_out(&self, tags: &[(u16, u16, Vec<u64>)], position: u64, next_page: u64) -> Vec<u8> {
        let (count_size, entry_size, inline) = if self.bigtiff { (8, 20, 8) } else { (2, 12, 4) };
        let arrays_at = position + (count_size + tags.len() * entry_size + inline) as u64;
        let (mut entries, mut arrays) = (Vec::new(), Vec::new());
        if self.bigtiff {
            entries.extend((tags.len() as u64).to_ne_bytes());
        } else {
            entries.extend((tags.len() as u16).to_ne_bytes());
        }
        for (tag, kind, values) in tags {
            entries.extend(tag.to_ne_bytes());
            entries.extend(kind.to_ne_bytes());
            self.push_offset(&mut entries, values.len() as u64);
            let mut raw = raw_values(*kind, values);
            if raw.len() <= inline {
                raw.resize(inline, 0);
                entries.append(&mut raw);
            } else {
                self.push_offset(&mut entries, arrays_at + arrays.len() as u64);
                raw.resize(raw.len().next_multiple_of(8), 0);
                arrays.append(&mut raw);
            }
        }
        self.push_offset(&mut entries, next_page);
        entries.append(&mut arrays);
        entries
    }

    /// A count or an offset: 8 bytes in a BigTIFF, else 4 (`worst_case` saw to it that it fits).
    fn push_offset(&self, out: &mut Vec<u8>, value: u64) {
        if self.bigtiff { out.extend(value.to_ne_bytes()) } else { out.extend((value as u32).to_ne_bytes()) }
    }
}

fn raw_values(kind: u16, values: &[u64]) -> Vec<u8> {
    match kind {
        SHORT => values.iter().flat_map(|value| (*value as u16).to_ne_bytes()).collect(),
        LONG => values.iter().flat_map(|value| (*value as u32).to_ne_bytes()).collect(),
        LONG8 => values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
        _ => values.iter().map(|value| *value as u8).collect(),
    }
}
