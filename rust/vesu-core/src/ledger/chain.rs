//! The chain of records: what the next one must repeat, and the Merkle tree over all so far. Pure: no file here.

use sha2::{Digest, Sha256};

use super::MAX_RECORD_BYTES;
use super::canonical::{Members, Value, nonfinite_fields, sort_members, write_members};
use super::merkle::{Hash, Tree, hex, leaf_hash};
use crate::error::{Error, Result};

/// Member names that the ledger itself writes; a caller's field may not use them.
pub const RESERVED: [&str; 6] = ["event", "hash", "nonfinite", "prev", "seq", "ts_ns"];

const ZERO_HASH: Hash = [0; 32];

/// Bytes of `,"hash":"<64 digits>"`.
const HASH_MEMBER_BYTES: usize = 74;

/// State after a number of records; the same for the one who writes and the one who verifies.
#[derive(Clone, Debug)]
pub struct Chain {
    tree: Tree,
    head: String,
    first_ts_ns: Option<u64>,
    last_ts_ns: Option<u64>,
    body: Vec<u8>,
}

impl Default for Chain {
    fn default() -> Self {
        Self { tree: Tree::new(), head: hex(&ZERO_HASH), first_ts_ns: None, last_ts_ns: None, body: Vec::new() }
    }
}

impl Chain {
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The last record's hash in hexadecimal; 64 zeros before the first.
    pub fn head(&self) -> &str {
        &self.head
    }

    pub fn first_ts_ns(&self) -> Option<u64> {
        self.first_ts_ns
    }

    pub fn last_ts_ns(&self) -> Option<u64> {
        self.last_ts_ns
    }

    /// Add a record and write its line to `out`; returns its number. A refused record changes nothing.
    ///
    /// A `ts_ns` before the last record's is raised to that: time in a log never runs backwards.
    pub fn append(&mut self, event: &str, mut members: Members, ts_ns: u64, out: &mut Vec<u8>) -> Result<u64> {
        check_names(event, &members)?;
        let nonfinite = nonfinite_fields(&members);
        if !nonfinite.is_empty() {
            let names = nonfinite.into_iter().map(Value::String).collect();
            members.push(("nonfinite".into(), Value::Array(names)));
        }
        let sequence = self.size();
        let ts_ns = ts_ns.max(self.last_ts_ns.unwrap_or(0));
        members.push(("event".into(), Value::String(event.to_owned())));
        members.push(("prev".into(), Value::String(self.head.clone())));
        members.push(("seq".into(), int(sequence)));
        members.push(("ts_ns".into(), Value::String(ts_ns.to_string())));
        sort_members(&mut members)?;

        self.body.clear();
        let at = write_members(&members, "hash", &mut self.body);
        let line_bytes = self.body.len() + HASH_MEMBER_BYTES;
        if line_bytes > MAX_RECORD_BYTES {
            let accepted = format!("a record of at most {MAX_RECORD_BYTES} bytes");
            return Err(Error::argument("fields", format!("a record of {line_bytes} bytes"), accepted));
        }
        let hash = hex(&Sha256::digest(&self.body).into());
        self.commit(hash, ts_ns);
        out.reserve(line_bytes + 1);
        out.extend_from_slice(&self.body[..at]);
        out.extend_from_slice(hash_member(&self.head).as_bytes());
        out.extend_from_slice(&self.body[at..]);
        out.push(b'\n');
        Ok(sequence)
    }

    /// Verify the next line (without its line feed) and take it in; `Err` says what does not hold.
    pub fn accept(&mut self, line: &[u8]) -> Result<(), String> {
        let Ok(Value::Object(mut members)) = Value::parse(line) else {
            return Err("not a JSON object".into());
        };
        let Some(Value::String(stated)) = take(&mut members, "hash") else {
            return Err("no text member \"hash\"".into());
        };
        let ts_ns = self.check_links(&members)?;
        sort_members(&mut members).map_err(|error| error.to_string())?;

        self.body.clear();
        let at = write_members(&members, "hash", &mut self.body);
        if hex(&Sha256::digest(&self.body).into()) != stated {
            return Err("its content does not match its hash".into());
        }
        let (before, after) = self.body.split_at(at);
        let member = hash_member(&stated);
        let canonical = line
            .strip_prefix(before)
            .and_then(|rest| rest.strip_prefix(member.as_bytes()))
            .is_some_and(|rest| rest == after);
        if !canonical {
            return Err("its text is not canonical JSON".into());
        }
        self.commit(stated, ts_ns);
        Ok(())
    }

