//! The records of one iteration of the search: one a candidate, nothing thinned.

use super::fields::Fields;
use super::table::{Source, one_record};
use crate::error::{Error, Result};

/// One iteration of a block of candidates: entry `i` of each slice belongs to candidate `candidate_first + i`.
#[derive(Clone, Copy, Debug)]
pub struct IterationBlock<'a> {
    pub iteration: i64,
    pub max_iter: i64,
    pub candidate_first: i64,
    pub loss: &'a [f64],
    pub gradient_norm: &'a [f64],
    pub nonzero: &'a [i64],
}

impl IterationBlock<'_> {
    /// A record's fields for each candidate; `common` are fields of every record, their values canonical JSON.
    pub fn records(&self, common: &[(String, Vec<u8>)]) -> Result<Vec<Fields>> {
        let lengths = [self.loss.len(), self.gradient_norm.len(), self.nonzero.len()];
        if lengths[1] != lengths[0] || lengths[2] != lengths[0] {
            let accepted = "one value per candidate in each";
            return Err(Error::argument("loss, gradient_norm, nonzero", format!("lengths {lengths:?}"), accepted));
        }
        if i64::try_from(lengths[0]).ok().and_then(|n| self.candidate_first.checked_add(n)).is_none() {
            return Err(Error::argument("candidate_first", self.candidate_first, "a smaller number"));
        }
        let values = self.loss.iter().zip(self.gradient_norm).zip(self.nonzero);
        let records = (self.candidate_first..).zip(values).map(|(candidate, ((&loss, &norm), &nonzero))| {
            let own = [
                ("candidate", Source::Int(candidate)),
                ("grad_norm", Source::Float(norm)),
                ("iter", Source::Int(self.iteration)),
                ("loss", Source::Float(loss)),
                ("max_iter", Source::Int(self.max_iter)),
                ("nonzero", Source::Int(nonzero)),
            ];
            let common = common.iter().map(|(key, value)| (key.as_str(), Source::Text(value)));
            one_record(&mut own.into_iter().chain(common).collect::<Vec<_>>())
        });
        records.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block<'a>(loss: &'a [f64], gradient_norm: &'a [f64], nonzero: &'a [i64]) -> IterationBlock<'a> {
        IterationBlock { iteration: 3, max_iter: 120, candidate_first: 7, loss, gradient_norm, nonzero }
    }

    #[test]
    fn one_record_a_candidate_with_its_values() {
        let common = [("epoch".to_owned(), b"2".to_vec())];
        let records = block(&[0.5, f64::NAN], &[1.0, f64::INFINITY], &[4, 0]).records(&common).unwrap();
        let text = |fields: &Fields| String::from_utf8(fields.text.clone()).unwrap();
        assert_eq!(
            text(&records[0]),
            "\"candidate\":7,\"epoch\":2,\"grad_norm\":1,\"iter\":3,\"loss\":0.5,\"max_iter\":120,\"nonzero\":4,"
        );
        assert!(text(&records[1]).contains("\"candidate\":8,") && text(&records[1]).contains("\"loss\":null,"));
        assert_eq!(records[1].nonfinite, ["grad_norm", "loss"]);
    }

    #[test]
    fn unequal_lengths_and_overflow_and_clashing_names_are_refused() {
        assert!(block(&[0.5], &[], &[4]).records(&[]).is_err());
        let far = IterationBlock { candidate_first: i64::MAX, ..block(&[0.5], &[1.0], &[4]) };
        assert!(far.records(&[]).is_err());
        assert!(block(&[0.5], &[1.0], &[4]).records(&[("loss".to_owned(), b"1".to_vec())]).is_err());
    }
}
