//! Canonical JSON (RFC 8785): one byte string for one value, so that a hash of it means something.

use std::cmp::Ordering;
use std::io::Write;

use crate::error::{Error, Result};

/// Deepest nesting of arrays and objects that is accepted.
pub const MAX_DEPTH: usize = 32;

/// Largest magnitude that an IEEE double, JSON's only number, holds without doubt.
const MAX_INT: u64 = 1 << 53;

pub type Members = Vec<(String, Value)>;

/// A JSON value. Integers beyond 2^53 are written as decimal strings, non-finite numbers as null.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    Array(Vec<Value>),
    Object(Members),
}

impl Value {
    /// Parse JSON text of any layout.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| Error::format("JSON", error.to_string()))?;
        Ok(value.into())
    }

    /// The canonical text of this value; refuses a non-finite number, as RFC 8785 does.
    pub fn to_canonical(&self) -> Result<Vec<u8>> {
        let mut value = self.clone();
        sort_value(&mut value, 0)?;
        if !nonfinite_of(&value).is_empty() {
            return Err(Error::argument("value", "a number that is not finite", "finite numbers"));
        }
        let mut out = Vec::new();
        write_value(&value, &mut out);
        Ok(out)
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(flag),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(int) if int.unsigned_abs() <= MAX_INT => Self::Int(int),
                // A long literal such as 1e20 written in full: JSON means the double nearest to it.
                _ => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(members) => {
                Self::Object(members.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

/// Bring members, at every depth, into canonical order; refuse duplicate keys and nesting beyond [`MAX_DEPTH`].
pub fn sort_members(members: &mut Members) -> Result<()> {
    sort_object(members, 0)
}

fn sort_object(members: &mut Members, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::argument("fields", format!("nesting deeper than {MAX_DEPTH}"), "less"));
    }
    members.sort_unstable_by(|(a, _), (b, _)| compare_keys(a, b));
    if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::argument("fields", format!("the key {:?} twice", pair[0].0), "each key once"));
    }
    members.iter_mut().try_for_each(|(_, value)| sort_value(value, depth + 1))
}

fn sort_value(value: &mut Value, depth: usize) -> Result<()> {
    match value {
        Value::Object(members) => sort_object(members, depth),
        Value::Array(_) if depth > MAX_DEPTH => {
            Err(Error::argument("fields", format!("nesting deeper than {MAX_DEPTH}"), "less"))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| sort_value(item, depth + 1)),
        _ => Ok(()),
    }
}

/// Order by UTF-16 code units. Bytes of UTF-8 give the same order except between characters beyond the basic
/// plane (lead byte 0xF0 and up, but surrogates in UTF-16) and U+E000 to U+FFFF (lead byte 0xEE or 0xEF).
fn compare_keys(a: &str, b: &str) -> Ordering {
    let at = a.bytes().zip(b.bytes()).position(|(x, y)| x != y);
    match at.map(|i| (a.as_bytes()[i], b.as_bytes()[i])) {
        None => a.len().cmp(&b.len()),
        Some((x, y)) if x >= 0xEE || y >= 0xEE => a.encode_utf16().cmp(b.encode_utf16()),
        Some((x, y)) => x.cmp(&y),
    }
}

/// Dotted names of the fields that hold a non-finite number, each once (an array counts as one field).
pub fn nonfinite_fields(members: &Members) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (key, value) in members {
        names.extend(nonfinite_of(value).into_iter().map(|rest| format!("{key}{rest}")));
    }
    names
}

fn nonfinite_of(value: &Value) -> Vec<String> {
    let mut names = match value {
        Value::Float(number) if !number.is_finite() => vec![String::new()],
        Value::Array(items) => items.iter().flat_map(nonfinite_of).collect(),
        Value::Object(members) => nonfinite_fields(members).into_iter().map(|name| format!(".{name}")).collect(),
        _ => Vec::new(),
    };
    names.sort_unstable();
    names.dedup();
    names
}

