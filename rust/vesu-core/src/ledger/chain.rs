//! The chain of records: what the next one must repeat, and the Merkle tree over all so far. Pure: no file here.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::MAX_RECORD_BYTES;
use super::canonical::{close, write_array, write_digits, write_int, write_json, write_key, write_string};
use super::fields::{Fields, RESERVED};
use super::merkle::{Hash, Tree, hex, leaf_hash};
use crate::error::{Error, Result};

const ZERO_HASH: Hash = [0; 32];

/// What stands before and behind the 64 digits of a record's hash in its line; a member always follows.
const HASH_OPENING: &[u8] = b"\"hash\":\"";
const HASH_CLOSING: &[u8] = b"\",";
const HASH_MEMBER_BYTES: usize = HASH_OPENING.len() + 64 + HASH_CLOSING.len();

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
    pub fn append(&mut self, event: &str, fields: &Fields, ts_ns: u64, out: &mut Vec<u8>) -> Result<u64> {
        if event.is_empty() {
            return Err(Error::argument("name", "an empty name", "a name such as \"RUN_START\""));
        }
        let ts_ns = ts_ns.max(self.last_ts_ns.unwrap_or(0));
        let sequence = self.size();
        let at = assemble(&mut self.body, event, fields, sequence, &self.head, ts_ns);
        let bytes = self.body.len() + HASH_MEMBER_BYTES;
        if bytes > MAX_RECORD_BYTES {
            let accepted = format!("a record of at most {MAX_RECORD_BYTES} bytes");
            return Err(Error::argument("fields", format!("a record of {bytes} bytes"), accepted));
        }
        self.commit(leaf_hash(&self.body), hex(&Sha256::digest(&self.body).into()), ts_ns);
        out.reserve(bytes + 1);
        let (before, after) = self.body.split_at(at);
        for part in [before, HASH_OPENING, self.head.as_bytes(), HASH_CLOSING, after, b"\n"] {
            out.extend_from_slice(part);
        }
        Ok(sequence)
    }

    /// Verify the next line (without its line feed), take it in and return its leaf; `Err` says what does not hold.
    pub fn accept(&mut self, line: &[u8]) -> Result<Hash, String> {
        let checked = Checked::of(line, &mut self.body)?;
        self.follow(checked)
    }

    /// Take in a record that holds in itself, if it is the next one; returns its leaf.
    pub fn follow(&mut self, record: Checked) -> Result<Hash, String> {
        if record.sequence != self.size() {
            return Err(format!("its seq is not {}", self.size()));
        }
        if record.prev != self.head {
            return Err("its prev is not the hash of the record before".into());
        }
        if self.last_ts_ns.is_some_and(|last| record.ts_ns < last) {
            return Err("its ts_ns is before the last record's".into());
        }
        self.commit(record.leaf, record.hash, record.ts_ns);
        Ok(record.leaf)
    }

    fn commit(&mut self, leaf: Hash, hash: String, ts_ns: u64) {
        self.head = hash;
        self.tree.push(leaf);
        self.first_ts_ns.get_or_insert(ts_ns);
        self.last_ts_ns = Some(ts_ns);
    }
}

/// A record whose line holds in itself. Whether it follows the one before is for [`Chain::follow`] to say: so lines
/// are checked many at a time, in any order.
#[derive(Clone, Debug)]
pub struct Checked {
    sequence: u64,
    prev: String,
    ts_ns: u64,
    hash: String,
    leaf: Hash,
}

impl Checked {
    /// Check a line (without its line feed); `Err` says what does not hold. `body` is room to work in.
    ///
    /// The record is put together again as [`Chain::append`] would have: the text must come out the same.
    pub fn of(line: &[u8], body: &mut Vec<u8>) -> Result<Self, String> {
        let Ok(Value::Object(mut members)) = serde_json::from_slice(line) else {
            return Err("not a JSON object".into());
        };
        let mut text = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(format!("no text member {name:?}")),
        };
        let (event, hash, prev, ts_ns) = (text("event")?, text("hash")?, text("prev")?, text("ts_ns")?);
        let sequence = members.remove("seq").and_then(|number| number.as_u64()).ok_or("it has no seq")?;
        let ts_ns = ts_ns.parse().map_err(|_| "its ts_ns is no decimal number".to_owned())?;
        let nonfinite = take_names(members.remove("nonfinite"))?;
        let fields = Fields::from_json(&members).map_err(|error| error.to_string())?;

        let at = assemble(body, &event, &Fields { nonfinite, ..fields }, sequence, &prev, ts_ns);
        if hex(&Sha256::digest(&body).into()) != hash {
            return Err("its content does not match its hash".into());
        }
        let (before, after) = body.split_at(at);
        let parts = [before, HASH_OPENING, hash.as_bytes(), HASH_CLOSING, after];
        let rest = parts.iter().try_fold(line, |rest, part| rest.strip_prefix(*part));
        if rest.is_none_or(|rest| !rest.is_empty()) {
            return Err("its text is not canonical JSON".into());
        }
        Ok(Self { sequence, prev, ts_ns, hash, leaf: leaf_hash(body) })
    }
}

