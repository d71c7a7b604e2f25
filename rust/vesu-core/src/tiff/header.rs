//! The file header and the chain of image file directories (IFDs), read defensively.
//!
//! Bounds: every offset is checked against the file's length; an IFD visited twice ends the walk with an error; and
//! all IFDs and tag arrays together may not be larger than the file (twice, for writers that share arrays), so that
//! overlapping directories cannot make the walk quadratic.

use std::collections::HashSet;

use super::ByteOrder;
use super::source::Source;
use crate::cancel::Cancel;
use crate::error::Result;

/// Strips or tiles that one file may have: 16 bytes of memory each, and far more than any honest volume has.
pub const MAX_CHUNKS: usize = 1 << 26;

/// One IFD entry: its type and count, and the value field or the offset of the values.
#[derive(Clone, Copy)]
struct Entry {
    kind: u16,
    count: u64,
    field: [u8; 8],
}

/// One image file directory, sorted as in the file.
pub struct Ifd {
    /// Counted from 0.
    pub page: usize,
    entries: Vec<(u16, Entry)>,
}

/// Walks the IFD chain of one file.
pub struct Walker<'s, 'd> {
    source: &'s Source<'d>,
    pub byte_order: ByteOrder,
    pub bigtiff: bool,
    next: u64,
    page: usize,
    visited: HashSet<u64>,
    budget: u64,
}

impl<'s, 'd> Walker<'s, 'd> {
    pub fn new(source: &'s Source<'d>) -> Result<Self> {
        let mut head = [0; 16];
        if source.len() < 8 {
            return Err(source.bad(format!("not a TIFF: {} bytes", source.len())));
        }
        source.read_into(0, &mut head[..8])?;
        let byte_order = match &head[..2] {
            b"II" => ByteOrder::Little,
            b"MM" => ByteOrder::Big,
            other => return Err(source.bad(format!("not a TIFF: it begins with {other:02x?}"))),
        };
        let version = number(byte_order, &head[2..4]);
        let (bigtiff, next) = match version {
            42 => (false, number(byte_order, &head[4..8])),
            43 => {
                source.read_into(0, &mut head)?;
                if (number(byte_order, &head[4..6]), number(byte_order, &head[6..8])) != (8, 0) {
                    return Err(source.bad("a BigTIFF header whose offsets are not 8 bytes wide"));
                }
                (true, number(byte_order, &head[8..16]))
            }
            other => return Err(source.bad(format!("not a TIFF: version {other}; accepted: 42, 43 (BigTIFF)"))),
        };
        if next == 0 {
            return Err(source.bad("a TIFF without any page"));
        }
        let budget = source.len().saturating_mul(2);
        Ok(Self { source, byte_order, bigtiff, next, page: 0, visited: HashSet::new(), budget })
    }

    /// The next page's directory; `None` after the last.
    pub fn next_ifd(&mut self, cancel: &Cancel) -> Result<Option<Ifd>> {
        if self.next == 0 {
            return Ok(None);
        }
        cancel.check()?;
        let (page, offset) = (self.page, self.next);
        if !self.visited.insert(offset) {
            return Err(self.source.bad(format!("page {page}: the chain of pages loops back to offset {offset}")));
        }
        let (count_size, entry_size, offset_size) = if self.bigtiff { (8, 20, 8) } else { (2, 12, 4) };
        let count = self.number_at(offset, count_size)?;
        // Tags are 16 bits wide, so more entries than that cannot all be different.
        if count == 0 || count > u64::from(u16::MAX) {
            return Err(self.source.bad(format!("page {page}: a directory of {count} entries")));
        }
        let bytes = self.take(offset + count_size, count * entry_size + offset_size)?;
        let (entries, next) = bytes.split_at((count * entry_size) as usize);
        self.next = number(self.byte_order, next);
        self.page += 1;
        let entries = entries.chunks_exact(entry_size as usize).map(|raw| self.entry(raw)).collect();
        Ok(Some(Ifd { page, entries }))
    }

    /// All values of an integer tag; `None` when the page lacks it.
    pub fn values(&mut self, ifd: &Ifd, tag: u16, name: &str) -> Result<Option<Vec<u64>>> {
        let Some(entry) = ifd.entries.iter().find(|(t, _)| *t == tag).map(|(_, entry)| *entry) else {
            return Ok(None);
        };
        let width: u64 = match entry.kind {
            1 => 1,       // BYTE
            3 => 2,       // SHORT
            4 | 13 => 4,  // LONG, IFD
            16 | 18 => 8, // LONG8, IFD8
            other => {
                let problem = format!("page {}: {name} is of field type {other}; accepted: integers", ifd.page);
                return Err(self.source.bad(problem));
            }
        };
        let inline = if self.bigtiff { 8 } else { 4 };
        let bytes = match entry.count.checked_mul(width).filter(|_| entry.count <= MAX_CHUNKS as u64) {
            Some(size) if size <= inline => entry.field[..size as usize].to_vec(),
            Some(size) => self.take(number(self.byte_order, &entry.field[..inline as usize]), size)?,
            None => return Err(self.source.bad(format!("page {}: {name} has {} values", ifd.page, entry.count))),
        };
        Ok(Some(bytes.chunks_exact(width as usize).map(|raw| number(self.byte_order, raw)).collect()))
    }

    /// The single value of a tag, or `default` when the page lacks it.
    pub fn value(&mut self, ifd: &Ifd, tag: u16, name: &str, default: Option<u64>) -> Result<u64> {
        match (self.values(ifd, tag, name)?, default) {
            (Some(values), _) if values.len() == 1 => Ok(values[0]),
            (Some(values), _) => {
                Err(self.source.bad(format!("page {}: {name} has {} values; accepted: 1", ifd.page, values.len())))
            }
            (None, Some(value)) => Ok(value),
            (None, None) => Err(self.source.bad(format!("page {}: the tag {name} is missing", ifd.page))),
        }
    }

    fn entry(&self, raw: &[u8]) -> (u16, Entry) {
        let order = self.byte_order;
        let (count, field) = raw[4..].split_at(if self.bigtiff { 8 } else { 4 });
        let mut padded = [0; 8];
        padded[..field.len()].copy_from_slice(field);
        let kind = number(order, &raw[2..4]) as u16;
        (number(order, &raw[..2]) as u16, Entry { kind, count: number(order, count), field: padded })
    }

    fn number_at(&self, offset: u64, size: u64) -> Result<u64> {
        let mut raw = [0; 8];
        let raw = &mut raw[..size as usize];
        self.source.read_into(offset, raw)?;
        Ok(number(self.byte_order, raw))
    }

    /// Header bytes, paid out of the budget before they are allocated.
    fn take(&mut self, offset: u64, len: u64) -> Result<Vec<u8>> {
        match self.budget.checked_sub(len) {
            Some(left) => self.budget = left,
            None => {
                let problem = format!("page {}: the directories claim more bytes than the file holds", self.page);
                return Err(self.source.bad(problem));
            }
        }
        let mut bytes = vec![0; len as usize];
        self.source.read_into(offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// An unsigned integer of 1 to 8 bytes.
fn number(order: ByteOrder, raw: &[u8]) -> u64 {
    let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    match order {
        ByteOrder::Little => raw.iter().rev().fold(0, push),
        ByteOrder::Big => raw.iter().fold(0, push),
    }
}
