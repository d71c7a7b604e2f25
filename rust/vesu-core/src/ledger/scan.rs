//! Verification of a log as a stream: time linear in its length, memory no more than one record.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::MAX_RECORD_BYTES;
use super::chain::Chain;
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

/// Verify every line of `file`; returns the chain behind the last one and the torn bytes that follow.
pub(super) fn scan(file: &File, path: &Path, cancel: &Cancel) -> Result<(Chain, Vec<u8>)> {
    scan_to(None, file, path, cancel, |_, _, _| {})
}

/// As [`scan`], but of a log whose first `durable` records are known to have reached the disk. What does not hold behind
/// them is what a power cut left of writes that no fsync had followed, in whatever order: it counts as a torn tail.
pub(super) fn scan_behind(durable: Option<u64>, file: &File, path: &Path, cancel: &Cancel) -> Result<(Chain, Vec<u8>)> {
    let known = durable.unwrap_or(0);
    let found = match scan(file, path, cancel) {
        // Record 0 tells whether it is a log at all.
        Err(Error::Evidence { record, .. }) if durable.is_some() && record >= known.max(1) => {
            hold_of_tail(record, file, path, cancel)?
        }
        other => other?,
    };
    if found.0.size() < known {
        let problem = format!("missing; {known} records were on disk ({})", path.display());
        return Err(Error::Evidence { record: found.0.size(), problem });
    }
    Ok(found)
}

/// The chain over the first `size` records, and all bytes behind them.
fn hold_of_tail(size: u64, mut file: &File, path: &Path, cancel: &Cancel) -> Result<(Chain, Vec<u8>)> {
    let io = |source| Error::io(path, source);
    file.rewind().map_err(io)?;
    let mut end = 0;
    let (chain, _) = scan_to(Some(size), file, path, cancel, |_, record, _| end += record.len() as u64 + 1)?;
    file.seek(SeekFrom::Start(end)).map_err(io)?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(io)?;
    Ok((chain, tail))
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
    let mut line = Vec::new();
    let evidence =
        |record, problem: &str| Error::Evidence { record, problem: format!("{problem} ({})", path.display()) };
    while size != Some(chain.size()) {
        cancel.check()?;
        line.clear();
        (&mut reader)
            .take(MAX_RECORD_BYTES as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|source| Error::io(path, source))?;
        let number = chain.size();
        match line.split_last() {
            Some((b'\n', record)) => {
                let leaf = chain.accept(record).map_err(|problem| evidence(number, &problem))?;
                visit(&chain, record, leaf);
            }
            _ if line.len() > MAX_RECORD_BYTES => return Err(evidence(number, "longer than a record may be")),
            _ if number == 0 && !may_be_first_record(&line) => {
                return Err(evidence(number, "not a record of an event log"));
            }
            _ => return Ok((chain, line)),
        }
    }
    Ok((chain, Vec::new()))
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