/// Put a record's body together in `out`; returns where its hash member belongs.
fn assemble(out: &mut Vec<u8>, event: &str, fields: &Fields, sequence: u64, prev: &str, ts_ns: u64) -> usize {
    let mut hash_at = 0;
    let mut copied = 0;
    out.clear();
    out.push(b'{');
    for (name, &slot) in RESERVED.into_iter().zip(&fields.slots) {
        out.extend_from_slice(&fields.text[copied..slot]);
        copied = slot;
        match name {
            "hash" => hash_at = out.len(),
            "nonfinite" if fields.nonfinite.is_empty() => {}
            _ => {
                write_key(name, out);
                match name {
                    "event" => write_string(event, out),
                    "nonfinite" => write_names(&fields.nonfinite, out),
                    "prev" => write_string(prev, out),
                    "seq" => write_int(i64::try_from(sequence).unwrap_or(i64::MAX), out),
                    _ => {
                        out.push(b'"');
                        write_digits(ts_ns, out);
                        out.push(b'"');
                    }
                }
                out.push(b',');
            }
        }
    }
    out.extend_from_slice(&fields.text[copied..]);
    close(b'{', b'}', out);
    hash_at
}

/// Number and Merkle leaf of a record that stands alone; `Err` says what does not hold.
pub fn record_leaf(line: &[u8]) -> Result<(u64, Hash), String> {
    let Ok(mut record @ Value::Object(_)) = serde_json::from_slice(line) else {
        return Err("not a JSON object".into());
    };
    let mut text = Vec::with_capacity(line.len());
    write_json(&record, &mut text);
    if text != line {
        return Err("its text is not canonical JSON".into());
    }
    let sequence = record["seq"].as_u64().ok_or("it has no seq")?;
    let hash = record.as_object_mut().and_then(|members| members.remove("hash"));
    text.clear();
    write_json(&record, &mut text);
    if hash.as_ref().and_then(Value::as_str) != Some(&hex(&Sha256::digest(&text).into())) {
        return Err("its content does not match its hash".into());
    }
    Ok((sequence, leaf_hash(&text)))
}

fn write_names(names: &[String], out: &mut Vec<u8>) {
    write_array(names, out, |name, out| write_string(name, out));
}

/// The value of a `nonfinite` member: absent, or a list of names that is not empty.
fn take_names(value: Option<Value>) -> Result<Vec<String>, String> {
    let problem = "its nonfinite is not a list of field names";
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if !items.is_empty() => {
            items.into_iter().map(|item| item.as_str().map(str::to_owned).ok_or(problem.to_owned())).collect()
        }
        Some(_) => Err(problem.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::from_json(value.as_object().unwrap()).unwrap()
    }

    fn three_records() -> Vec<u8> {
        let (mut chain, mut out) = (Chain::default(), Vec::new());
        for i in 0..3 {
            let mut fields = fields(json!({"value": i, "a \u{e9}\n": null, "z": [1.5]}));
            fields.nonfinite.push("a \u{e9}\n".into());
            chain.append("TEST", &fields, 1_790_000_000_000_000_000, &mut out).unwrap();
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
    fn a_record_alone_tells_its_number_and_leaf_unless_a_bit_is_flipped() {
        let text = three_records();
        let mut chain = Chain::default();
        for (number, line) in (0..).zip(text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())) {
            assert_eq!(record_leaf(line), Ok((number, chain.accept(line).unwrap())));
            for at in 0..8 * line.len() {
                let mut flipped = line.to_vec();
                flipped[at / 8] ^= 1 << (at % 8);
                assert!(record_leaf(&flipped).is_err(), "bit {at}");
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
        let huge = fields(json!({"text": "x".repeat(MAX_RECORD_BYTES)}));
        assert!(chain.append("TEST", &huge, 1, &mut out).is_err());
        assert!(chain.append("", &Fields::default(), 1, &mut out).is_err());
        assert_eq!((chain.size(), chain.root(), out.len()), (0, before, 0));
    }

    #[test]
    fn time_never_runs_backwards() {
        let (mut chain, mut out) = (Chain::default(), Vec::new());
        chain.append("TEST", &Fields::default(), 5, &mut out).unwrap();
        chain.append("TEST", &Fields::default(), 3, &mut out).unwrap();
        assert_eq!(chain.last_ts_ns(), Some(5));
    }

    #[test]
    fn reserved_and_repeated_names_are_refused() {
        for name in RESERVED {
            assert!(Fields::from_json(json!({name: 1}).as_object().unwrap()).is_err());
        }
        let mut twice = [("k", 1), ("j", 2), ("k", 3)];
        assert!(Fields::build(&mut twice, |_, _, _| Ok::<(), Error>(())).is_err());
    }

    #[test]
    fn fields_fall_into_place_around_the_reserved_ones() {
        let (mut chain, mut out) = (Chain::default(), Vec::new());
        let names = ["a", "event0", "f", "hash_", "i", "o", "prev.", "r", "seq2", "t", "ts_ns_", "~", "\u{e9}"];
        let all: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        chain.append("TEST", &fields(Value::Object(all)), 1, &mut out).unwrap();
        assert!(Chain::default().accept(&out[..out.len() - 1]).is_ok());
        assert_eq!(super::super::canonical::canonicalise(&out).unwrap(), &out[..out.len() - 1]);
    }
}
