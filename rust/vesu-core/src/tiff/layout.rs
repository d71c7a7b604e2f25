//! Checked page layouts: after [`Stack::parse`] every size is known to fit, to lie inside the file and to be
//! plausible for the compressed bytes that claim it.

use super::header::{Ifd, MAX_CHUNKS, Walker};
use super::samples::{ACCEPTED_DTYPES, Dtype};
use super::source::Source;
use super::{ByteOrder, Compression, Info};
use crate::cancel::Cancel;
use crate::error::Result;

/// A strip's or tile's place in the file.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    pub offset: u64,
    pub len: u64,
}

/// One page. A strip is a chunk as wide as the page; rows of chunks are bands of the output.
pub struct Page {
    pub compression: Compression,
    pub predictor: u16,
    /// Size of a full chunk in pixels: (rows, columns).
    pub chunk_shape: [usize; 2],
    /// Tiles are stored whole where they stick out of the page; the last strip is cut.
    pub tiled: bool,
    /// Row-major; `across` a band.
    pub chunks: Vec<Chunk>,
    pub across: usize,
}

/// All pages of a file: one shape, one sample type.
pub struct Stack {
    pub byte_order: ByteOrder,
    pub bigtiff: bool,
    pub dtype: Dtype,
    /// (rows, columns) of a page.
    pub page_shape: [usize; 2],
    pub pages: Vec<Page>,
}

impl Stack {
    pub fn parse(source: &Source<'_>, cancel: &Cancel) -> Result<Self> {
        let mut walker = Walker::new(source)?;
        let mut pages = Vec::new();
        let mut common = None;
        let (mut stored, mut n_chunks) = (0_u64, 0);
        while let Some(ifd) = walker.next_ifd(cancel)? {
            let page_shape = page_shape(source, &mut walker, &ifd)?;
            let dtype = dtype(source, &mut walker, &ifd)?;
            let (first_shape, first_dtype) = *common.get_or_insert((page_shape, dtype));
            if (page_shape, dtype) != (first_shape, first_dtype) {
                let problem = format!(
                    "page {} is {} of {page_shape:?}, page 0 is {} of {first_shape:?}; accepted: pages all alike",
                    ifd.page,
                    dtype.name(),
                    first_dtype.name()
                );
                return Err(source.bad(problem));
            }
            let page = PageParser { source, walker: &mut walker, ifd: &ifd, page_shape, dtype }.parse()?;
            stored = page.chunks.iter().fold(stored, |sum, chunk| sum.saturating_add(chunk.len));
            if stored > source.len() {
                return Err(source.bad(format!("page {}: strips or tiles lie over each other", ifd.page)));
            }
            n_chunks += page.chunks.len();
            if n_chunks > MAX_CHUNKS {
                return Err(source.bad(format!("more than {MAX_CHUNKS} strips or tiles")));
            }
            pages.push(page);
        }
        let (byte_order, bigtiff) = (walker.byte_order, walker.bigtiff);
        match common {
            Some((page_shape, dtype)) => Ok(Self { byte_order, bigtiff, dtype, page_shape, pages }),
            None => Err(source.bad("a TIFF without any page")),
        }
    }

    pub fn shape(&self) -> [usize; 3] {
        [self.pages.len(), self.page_shape[0], self.page_shape[1]]
    }

    pub fn info(&self, source: &Source<'_>) -> Info {
        Info {
            shape: self.shape(),
            dtype: self.dtype,
            compression: self.pages[0].compression,
            byte_order: self.byte_order,
            bigtiff: self.bigtiff,
            predictor: self.pages[0].predictor,
            file_bytes: source.len(),
        }
    }
}

fn page_shape(source: &Source<'_>, walker: &mut Walker<'_, '_>, ifd: &Ifd) -> Result<[usize; 2]> {
    let columns = walker.value(ifd, 256, "ImageWidth", None)?;
    let rows = walker.value(ifd, 257, "ImageLength", None)?;
    let depth = walker.value(ifd, 32997, "ImageDepth", Some(1))?;
    if depth != 1 {
        return Err(source.bad(format!("page {}: ImageDepth {depth}; accepted: one slice a page", ifd.page)));
    }
    if rows == 0 || columns == 0 || rows > u64::from(u32::MAX) || columns > u64::from(u32::MAX) {
        return Err(source.bad(format!("page {}: {rows} rows of {columns} pixels", ifd.page)));
    }
    Ok([rows as usize, columns as usize])
}

