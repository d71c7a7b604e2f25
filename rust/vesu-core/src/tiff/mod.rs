//! Multipage TIFF volumes: bounded decode, reproducible encode.
//!
//! One page is one z slice; a volume is `(z, y, x)`, C order, one sample a pixel. [`source`] reads bytes at
//! offsets, [`header`] walks the IFD chain, [`layout`] turns tags into checked page layouts (nothing is allocated for
//! pixels before every page passed), [`decode`] fills the output band by band in parallel, [`encode`] writes.

mod codec;
mod decode;
mod encode;
mod header;
mod layout;
mod lzw;
mod predictor;
mod samples;
mod source;

use std::path::Path;

use crate::cancel::Cancel;
use crate::error::{Error, Result};

pub use encode::{VolumeRef, encode, encode_to_vec, write};
pub use samples::{Dtype, Sample, Samples};

use layout::Stack;
use source::Source;

/// How the strips or tiles of a page are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
}

impl Compression {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lzw => "lzw",
            Self::Deflate => "deflate",
            Self::PackBits => "packbits",
        }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        [Self::None, Self::Lzw, Self::Deflate, Self::PackBits].into_iter().find(|c| c.name() == name).ok_or_else(|| {
            Error::argument("compression", format!("{name:?}"), "'none', 'deflate', 'lzw' or 'packbits'")
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub const NATIVE: Self = if cfg!(target_endian = "little") { Self::Little } else { Self::Big };

    /// `struct`'s and NumPy's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Little => "<",
            Self::Big => ">",
        }
    }
}

/// What the headers of a volume say; compression and predictor are those of the first page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub shape: [usize; 3],
    pub dtype: Dtype,
    pub compression: Compression,
    pub byte_order: ByteOrder,
    pub bigtiff: bool,
    pub predictor: u16,
    pub file_bytes: u64,
}

/// A decoded volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub shape: [usize; 3],
    pub samples: Samples,
}

/// Read the headers of all pages of a file; no pixel is read.
pub fn inspect(path: &Path, cancel: &Cancel) -> Result<Info> {
    let source = Source::open(path)?;
    Ok(Stack::parse(&source, cancel)?.info(&source))
}

/// As [`inspect`], from memory. `name` stands for the path in errors.
pub fn inspect_bytes(data: &[u8], name: &str, cancel: &Cancel) -> Result<Info> {
    let source = Source::from_bytes(data, name);
    Ok(Stack::parse(&source, cancel)?.info(&source))
}

/// Decode a file. Refused with [`Error::Memory`] when the pixels need more than `max_bytes`.
pub fn read(path: &Path, max_bytes: u64, cancel: &Cancel) -> Result<Volume> {
    let source = Source::open(path)?;
    decode::decode(&source, &Stack::parse(&source, cancel)?, max_bytes, cancel)
}

/// As [`read`], from memory. `name` stands for the path in errors.
pub fn read_bytes(data: &[u8], name: &str, max_bytes: u64, cancel: &Cancel) -> Result<Volume> {
    let source = Source::from_bytes(data, name);
    decode::decode(&source, &Stack::parse(&source, cancel)?, max_bytes, cancel)
}

#[cfg(test)]
mod tests;
