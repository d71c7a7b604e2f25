//! A record's own members in canonical form, with the places kept open where the ledger's members go.

use serde_json::{Map, Value};

use super::canonical::{compare_keys, sort, write_key};
use crate::error::{Error, Result};

/// Member names that the ledger itself writes, in canonical order; a caller's field may not use them.
pub const RESERVED: [&str; 6] = ["event", "hash", "nonfinite", "prev", "seq", "ts_ns"];

/// Canonical members, each with a comma behind it.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub(super) text: Vec<u8>,
    /// Where in `text` each reserved member belongs.
    pub(super) slots: [usize; RESERVED.len()],
    /// Dotted names of the fields that hold a number that is not finite.
    pub nonfinite: Vec<String>,
}

impl Fields {
    /// Bring members into canonical order and write them; `write` writes one value.
    ///
    /// Refuses a reserved name and a name that comes twice.
    pub fn build<V, E: From<Error>>(
        members: &mut [(&str, V)],
        mut write: impl FnMut(&str, &V, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Self, E> {
        sort(members);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::argument("fields", format!("the field {:?} twice", pair[0].0), "each once").into());
        }
        let mut fields = Self { text: Vec::with_capacity(1024), ..Self::default() };
        let mut reserved = 0;
        for (key, value) in members.iter() {
            while reserved < RESERVED.len() && compare_keys(RESERVED[reserved], key).is_le() {
                if RESERVED[reserved] == *key {
                    let accepted = format!("any field name but {}", RESERVED.join(", "));
                    return Err(Error::argument("fields", format!("the field {key:?}"), accepted).into());
                }
                fields.slots[reserved] = fields.text.len();
                reserved += 1;
            }
            write_key(key, &mut fields.text);
            write(key, value, &mut fields.text)?;
            fields.text.push(b',');
        }
        fields.slots[reserved..].fill(fields.text.len());
        Ok(fields)
    }

    /// The members of a JSON object.
    pub fn from_json(members: &Map<String, Value>) -> Result<Self> {
        let mut members: Vec<_> = members.iter().map(|(key, value)| (key.as_str(), value)).collect();
        Self::build(&mut members, |_, value, out| {
            super::canonical::write_json(value, out);
            Ok(())
        })
    }
}