fn dtype(source: &Source<'_>, walker: &mut Walker<'_, '_>, ifd: &Ifd) -> Result<Dtype> {
    let samples = walker.value(ifd, 277, "SamplesPerPixel", Some(1))?;
    if samples != 1 {
        let problem = format!("page {}: {samples} samples a pixel (colour?); accepted: 1", ifd.page);
        return Err(source.bad(problem));
    }
    let bits = walker.value(ifd, 258, "BitsPerSample", Some(1))?;
    let format = walker.value(ifd, 339, "SampleFormat", Some(1))?;
    Dtype::from_tags(format, bits).ok_or_else(|| {
        let kind = match format {
            1 => "unsigned".to_owned(),
            2 => "signed".to_owned(),
            3 => "float".to_owned(),
            other => format!("of sample format {other}"),
        };
        source.bad(format!("page {}: samples {kind}, {bits} bits; accepted: {ACCEPTED_DTYPES}", ifd.page))
    })
}

fn compression(source: &Source<'_>, page: usize, value: u64) -> Result<Compression> {
    Ok(match value {
        1 => Compression::None,
        5 => Compression::Lzw,
        8 | 32946 => Compression::Deflate,
        32773 => Compression::PackBits,
        other => {
            let name = match other {
                2 => " (CCITT run length)",
                3 => " (CCITT fax 3)",
                4 => " (CCITT fax 4)",
                6 | 7 => " (JPEG)",
                33003 | 33005 | 34712 => " (JPEG 2000)",
                34887 => " (LERC)",
                34925 => " (LZMA)",
                34926 | 50000 => " (Zstandard)",
                34927 | 50001 => " (WebP)",
                50002 | 52546 => " (JPEG XL)",
                _ => "",
            };
            let accepted = "accepted: none (1), LZW (5), Deflate (8, 32946), PackBits (32773)";
            return Err(source.bad(format!("page {page}: compression {other}{name}; {accepted}")));
        }
    })
}

struct PageParser<'p, 's, 'd> {
    source: &'s Source<'d>,
    walker: &'p mut Walker<'s, 'd>,
    ifd: &'p Ifd,
    page_shape: [usize; 2],
    dtype: Dtype,
}