/// Write an object whose members stand in canonical order. Returns where in `out` the member `split` would be
/// inserted: just behind the last member whose key comes before it.
pub fn write_members(members: &Members, split: &str, out: &mut Vec<u8>) -> usize {
    out.push(b'{');
    let mut at = out.len();
    for (i, (key, value)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(key, out);
        out.push(b':');
        write_value(value, out);
        if compare_keys(key, split).is_lt() {
            at = out.len();
        }
    }
    out.push(b'}');
    at
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Int(int) => write_int(*int, out),
        Value::Float(number) if number.is_finite() => {
            out.extend_from_slice(ryu_js::Buffer::new().format_finite(*number).as_bytes());
        }
        Value::Float(_) => out.extend_from_slice(b"null"),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            write_members(members, "", out);
        }
    }
}

fn write_int(int: i64, out: &mut Vec<u8>) {
    let quote: &[u8] = if int.unsigned_abs() > MAX_INT { b"\"" } else { b"" };
    out.extend_from_slice(quote);
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{int}");
    out.extend_from_slice(quote);
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..i]);
        copied = i + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0A => out.extend_from_slice(b"\\n"),
            0x0C => out.extend_from_slice(b"\\f"),
            0x0D => out.extend_from_slice(b"\\r"),
            control => {
                let _ = write!(out, "\\u{control:04x}");
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(Value::parse(text.as_bytes()).unwrap().to_canonical().unwrap()).unwrap()
    }

    #[test]
    fn the_sample_of_rfc_8785_section_3_2_2() {
        let sample = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        assert_eq!(
            canonical(sample),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    #[test]
    fn keys_sort_as_rfc_8785_section_3_2_3_shows() {
        let sample = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        assert_eq!(
            canonical(sample),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1F600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn the_numbers_of_rfc_8785_appendix_b() {
        for (bits, text) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            let written = Value::Float(f64::from_bits(bits)).to_canonical().unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), text, "{bits:016x}");
        }
    }

    #[test]
    fn integers_beyond_the_doubles_are_strings() {
        let edge = 1_i64 << 53;
        assert_eq!(Value::Int(-edge).to_canonical().unwrap(), b"-9007199254740992");
        assert_eq!(Value::Int(edge + 1).to_canonical().unwrap(), b"\"9007199254740993\"");
        assert_eq!(Value::Int(i64::MIN).to_canonical().unwrap(), b"\"-9223372036854775808\"");
    }

    #[test]
    fn nonfinite_numbers_are_named_by_field() {
        let members = vec![
            ("a".into(), Value::Array(vec![Value::Float(f64::NAN), Value::Float(f64::INFINITY)])),
            ("b".into(), Value::Object(vec![("c".into(), Value::Float(f64::NEG_INFINITY))])),
            ("d".into(), Value::Float(1.0)),
        ];
        assert_eq!(nonfinite_fields(&members), ["a", "b.c"]);
        assert!(Value::Object(members).to_canonical().is_err());
    }

    #[test]
    fn too_deep_and_twice_are_refused() {
        let nested = |levels: usize| (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(nested(MAX_DEPTH + 1).to_canonical().is_ok());
        assert!(nested(MAX_DEPTH + 2).to_canonical().is_err());
        let twice = vec![("k".to_owned(), Value::Null), ("k".to_owned(), Value::Null)];
        assert!(Value::Object(twice).to_canonical().is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-(1_i64 << 53)..=1 << 53).prop_map(Value::Int),
            any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Value::Float),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point(value in any_value()) {
            let text = value.to_canonical().unwrap();
            prop_assert_eq!(Value::parse(&text).unwrap().to_canonical().unwrap(), text);
        }

        #[test]
        fn keys_compare_as_utf_16(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(compare_keys(&a, &b), a.encode_utf16().cmp(b.encode_utf16()));
        }
    }
}
