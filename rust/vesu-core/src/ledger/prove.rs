//! Tree heads and proofs of a log on disk: one verifying pass over its file each, memory for a block of records.

use std::fs::File;
use std::path::Path;

use super::Chain;
use super::merkle::{Hash, Tree};
use super::proof::Prover;
use super::scan::{open_regular, scan_to};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// That a record is in the log of `size` records and head `root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    pub index: u64,
    pub size: u64,
    /// The record's line, without its line feed.
    pub record: Vec<u8>,
    pub path: Vec<Hash>,
    pub root: Hash,
}

/// That the log of `second` records goes on from that of `first`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    pub first: u64,
    pub second: u64,
    pub path: Vec<Hash>,
    pub first_root: Hash,
    pub second_root: Hash,
}

/// Size and root of the tree over the first `size` records, or over all. What stands behind them is not read.
pub fn tree_head(path: &Path, size: Option<u64>, cancel: &Cancel) -> Result<(u64, Hash)> {
    let chain = walk(path, "size", size, cancel, |_, _, _| {})?;
    Ok((chain.size(), chain.root()))
}

/// Prove that the record `index` is among the first `size`, or among all.
pub fn prove_inclusion(path: &Path, index: u64, size: Option<u64>, cancel: &Cancel) -> Result<Inclusion> {
    if let Some(size) = size.filter(|&size| index >= size) {
        return Err(beyond("index", index, size));
    }
    let mut prover = Prover::inclusion(index);
    let mut record = Vec::new();
    let chain = walk(path, "size", size, cancel, |chain, line, leaf| {
        if chain.size() - 1 == index {
            record.extend_from_slice(line);
        }
        prover.push(leaf);
    })?;
    if index >= chain.size() {
        return Err(beyond("index", index, chain.size()));
    }
    Ok(Inclusion { index, size: chain.size(), record, path: prover.path(), root: chain.root() })
}

/// Prove that the first `second` records, or all, go on from the first `first`.
pub fn prove_consistency(path: &Path, first: u64, second: Option<u64>, cancel: &Cancel) -> Result<Consistency> {
    let too_many = |second: u64| Error::argument("first", first, format!("0 to {second}, the second size"));
    if let Some(second) = second.filter(|&second| first > second) {
        return Err(too_many(second));
    }
    let mut prover = Prover::consistency(first);
    let mut first_root = Tree::new().root();
    let chain = walk(path, "second", second, cancel, |chain, _, leaf| {
        prover.push(leaf);
        if chain.size() == first {
            first_root = chain.root();
        }
    })?;
    if first > chain.size() {
        return Err(too_many(chain.size()));
    }
    let (second, second_root) = (chain.size(), chain.root());
    Ok(Consistency { first, second, path: prover.path(), first_root, second_root })
}

/// Verify the first `size` records, or all; fewer than asked for are an error in the argument `name`.
fn walk(
    path: &Path,
    name: &'static str,
    size: Option<u64>,
    cancel: &Cancel,
    visit: impl FnMut(&Chain, &[u8], Hash),
) -> Result<Chain> {
    let file = open_regular(path, File::options().read(true))?;
    let (chain, _) = scan_to(size, &file, path, cancel, visit)?;
    match size {
        Some(size) if size > chain.size() => {
            let accepted = format!("0 to {}, the records of {}", chain.size(), path.display());
            Err(Error::argument(name, size, accepted))
        }
        _ => Ok(chain),
    }
}

fn beyond(name: &'static str, index: u64, size: u64) -> Error {
    let accepted = match size.checked_sub(1) {
        Some(last) => format!("0 to {last}, a record before size {size}"),
        None => "none: there is no record before size 0".to_owned(),
    };
    Error::argument(name, index, accepted)
}
