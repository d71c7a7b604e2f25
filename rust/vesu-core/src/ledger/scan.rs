//! Verification of a log as a stream: time linear in its length, memory for some records. Records are checked on all
//! threads; that each follows the one before is looked at in their order.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::MAX_RECORD_BYTES;
use super::chain::{Chain, Checked};
use super::merkle::{Hash, hex};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// What a log that holds together amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub entries: u64,
    /// Merkle tree head, hexadecimal.
    pub root: String,
    /// The last record's hash, hexadecimal.
    pub head: String,
    pub first_ts_ns: Option<u64>,
    pub last_ts_ns: Option<u64>,
    /// Bytes behind the last line feed: what a crash left of a record that was being written.
    pub torn_bytes: u64,
}

/// Verify the log at `path`. A torn last record is reported; anything else amiss is an error with its number.
pub fn verify(path: &Path, cancel: &Cancel) -> Result<Report> {
    let file = open_regular(path, File::options().read(true))?;
    let (chain, tail) = scan(&file, path, cancel)?;
    Ok(Report {
        entries: chain.size(),
        root: hex(&chain.root()),
        head: chain.head().to_owned(),
        first_ts_ns: chain.first_ts_ns(),
        last_ts_ns: chain.last_ts_ns(),
        torn_bytes: tail.len() as u64,
    })
}

/// Open what must be a regular file: a pipe or a device would block, or never end.
pub(super) fn open_regular(path: &Path, options: &std::fs::OpenOptions) -> Result<File> {
    let irregular = |path: &Path| Error::io(path, std::io::Error::other("not a regular file"));
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => return Err(irregular(path)),
        // A folder, like a missing file, gets the system's own words from `open` or the first read.
        _ => {}
    }
    options.open(path).map_err(|source| Error::io(path, source))
}

/// A tree head whose records a sync has made durable.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    pub size: u64,
    pub root: Hash,
}

/// What stands behind the last record that holds.
#[derive(Debug)]
pub(super) struct Tail {
    /// Where it begins, in bytes from the file's start.
    pub start: u64,
    pub bytes: u64,
    pub sha256: Hash,
    /// What is wrong with its first line; a record that merely breaks off has no problem.
    pub problem: Option<String>,
}

/// Verify `file` up to its end, or to the first damage if that lies behind the records of `durable`.
pub(super) fn scan_end(durable: Option<Durable>, file: &File, path: &Path, cancel: &Cancel) -> Result<(Chain, Tail)> {
    let (mut end, mut covered) = (0, durable.is_some_and(|head| head.size == 0));
    let outcome = scan_to(None, file, path, cancel, |chain, record, _| {
        end += record.len() as u64 + 1;
        covered |= durable.is_some_and(|head| head.size == chain.size() && head.root == chain.root());
    });
    let (chain, problem) = match outcome {
        // Rolled back, or another log than the one of that head.
        Ok((chain, _)) if durable.is_some() && !covered => {
            let problem = format!("the log does not begin with the tree that was durable ({})", path.display());
            return Err(Error::Evidence { record: chain.size(), problem });
        }
        Ok((chain, _)) => (chain, None),
        // Only now is it known where the chain ends, so its start is read again: damage is rare.
        Err(Error::Evidence { record, problem }) if covered => {
            let io = |source| Error::io(path, source);
            (&mut &*file).seek(SeekFrom::Start(0)).map_err(io)?;
            (scan_to(Some(record), file, path, cancel, |_, _, _| {})?.0, Some(problem))
        }
        Err(error) => return Err(error),
    };
    let (bytes, sha256) = digest_from(end, file).map_err(|source| Error::io(path, source))?;
    Ok((chain, Tail { start: end, bytes, sha256, problem }))
}

