//! Bytes at offsets, from a file or from memory; every read is checked against the length first.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Where a TIFF's bytes come from.
pub struct Source<'a> {
    name: String,
    len: u64,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Bytes(&'a [u8]),
    File(File),
}

impl<'a> Source<'a> {
    /// Open a regular file. (Opening a pipe would block for ever, so the kind is looked at first.)
    pub fn open(path: &Path) -> Result<Self> {
        let to_error = |source: io::Error| Error::io(path, source);
        let metadata = std::fs::metadata(path).map_err(to_error)?;
        if metadata.is_dir() {
            return Err(to_error(io::Error::from_raw_os_error(21))); // EISDIR
        }
        let name = path.display().to_string();
        if !metadata.is_file() {
            return Err(Error::format(name, "not a regular file"));
        }
        let file = File::open(path).map_err(to_error)?;
        let len = file.metadata().map_err(to_error)?.len();
        Ok(Self { name, len, kind: Kind::File(file) })
    }

    pub fn from_bytes(data: &'a [u8], name: &str) -> Self {
        Self { name: name.to_owned(), len: data.len() as u64, kind: Kind::Bytes(data) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// A format error about this source.
    pub fn bad(&self, problem: impl Into<String>) -> Error {
        Error::format(&self.name, problem)
    }

    /// Fill `into` from `offset`.
    pub fn read_into(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.check_range(offset, into.len() as u64)?;
        match &self.kind {
            // The range was checked against the length, which is a usize here.
            Kind::Bytes(data) => into.copy_from_slice(&data[offset as usize..][..into.len()]),
            Kind::File(file) => file.read_exact_at(into, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.bad("the file became shorter while it was read"),
                _ => Error::io(&self.name, error),
            })?,
        }
        Ok(())
    }

    /// The bytes of a range: borrowed from memory, or read into `buffer`.
    pub fn range<'b>(&'b self, offset: u64, len: u64, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        self.check_range(offset, len)?;
        if let Kind::Bytes(data) = &self.kind {
            return Ok(&data[offset as usize..][..len as usize]);
        }
        let len = len as usize; // at most the file's length, and memory is asked for fallibly
        if buffer.len() < len {
            let more = len - buffer.len();
            let refused = |_| Error::Memory { what: self.name.clone(), needed: len as u64, limit: buffer_limit() };
            buffer.try_reserve_exact(more).map_err(refused)?;
            buffer.resize(len, 0);
        }
        self.read_into(offset, &mut buffer[..len])?;
        Ok(&buffer[..len])
    }

    fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(self
                .bad(format!("truncated or damaged: {len} bytes at offset {offset} of a file of {} bytes", self.len))),
        }
    }
}

/// What an allocation that the system refused is reported against.
fn buffer_limit() -> u64 {
    isize::MAX as u64
}