impl PageParser<'_, '_, '_> {
    fn parse(mut self) -> Result<Page> {
        let compression = compression(self.source, self.ifd.page, self.value(259, "Compression", Some(1))?)?;
        let predictor = self.predictor(compression)?;
        let fill_order = self.value(266, "FillOrder", Some(1))?;
        if fill_order != 1 {
            return Err(self.bad(format!("FillOrder {fill_order}; accepted: 1")));
        }
        let tile_width = self.walker.values(self.ifd, 322, "TileWidth")?;
        let tiled = tile_width.is_some();
        let chunk_shape = if tiled { self.tile_shape()? } else { self.strip_shape()? };
        let across = self.page_shape[1].div_ceil(chunk_shape[1]);
        let expected = (self.page_shape[0].div_ceil(chunk_shape[0]) as u64).saturating_mul(across as u64);
        let mut page = Page { compression, predictor, chunk_shape, tiled, chunks: Vec::new(), across };
        page.chunks = self.chunks(&page, expected)?;
        Ok(page)
    }

    fn predictor(&mut self, compression: Compression) -> Result<u16> {
        let predictor = self.value(317, "Predictor", Some(1))?;
        let is_float = matches!(self.dtype, Dtype::F32 | Dtype::F64);
        match (predictor, compression) {
            (1, _) => Ok(1),
            // Readers disagree on whether a predictor means anything there: do not guess.
            (_, Compression::None) => Err(self.bad(format!("predictor {predictor} on uncompressed data; accepted: 1"))),
            (2, _) => Ok(2),
            (3, _) if is_float => Ok(3),
            _ => Err(self.bad(format!(
                "predictor {predictor} of {} samples; accepted: 1 (none), 2 (horizontal), 3 (floats)",
                self.dtype.name()
            ))),
        }
    }

    fn tile_shape(&mut self) -> Result<[usize; 2]> {
        let columns = self.value(322, "TileWidth", None)?;
        let rows = self.value(323, "TileLength", None)?;
        let depth = self.value(32998, "TileDepth", Some(1))?;
        let limit = u64::from(u32::MAX);
        if rows == 0 || columns == 0 || rows > limit || columns > limit || depth != 1 {
            return Err(self.bad(format!("tiles of {depth} x {rows} x {columns} pixels")));
        }
        Ok([rows as usize, columns as usize])
    }

    fn strip_shape(&mut self) -> Result<[usize; 2]> {
        let rows = self.value(278, "RowsPerStrip", Some(u64::from(u32::MAX)))?;
        if rows == 0 {
            return Err(self.bad("strips of 0 rows"));
        }
        Ok([rows.min(self.page_shape[0] as u64) as usize, self.page_shape[1]])
    }

    fn chunks(&mut self, page: &Page, expected: u64) -> Result<Vec<Chunk>> {
        let [offset_tag, count_tag] = if page.tiled { [324, 325] } else { [273, 279] };
        let missing = |tag| format!("the tag {tag} (where the pixels are) is missing");
        let Some(offsets) = self.walker.values(self.ifd, offset_tag, "StripOffsets or TileOffsets")? else {
            return Err(self.bad(missing(offset_tag)));
        };
        if offsets.len() as u64 != expected {
            return Err(self.bad(format!("{} strips or tiles where the shape needs {expected}", offsets.len())));
        }
        let lens = self.walker.values(self.ifd, count_tag, "StripByteCounts or TileByteCounts")?;
        let lens = match lens {
            Some(lens) if lens.len() == offsets.len() => lens,
            Some(lens) => return Err(self.bad(format!("{} byte counts for {expected} strips or tiles", lens.len()))),
            None if page.compression == Compression::None => {
                (0..offsets.len()).map(|i| self.decoded_bytes(page, i)).collect::<Result<_>>()?
            }
            None => return Err(self.bad(missing(count_tag))),
        };
        let chunks: Vec<_> = offsets.into_iter().zip(lens).map(|(offset, len)| Chunk { offset, len }).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            self.check_chunk(page, i, *chunk)?;
        }
        Ok(chunks)
    }

    /// Inside the file, and able to hold what it declares.
    fn check_chunk(&self, page: &Page, index: usize, chunk: Chunk) -> Result<()> {
        let end = chunk.offset.checked_add(chunk.len);
        if end.is_none_or(|end| end > self.source.len()) {
            return Err(self.bad(format!(
                "strip or tile {index} ({} bytes at {}) reaches beyond the file's {} bytes: truncated?",
                chunk.len,
                chunk.offset,
                self.source.len()
            )));
        }
        let needed = self.decoded_bytes(page, index)?;
        let most = page.compression.most_decoded(chunk.len);
        if needed > most {
            return Err(self.bad(format!(
                "strip or tile {index} declares {needed} bytes of pixels; its {} bytes ({}) cannot hold more than {most}",
                chunk.len,
                page.compression.name()
            )));
        }
        Ok(())
    }

    fn decoded_bytes(&self, page: &Page, index: usize) -> Result<u64> {
        let [rows, columns] = page.stored_shape(index / page.across, self.page_shape[0]);
        (rows as u64)
            .checked_mul(columns as u64)
            .and_then(|pixels| pixels.checked_mul(self.dtype.size() as u64))
            .ok_or_else(|| self.bad(format!("strips or tiles of {rows} x {columns} pixels")))
    }

    fn value(&mut self, tag: u16, name: &str, default: Option<u64>) -> Result<u64> {
        self.walker.value(self.ifd, tag, name, default)
    }

    fn bad(&self, problem: impl AsRef<str>) -> crate::error::Error {
        self.source.bad(format!("page {}: {}", self.ifd.page, problem.as_ref()))
    }
}

impl Page {
    /// Rows and columns that a chunk of band `band` holds in the file.
    pub fn stored_shape(&self, band: usize, page_rows: usize) -> [usize; 2] {
        if self.tiled { self.chunk_shape } else { [self.band_rows(band, page_rows), self.chunk_shape[1]] }
    }

    /// Rows of the page that band `band` covers.
    pub fn band_rows(&self, band: usize, page_rows: usize) -> usize {
        self.chunk_shape[0].min(page_rows - band * self.chunk_shape[0])
    }
}

impl Compression {
    /// The most bytes that `len` compressed bytes can stand for.
    fn most_decoded(self, len: u64) -> u64 {
        let ratio = match self {
            Self::None => 1,
            Self::PackBits => 64,  // two bytes repeat one 128 times
            Self::Deflate => 1032, // zlib's documented limit
            Self::Lzw => 4096,     // a code is at least 9 bits and stands for fewer than 3840 bytes
        };
        len.saturating_mul(ratio)
    }
}
