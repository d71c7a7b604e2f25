//! Canonical JSON (RFC 8785): one byte string for one value, so that a hash of it means something.
//!
//! The writers here append to a byte buffer. Whoever walks a value (JSON text, a Python object) calls them; members
//! of an object go through [`write_object`], which brings them into canonical order.

use std::cmp::Ordering;
use std::io::Write;

use serde_json::Value;

use crate::error::{Error, Result};

/// Deepest nesting of arrays and objects that a walk should accept.
pub const MAX_DEPTH: usize = 32;

/// Largest magnitude that an IEEE double, JSON's only number, holds without doubt.
const MAX_INT: u64 = 1 << 53;

/// The canonical text of JSON text of any layout.
pub fn canonicalise(text: &[u8]) -> Result<Vec<u8>> {
    let value = serde_json::from_slice(text).map_err(|error| Error::format("JSON", error.to_string()))?;
    let mut out = Vec::new();
    write_json(&value, &mut out);
    Ok(out)
}

pub fn write_json(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(flag) => write_bool(*flag, out),
        Value::Number(number) => match number.as_i64() {
            Some(int) if int.unsigned_abs() <= MAX_INT => write_int(int, out),
            // A long literal such as 1e20 written in full: JSON means the double nearest to it.
            _ => {
                write_float(number.as_f64().unwrap_or(f64::NAN), out);
            }
        },
        Value::String(text) => write_string(text, out),
        Value::Array(items) => write_array(items, out, write_json),
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
            let Ok(()) = write_object(&mut members, out, |_, value, out| {
                write_json(value, out);
                Ok::<_, std::convert::Infallible>(())
            });
        }
    }
}

/// Bring members into canonical order and write the object; `write` writes one value.
pub fn write_object<V, E>(
    members: &mut [(&str, V)],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&str, &V, &mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    sort(members);
    out.push(b'{');
    for (key, value) in members.iter() {
        write_key(key, out);
        write(key, value, out)?;
        out.push(b',');
    }
    close(b'{', b'}', out);
    Ok(())
}

pub(super) fn write_array<T>(items: &[T], out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for item in items {
        write(item, out);
        out.push(b',');
    }
    close(b'[', b']', out);
}

/// End a container whose every item was written with a comma behind it.
#[inline]
pub fn close(opening: u8, closing: u8, out: &mut Vec<u8>) {
    match out.last_mut() {
        Some(comma) if *comma != opening => *comma = closing,
        _ => out.push(closing),
    }
}

pub(super) fn sort<V>(members: &mut [(&str, V)]) {
    if members.iter().all(|(key, _)| key.is_ascii()) {
        members.sort_unstable_by_key(|(key, _)| *key);
    } else {
        members.sort_unstable_by(|(a, _), (b, _)| compare_keys(a, b));
    }
}

/// Order by UTF-16 code units. Where one of the two is ASCII that is the order of the bytes.
pub(super) fn compare_keys(a: &str, b: &str) -> Ordering {
    if a.is_ascii() || b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

pub(super) fn write_key(key: &str, out: &mut Vec<u8>) {
    write_string(key, out);
    out.push(b':');
}

#[inline]
pub fn write_bool(flag: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if flag { b"true" } else { b"false" });
}

/// A number that is not finite becomes null; returns whether it was finite.
#[inline]
pub fn write_float(number: f64, out: &mut Vec<u8>) -> bool {
    let finite = number.is_finite();
    if finite {
        out.extend_from_slice(ryu_js::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
    finite
}

/// An integer beyond 2^53 becomes a decimal string.
#[inline]
pub fn write_int(int: i64, out: &mut Vec<u8>) {
    let magnitude = int.unsigned_abs();
    let quoted = magnitude > MAX_INT;
    if quoted {
        out.push(b'"');
    }
    if int < 0 {
        out.push(b'-');
    }
    write_digits(magnitude, out);
    if quoted {
        out.push(b'"');
    }
}

/// Decimal digits; several times the speed of `write!`, and most of a record's numbers are integers.
pub(super) fn write_digits(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = next_escaped(rest) {
        out.extend_from_slice(&rest[..at]);
        write_escaped(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn needs_escape(byte: &u8) -> bool {
    *byte < 0x20 || *byte == b'"' || *byte == b'\\'
}

fn next_escaped(bytes: &[u8]) -> Option<usize> {
    // Whole chunks without an early exit become vector code.
    let clean = bytes.chunks_exact(16).take_while(|chunk| !chunk.iter().fold(false, |any, b| any | needs_escape(b)));
    let from = 16 * clean.count();
    bytes[from..].iter().position(needs_escape).map(|at| from + at)
}

fn write_escaped(byte: u8, out: &mut Vec<u8>) {
    let short: &[u8] = match byte {
        b'"' => b"\\\"",
        b'\\' => b"\\\\",
        0x08 => b"\\b",
        0x09 => b"\\t",
        0x0A => b"\\n",
        0x0C => b"\\f",
        0x0D => b"\\r",
        control => {
            // Writing into a Vec cannot fail.
            let _ = write!(out, "\\u{control:04x}");
            return;
        }
    };
    out.extend_from_slice(short);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(canonicalise(text.as_bytes()).unwrap()).unwrap()
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
            let mut written = Vec::new();
            assert!(write_float(f64::from_bits(bits), &mut written));
            assert_eq!(String::from_utf8(written).unwrap(), text, "{bits:016x}");
        }
    }

    #[test]
    fn integers_beyond_the_doubles_are_strings() {
        let edge = 1_i64 << 53;
        for (int, text) in
            [(-edge, "-9007199254740992"), (edge + 1, "\"9007199254740993\""), (i64::MIN, "\"-9223372036854775808\"")]
        {
            let mut out = Vec::new();
            write_int(int, &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
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
            let mut text = Vec::new();
            write_json(&value, &mut text);
            prop_assert_eq!(canonicalise(&text).unwrap(), text);
        }

        #[test]
        fn keys_compare_as_utf_16(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(compare_keys(&a, &b), a.encode_utf16().cmp(b.encode_utf16()));
        }
    }
}
