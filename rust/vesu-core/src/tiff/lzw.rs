//! TIFF's LZW (most significant bit first, widths switching one code early).
//!
//! The output is its own dictionary: the string of a code is the string emitted before it plus one byte, and the two
//! stand next to each other in the output, so an entry is a place and a length there. Strings of up to 8 bytes are kept
//! in the entry as well: one unconditional 8-byte store emits them, without a branch on their length.

use crate::cancel::Cancel;
use crate::error::Result;

const CLEAR: usize = 256;
const END: usize = 257;
const FIRST: usize = 258;
const SIZE: usize = 4096;
/// Longest string kept inside an entry.
const INLINE: usize = 8;

/// A dictionary string: its first bytes, and where it stands in the output (`start << LEN_BITS | len`).
#[derive(Clone, Copy, Default)]
struct Entry {
    head: u64,
    place: u64,
}

const LEN_BITS: u32 = 13; // a string is shorter than 4096

impl Entry {
    const fn new(head: u64, start: usize, len: usize) -> Self {
        Self { head, place: (start as u64) << LEN_BITS | len as u64 }
    }

    fn len(self) -> usize {
        (self.place & ((1 << LEN_BITS) - 1)) as usize
    }

    fn start(self) -> usize {
        (self.place >> LEN_BITS) as usize
    }

    fn first(self) -> u8 {
        self.head as u8
    }

    /// This string, standing at `start`, followed by `byte`.
    fn extended(self, start: usize, byte: u8) -> Self {
        let len = self.len();
        let appended = u64::from(byte).checked_shl(8 * len as u32).unwrap_or(0);
        Self::new(self.head | appended, start, len + 1)
    }
}

/// Reusable decoder: 64 KiB of table.
pub struct Decoder {
    table: Box<[Entry; SIZE]>,
}

impl Decoder {
    pub fn new() -> Self {
        let mut table = Box::new([Entry::default(); SIZE]);
        for (byte, entry) in table.iter_mut().enumerate().take(CLEAR) {
            *entry = Entry::new(byte as u64, 0, 1);
        }
        Self { table }
    }

    /// Fill `out` from `input`; what the stream holds beyond that is left alone. `Ok(Err(text))`: damaged input.
    pub fn decode(&mut self, input: &[u8], out: &mut [u8], cancel: &Cancel) -> Result<Result<(), String>> {
        if let [0, second, ..] = input
            && second & 1 == 1
        {
            return Ok(Err("old-style LZW (least significant bit first); accepted: TIFF 6.0 LZW".to_owned()));
        }
        let mut codes = Codes { input, at: 0, bits: 0, n_bits: 0 };
        let mut pos = 0;
        loop {
            // At least once every 3838 codes of a well-formed stream.
            cancel.check()?;
            return Ok(match self.until_clear(&mut codes, out, &mut pos) {
                Stop::Clear => continue,
                Stop::Full => Ok(()),
                Stop::Ended => Err(format!("the LZW data end after {pos} of {} declared bytes", out.len())),
                Stop::Undefined(code) => Err(format!("LZW code {code} before it is defined, after {pos} bytes")),
            });
        }
    }

    /// Decode with a fresh dictionary up to the next clear code. A function of its own, so that its state fits into
    /// the registers.
    #[inline(never)]
    fn until_clear(&mut self, stream: &mut Codes<'_>, out: &mut [u8], at: &mut usize) -> Stop {
        let (mut codes, mut pos) = (*stream, *at);
        let (mut next, mut width) = (FIRST, 9);
        let (mut previous, mut previous_start) = (Entry::default(), 0); // length 0: none yet
        let stop = loop {
            if pos >= out.len() {
                break Stop::Full;
            }
            let Some(code) = codes.read(width) else { break Stop::Ended };
            let entry = if code < next {
                match code {
                    CLEAR => break Stop::Clear,
                    END => break Stop::Ended,
                    _ => self.table[code & (SIZE - 1)],
                }
            } else if code == next && previous.len() > 0 {
                // The very entry that this code defines: its last byte is its own first.
                previous.extended(previous_start, previous.first())
            } else {
                break Stop::Undefined(code);
            };
            if next < SIZE && previous.len() > 0 {
                self.table[next] = previous.extended(previous_start, entry.first());
                next += 1;
                width += u32::from(next + 1 == 1 << width && width < 12);
            }
            (previous, previous_start) = (entry, pos);
            pos = emit(out, pos, entry);
        };
        (*stream, *at) = (codes, pos);
        stop
    }
}

/// Why the decoding of one dictionary's codes ended.
enum Stop {
    Full,
    Clear,
    Ended,
    Undefined(usize),
}

/// Write an entry's string at `pos` (cut at the end of `out`); the position after it.
#[inline(always)]
fn emit(out: &mut [u8], pos: usize, entry: Entry) -> usize {
    let len = entry.len();
    match out.get_mut(pos..).and_then(|rest| rest.first_chunk_mut::<INLINE>()) {
        Some(window) if len <= INLINE => {
            *window = entry.head.to_le_bytes();
            pos + len
        }
        _ => emit_long(out, pos, entry),
    }
}

#[inline(never)]
fn emit_long(out: &mut [u8], pos: usize, entry: Entry) -> usize {
    let (start, len) = (entry.start(), entry.len());
    let end = (pos + len).min(out.len());
    if len <= INLINE {
        out[pos..end].copy_from_slice(&entry.head.to_le_bytes()[..end - pos]);
    } else {
        // An entry just defined reaches one byte into the place it is copied to: that byte comes last.
        let overlaps = start + len > pos;
        let whole = (end - pos).min(len - usize::from(overlaps));
        out.copy_within(start..start + whole, pos);
        if pos + whole < end {
            out[pos + whole] = entry.first();
        }
    }
    end
}

/// Codes of 9 to 12 bits, most significant bit first.
#[derive(Clone, Copy)]
struct Codes<'a> {
    input: &'a [u8],
    at: usize,
    /// The next bits, left-aligned; at least `n_bits` of them are valid.
    bits: u64,
    n_bits: u32,
}

impl Codes<'_> {
    #[inline(always)]
    fn read(&mut self, width: u32) -> Option<usize> {
        if self.n_bits < width {
            self.refill();
            if self.n_bits < width {
                return None;
            }
        }
        let code = (self.bits >> (64 - width)) as usize;
        self.bits <<= width;
        self.n_bits -= width;
        Some(code)
    }

    #[inline(always)]
    fn refill(&mut self) {
        if let Some(word) = self.input.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            self.bits |= u64::from_be_bytes(*word) >> self.n_bits;
            let taken = (63 - self.n_bits) / 8;
            self.at += taken as usize;
            self.n_bits += taken * 8;
        } else {
            self.refill_bytewise();
        }
    }

    #[cold]
    fn refill_bytewise(&mut self) {
        while self.n_bits <= 56
            && let Some(byte) = self.input.get(self.at)
        {
            self.bits |= u64::from(*byte) << (56 - self.n_bits);
            self.at += 1;
            self.n_bits += 8;
        }
    }
}
