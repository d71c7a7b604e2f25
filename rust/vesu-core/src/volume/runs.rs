//! Rows of a mask as runs of foreground.

use std::ops::Range;

use super::POLL;
use super::bits::{WORD, nonzero_bits};
use super::wide::{Work, dispatch};
use crate::{Cancel, Result};

/// Voxels `start..end` of one row, all alike. 32 bits a bound: a row may be as long as the largest volume accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub start: u32,
    pub end: u32,
}

impl Run {
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Replace `runs` by those of the voxels of `row` that are not zero, each as long as it can be.
pub(super) fn find_runs(row: &[u8], runs: &mut Vec<Run>, cancel: &Cancel) -> Result<()> {
    runs.clear();
    dispatch(FindRuns { row, runs, cancel })
}

struct FindRuns<'a> {
    row: &'a [u8],
    runs: &'a mut Vec<Run>,
    cancel: &'a Cancel,
}

impl Work for FindRuns<'_> {
    type Output = Result<()>;

    #[inline(always)]
    unsafe fn run<const WIDE: bool>(self) -> Result<()> {
        let (mut last, mut start) = (0, 0);
        for (i, voxels) in self.row.chunks(WORD).enumerate() {
            if i.is_multiple_of(POLL / WORD) {
                self.cancel.check()?;
            }
            // SAFETY: WIDE is handed on.
            let word = unsafe { nonzero_bits::<WIDE>(voxels) };
            // Every place where the bit changes begins or ends a run.
            let mut changes = word ^ (word << 1 | last);
            last = word >> 63;
            while changes != 0 {
                let bit = changes.trailing_zeros();
                changes &= changes - 1;
                let x = (WORD * i) as u32 + bit;
                if word >> bit & 1 == 1 {
                    start = x;
                } else {
                    self.runs.push(Run { start, end: x });
                }
            }
        }
        if last == 1 {
            self.runs.push(Run { start, end: self.row.len() as u32 });
        }
        Ok(())
    }
}