/// Length and SHA-256 of what follows a place in the file.
fn digest_from(start: u64, mut file: &File) -> std::io::Result<(u64, Hash)> {
    file.seek(SeekFrom::Start(start))?;
    let mut hasher = Sha256::new();
    let (mut bytes, mut block) = (0, vec![0; 1 << 16]);
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok((bytes, hasher.finalize().into())),
            Ok(n) => {
                hasher.update(&block[..n]);
                bytes += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Verify every line of `file`; returns the chain behind the last one and the torn bytes that follow.
pub(super) fn scan(file: &File, path: &Path, cancel: &Cancel) -> Result<(Chain, Vec<u8>)> {
    scan_to(None, file, path, cancel, |_, _, _| {})
}

/// Verify the first `size` lines of `file`, or all; `visit` sees the chain behind each record, its line and its leaf.
/// Returns the last chain and, if the end was reached, the torn bytes there.
pub(super) fn scan_to(
    size: Option<u64>,
    file: &File,
    path: &Path,
    cancel: &Cancel,
    mut visit: impl FnMut(&Chain, &[u8], Hash),
) -> Result<(Chain, Vec<u8>)> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut chain = Chain::default();
    let mut block = Block::default();
    let evidence =
        |record, problem: &str| Error::Evidence { record, problem: format!("{problem} ({})", path.display()) };
    loop {
        cancel.check()?;
        let wanted = size.map_or(u64::MAX, |size| size - chain.size());
        let tail = block.read(&mut reader, wanted).map_err(|source| Error::io(path, source))?;
        for (record, checked) in block.records().zip(block.checked()) {
            let number = chain.size();
            let leaf = checked.and_then(|record| chain.follow(record)).map_err(|problem| evidence(number, &problem))?;
            visit(&chain, record, leaf);
        }
        let number = chain.size();
        match tail {
            None if size == Some(number) => return Ok((chain, Vec::new())),
            None => {}
            Some(tail) if tail.len() > MAX_RECORD_BYTES => {
                return Err(evidence(number, "longer than a record may be"));
            }
            Some(tail) if number == 0 && !may_be_first_record(&tail) => {
                return Err(evidence(number, "not a record of an event log"));
            }
            Some(tail) => return Ok((chain, tail)),
        }
    }
}

/// A block is full when it holds so many bytes: enough lines to be shared between threads.
const BLOCK_BYTES: usize = 1 << 20;

/// Lines that are checked together.
#[derive(Default)]
struct Block {
    text: Vec<u8>,
    /// Where each line's record begins and ends, its line feed left out.
    records: Vec<(usize, usize)>,
}

impl Block {
    /// Read up to `wanted` lines, until the block is full; the bytes of a line without end, where one came.
    fn read(&mut self, reader: &mut impl BufRead, wanted: u64) -> std::io::Result<Option<Vec<u8>>> {
        self.text.clear();
        self.records.clear();
        while (self.records.len() as u64) < wanted && self.text.len() < BLOCK_BYTES {
            let start = self.text.len();
            reader.by_ref().take(MAX_RECORD_BYTES as u64 + 1).read_until(b'\n', &mut self.text)?;
            match self.text[start..].last() {
                Some(b'\n') => self.records.push((start, self.text.len() - 1)),
                _ => return Ok(Some(self.text.split_off(start))),
            }
        }
        Ok(None)
    }

    fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().map(|&(start, end)| &self.text[start..end])
    }

    fn checked(&self) -> Vec<Result<Checked, String>> {
        let check = |body: &mut Vec<u8>, &(start, end): &(usize, usize)| Checked::of(&self.text[start..end], body);
        self.records.par_iter().with_min_len(16).map_init(Vec::new, check).collect()
    }
}

/// Whether a file of one unfinished line may be what a crash left of a log's first record. Opening a log cuts a
/// torn tail off, and must not do that to a user's other file given by mistake.
fn may_be_first_record(tail: &[u8]) -> bool {
    let zeros = tail.iter().all(|&byte| byte == 0);
    let begun = tail.iter().zip(b"{\"").all(|(a, b)| a == b);
    // Complete JSON without a hash is somebody's own file.
    let foreign = serde_json::from_slice(tail).is_ok_and(|value: serde_json::Value| value.get("hash").is_none());
    zeros || (begun && !foreign)
}
