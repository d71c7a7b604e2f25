//! Records in bulk: one a row of a table of numbers, nothing thinned.

use super::canonical::{write_float, write_int};
use super::fields::Fields;
use crate::error::{Error, Result};

/// The values of one field, a row each.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    Int(&'a [i64]),
    Float(&'a [f64]),
}

impl<'a> Column<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::Float(values) => values.len(),
        }
    }

    fn row(&self, row: usize) -> Source<'a> {
        match self {
            Self::Int(values) => Source::Int(values[row]),
            Self::Float(values) => Source::Float(values[row]),
        }
    }
}

/// The fields of each row's record; `common` are fields of every record, their values canonical JSON.
pub fn rows(columns: &[(String, Column<'_>)], common: &[(String, Vec<u8>)]) -> Result<Vec<Fields>> {
    let length = columns.first().map_or(0, |(_, column)| column.len());
    if columns.iter().any(|(_, column)| column.len() != length) {
        let lengths: Vec<_> = columns.iter().map(|(_, column)| column.len()).collect();
        return Err(Error::argument("columns", format!("lengths {lengths:?}"), "one value a row in each"));
    }
    let record = |row| {
        let own = columns.iter().map(|(key, column)| (key.as_str(), column.row(row)));
        let common = common.iter().map(|(key, value)| (key.as_str(), Source::Text(value)));
        one_record(&mut own.chain(common).collect::<Vec<_>>())
    };
    (0..length).map(record).collect()
}

/// Where a member of a record takes its value from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Text(&'a [u8]),
    Int(i64),
    Float(f64),
}

pub(super) fn one_record(members: &mut [(&str, Source<'_>)]) -> Result<Fields> {
    let mut nonfinite = Vec::new();
    let fields = Fields::build(members, |key, source, out| {
        match *source {
            Source::Text(text) => out.extend_from_slice(text),
            Source::Int(int) => write_int(int, out),
            Source::Float(number) => {
                if !write_float(number, out) {
                    nonfinite.push(key.to_owned());
                }
            }
        }
        Ok::<_, Error>(())
    })?;
    Ok(Fields { nonfinite, ..fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column<'a>(name: &str, column: Column<'a>) -> (String, Column<'a>) {
        (name.to_owned(), column)
    }

    #[test]
    fn one_record_a_row_with_its_values() {
        let columns = [column("z", Column::Int(&[4, 5])), column("score", Column::Float(&[0.5, f64::NAN]))];
        let records = rows(&columns, &[("volume_id".to_owned(), b"\"a\"".to_vec())]).unwrap();
        let text = |fields: &Fields| String::from_utf8(fields.text.clone()).unwrap();
        assert_eq!(text(&records[0]), "\"score\":0.5,\"volume_id\":\"a\",\"z\":4,");
        assert_eq!(records[1].nonfinite, ["score"]);
        assert!(rows(&[], &[]).unwrap().is_empty());
    }

    #[test]
    fn unequal_lengths_and_clashing_names_are_refused() {
        let two = column("z", Column::Int(&[4, 5]));
        assert!(rows(&[two.clone(), column("y", Column::Int(&[4]))], &[]).is_err());
        assert!(rows(&[two.clone(), two.clone()], &[]).is_err());
        assert!(rows(&[two], &[("z".to_owned(), b"1".to_vec())]).is_err());
        assert!(rows(&[column("seq", Column::Int(&[4]))], &[]).is_err());
    }
}
