//! Unpacking one strip or tile into a slice of exactly its declared size.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Compression, lzw};
use crate::cancel::Cancel;
use crate::error::Result;

/// Bytes between two looks at the cancel token.
const STEP: usize = 4 << 20;

/// The decoders' reusable state, one a worker.
#[derive(Default)]
pub struct Unpacker {
    lzw: Option<lzw::Decoder>,
    inflate: Option<Decompress>,
}

impl Unpacker {
    /// Fill `out`. `spare`: bytes that the data may hold beyond it (a last strip stored at full height).
    /// The inner `Err` says what is wrong with the data.
    pub fn unpack(
        &mut self,
        compression: Compression,
        input: &[u8],
        out: &mut [u8],
        spare: usize,
        cancel: &Cancel,
    ) -> Result<Result<(), String>> {
        match compression {
            Compression::None => Ok(copy(input, out)),
            Compression::Lzw => self.lzw.get_or_insert_with(lzw::Decoder::new).decode(input, out, cancel),
            Compression::PackBits => unpack_bits(input, out, cancel),
            Compression::Deflate => {
                let inflate = self.inflate.get_or_insert_with(|| Decompress::new(true));
                inflate.reset(true);
                unzip(inflate, input, out, spare, cancel)
            }
        }
    }
}

fn copy(input: &[u8], out: &mut [u8]) -> Result<(), String> {
    let Some(data) = input.get(..out.len()) else {
        return Err(format!("{} bytes where {} are declared", input.len(), out.len()));
    };
    out.copy_from_slice(data);
    Ok(())
}

/// Inflate, to the end of the stream so that its checksum is verified.
fn unzip(
    inflate: &mut Decompress,
    input: &[u8],
    out: &mut [u8],
    spare: usize,
    cancel: &Cancel,
) -> Result<Result<(), String>> {
    let mut beyond = [0; 4096];
    loop {
        cancel.check()?;
        let (used, done) = (inflate.total_in() as usize, inflate.total_out() as usize);
        if done > out.len() + spare {
            return Ok(Err(format!("the Deflate data hold more than the {} declared bytes", out.len())));
        }
        let end = out.len().min(done.saturating_add(STEP));
        let target = if done < out.len() { &mut out[done..end] } else { &mut beyond[..] };
        let status = inflate.decompress(&input[used..], target, FlushDecompress::None);
        let total = inflate.total_out() as usize;
        match status {
            Ok(Status::StreamEnd) if total >= out.len() => return Ok(Ok(())),
            Ok(Status::StreamEnd) => return Ok(Err(format!("{total} of {} declared bytes in it", out.len()))),
            Ok(_) if total == done && inflate.total_in() as usize == used => {
                return Ok(Err(format!("the Deflate data end after {total} of {} declared bytes", out.len())));
            }
            Ok(_) => {}
            Err(error) => return Ok(Err(format!("damaged Deflate data after {total} bytes: {error}"))),
        }
    }
}

/// PackBits: a count byte n, then n + 1 literals (n >= 0) or one byte to repeat 1 - n times; -128 is nothing.
fn unpack_bits(input: &[u8], out: &mut [u8], cancel: &Cancel) -> Result<Result<(), String>> {
    let (mut at, mut pos, mut poll_at) = (0, 0, 0);
    while pos < out.len() {
        if at >= poll_at {
            cancel.check()?;
            poll_at = at + STEP;
        }
        let short = || format!("the PackBits data end after {pos} of {} declared bytes", out.len());
        let Some(&count) = input.get(at) else { return Ok(Err(short())) };
        at += 1;
        if count == 128 {
            continue;
        }
        let (run, used) =
            if count < 128 { (usize::from(count) + 1, usize::from(count) + 1) } else { (257 - usize::from(count), 1) };
        let Some(data) = input.get(at..at + used) else { return Ok(Err(short())) };
        let run = run.min(out.len() - pos);
        if count < 128 {
            out[pos..pos + run].copy_from_slice(&data[..run]);
        } else {
            out[pos..pos + run].fill(data[0]);
        }
        at += used;
        pos += run;
    }
    Ok(Ok(()))
}
