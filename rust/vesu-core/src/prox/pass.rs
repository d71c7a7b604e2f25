//! Fixed cuts of the samples: blocks for the cache, tasks of many blocks for the threads. The cuts depend on the number
//! of samples and the row width alone, and results are folded in task order, so threads change nothing.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::block_len;
use crate::{Cancel, Error, Result};

/// A task is at least this many blocks...
const MIN_BLOCKS: usize = 64;
/// ...and there are at most this many, so that the partial sums stay small however many samples there are.
pub(super) const MAX_TASKS: usize = 128;

/// Upper bound of the search's own working memory; the samples themselves are borrowed.
pub(super) const WORKING_LIMIT: u64 = 8 << 30;

/// The blocks of one task, as sample ranges.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub samples: Range<usize>,
    block: usize,
}

impl Task {
    /// (first sample, length) of each block, looking at the cancel token before each.
    pub fn blocks<'a>(&self, cancel: &'a Cancel) -> impl Iterator<Item = Result<(usize, usize)>> + use<'a> {
        let (end, block) = (self.samples.end, self.block);
        self.samples.clone().step_by(block).map(move |first| {
            cancel.check()?;
            Ok((first, block.min(end - first)))
        })
    }
}

/// Run `work` on every task in parallel; the results come in task order.
pub(super) fn for_tasks<T: Send>(
    n_samples: usize,
    width: usize,
    work: impl Fn(&Task) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let block = block_len(width);
    let step = n_samples.div_ceil(block).div_ceil(MAX_TASKS).max(MIN_BLOCKS) * block;
    let tasks: Vec<Task> = (0..n_samples)
        .step_by(step)
        .map(|first| Task { samples: first..n_samples.min(first.saturating_add(step)), block })
        .collect();
    tasks.par_iter().map(&work).collect()
}

/// Refuse before allocating: `per_task` bytes for each of the tasks in flight and kept.
pub(super) fn check_memory(what: &str, per_task: Option<usize>) -> Result<()> {
    let needed = per_task.and_then(|bytes| bytes.checked_mul(MAX_TASKS)).map_or(u64::MAX, |bytes| bytes as u64);
    if needed > WORKING_LIMIT {
        return Err(Error::Memory { what: what.to_owned(), needed, limit: WORKING_LIMIT });
    }
    Ok(())
}

/// Sum the partial results in task order.
pub(super) fn fold(partial: Vec<Vec<f64>>) -> Vec<f64> {
    let mut partial = partial.into_iter();
    let mut total = partial.next().unwrap_or_default();
    for sums in partial {
        total.iter_mut().zip(&sums).for_each(|(t, s)| *t += s);
    }
    total
}