    /// The members that tie a record to its place; returns its time.
    fn check_links(&self, members: &Members) -> Result<u64, String> {
        if !matches!(find(members, "event"), Some(Value::String(_))) {
            return Err("no text member \"event\"".into());
        }
        if find(members, "seq") != Some(&int(self.size())) {
            return Err(format!("its seq is not {}", self.size()));
        }
        if find(members, "prev") != Some(&Value::String(self.head.clone())) {
            return Err("its prev is not the hash of the record before".into());
        }
        let ts_ns = match find(members, "ts_ns") {
            Some(Value::String(digits)) => digits.parse::<u64>().ok(),
            _ => None,
        };
        match ts_ns {
            None => Err("its ts_ns is not a decimal string".into()),
            Some(ts_ns) if self.last_ts_ns.is_some_and(|last| ts_ns < last) => {
                Err("its ts_ns is before the last record's".into())
            }
            Some(ts_ns) => Ok(ts_ns),
        }
    }

    /// Take in the record whose body stands in `self.body`.
    fn commit(&mut self, hash: String, ts_ns: u64) {
        self.head = hash;
        self.tree.push(leaf_hash(&self.body));
        self.first_ts_ns.get_or_insert(ts_ns);
        self.last_ts_ns = Some(ts_ns);
    }
}

fn check_names(event: &str, members: &Members) -> Result<()> {
    if event.is_empty() {
        return Err(Error::argument("event", "an empty name", "a name such as \"RUN_START\""));
    }
    match members.iter().find(|(key, _)| RESERVED.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, _)) => {
            let accepted = format!("any field name but {}", RESERVED.join(", "));
            Err(Error::argument("fields", format!("the field {key:?}"), accepted))
        }
    }
}

fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn hash_member(hash: &str) -> String {
    format!(",\"hash\":\"{hash}\"")
}

fn find<'a>(members: &'a Members, name: &str) -> Option<&'a Value> {
    members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

fn take(members: &mut Members, name: &str) -> Option<Value> {
    let at = members.iter().position(|(key, _)| key == name)?;
    Some(members.swap_remove(at).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_records() -> Vec<u8> {
        let (mut chain, mut out) = (Chain::default(), Vec::new());
        for i in 0..3 {
            let members = vec![("value".into(), Value::Int(i)), ("a \u{e9}\n".into(), Value::Float(f64::NAN))];
            chain.append("TEST", members, 1_790_000_000_000_000_000, &mut out).unwrap();
        }
        out
    }

    fn verify(text: &[u8]) -> Result<Chain, String> {
        let mut chain = Chain::default();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            chain.accept(line.strip_suffix(b"\n").ok_or("torn")?)?;
        }
        Ok(chain)
    }

    #[test]
    fn what_is_written_verifies_to_the_same_state() {
        let chain = verify(&three_records()).unwrap();
        assert_eq!(chain.size(), 3);
        assert_eq!(chain.first_ts_ns(), Some(1_790_000_000_000_000_000));
    }

    #[test]
    fn every_flip_of_every_bit_is_seen() {
        let text = three_records();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(verify(&flipped).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn records_cannot_be_swapped_dropped_or_repeated() {
        let text = three_records();
        let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
        for order in [vec![1, 0, 2], vec![0, 2], vec![1, 2], vec![0, 0, 1, 2], vec![0, 1, 1, 2]] {
            let mixed: Vec<u8> = order.iter().flat_map(|&i| lines[i].to_vec()).collect();
            assert!(verify(&mixed).is_err(), "{order:?}");
        }
    }

    #[test]
    fn a_refused_record_changes_nothing() {
        let (mut chain, mut out) = (Chain::default(), Vec::new());
        let before = chain.root();
        let huge = Value::String("x".repeat(MAX_RECORD_BYTES));
        for members in [vec![("prev".into(), Value::Null)], vec![("text".into(), huge)]] {
            assert!(chain.append("TEST", members, 1, &mut out).is_err());
        }
        assert!(chain.append("", vec![], 1, &mut out).is_err());
        assert_eq!((chain.size(), chain.root(), out.len()), (0, before, 0));
    }

    #[test]
    fn time_never_runs_backwards() {
        let (mut chain, mut out) = (Chain::default(), Vec::new());
        chain.append("TEST", vec![], 5, &mut out).unwrap();
        chain.append("TEST", vec![], 3, &mut out).unwrap();
        assert_eq!(chain.last_ts_ns(), Some(5));
    }
}
