//! Fixed cuts of the samples: blocks for the cache, tasks of many blocks for the threads. The cuts depend on the number
//! of samples, the row width and the part alone, and results are folded in task order, so threads change nothing.

use std::ops::Range;

use rayon::prelude::*;

use super::bootstrap::mix;
use super::kernel::block_len;
use crate::{Cancel, Error, Result};

/// A task is at least this many blocks...
const MIN_BLOCKS: usize = 64;
/// ...and there are at most this many, so that the partial sums stay small however many samples there are.
pub(super) const MAX_TASKS: usize = 128;

/// Upper bound of the search's own working memory; the samples themselves are borrowed.
const WORKING_LIMIT: u64 = 8 << 30;

/// Working memory that may be taken now: the bound, or what the machine has left where it tells (Linux).
pub(super) fn working_limit() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_bytes(&text));
    told.map_or(WORKING_LIMIT, |available| available.min(WORKING_LIMIT))
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Which blocks of the samples a pass visits: one out of every `one_in` consecutive ones, chosen by a hash of its window
/// so that no period of the data is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub one_in: usize,
}

impl Part {
    pub const ALL: Self = Self { one_in: 1 };

    fn first_sample(self, window: usize, block: usize) -> usize {
        (window * self.one_in + (mix(window as u64) % self.one_in as u64) as usize) * block
    }

    fn windows(self, n_samples: usize, block: usize) -> usize {
        n_samples.div_ceil(block).div_ceil(self.one_in)
    }

    /// Samples that a pass over this part visits.
    pub fn n_samples(self, n_samples: usize, width: usize) -> usize {
        let block = block_len(width);
        let length = |first: usize| block.min(n_samples.saturating_sub(first));
        (0..self.windows(n_samples, block)).map(|window| length(self.first_sample(window, block))).sum()
    }
}

/// The blocks of one task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    windows: Range<usize>,
    part: Part,
    block: usize,
    n_samples: usize,
}

impl Task {
    /// (first sample, length) of each block, looking at the cancel token before each.
    pub fn blocks<'a>(&self, cancel: &'a Cancel) -> impl Iterator<Item = Result<(usize, usize)>> + use<'a> {
        let Self { part, block, n_samples, .. } = *self;
        let firsts = self.windows.clone().map(move |window| part.first_sample(window, block));
        firsts.filter(move |&first| first < n_samples).map(move |first| {
            cancel.check()?;
            Ok((first, block.min(n_samples - first)))
        })
    }
}

/// Run `work` on every task in parallel; the results come in task order.
pub(super) fn for_tasks<T: Send>(
    n_samples: usize,
    width: usize,
    part: Part,
    work: impl Fn(&Task) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let block = block_len(width);
    let windows = part.windows(n_samples, block);
    let step = windows.div_ceil(MAX_TASKS).max(MIN_BLOCKS);
    let tasks: Vec<Task> = (0..windows)
        .step_by(step)
        .map(|first| Task { windows: first..windows.min(first.saturating_add(step)), part, block, n_samples })
        .collect();
    tasks.par_iter().map(&work).collect()
}

/// Refuse before allocating: `per_task` bytes for each of the tasks in flight and kept.
pub(super) fn check_memory(what: &str, per_task: Option<usize>) -> Result<()> {
    refuse_beyond(what, per_task.and_then(|bytes| bytes.checked_mul(MAX_TASKS)).map_or(u64::MAX, |bytes| bytes as u64))
}

/// Refuse `needed` bytes that the machine does not have.
pub(super) fn refuse_beyond(what: &str, needed: u64) -> Result<()> {
    // Small needs pass without asking the machine.
    let limit = if needed < 1 << 24 { WORKING_LIMIT } else { working_limit() };
    if needed > limit {
        return Err(Error::Memory { what: what.to_owned(), needed, limit });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_blocks_cover_every_sample_once() {
        for n_samples in [1, 119, 120, 121, 64 * 120, 100_003] {
            let tasks = for_tasks(n_samples, 19, Part::ALL, |task| task.blocks(&Cancel::new()).collect()).unwrap();
            let blocks: Vec<(usize, usize)> = tasks.into_iter().flat_map(|blocks: Vec<_>| blocks).collect();
            assert_eq!(blocks.iter().map(|(_, n)| n).sum::<usize>(), n_samples);
            assert!(blocks.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0));
        }
    }

    #[test]
    fn available_memory_is_read_and_binds() {
        assert_eq!(available_bytes("MemTotal:  9 kB\nMemAvailable:    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(available_bytes("MemTotal:  9 kB\n"), None);
        assert!(working_limit() <= WORKING_LIMIT);
        let error = refuse_beyond("a test", WORKING_LIMIT + 1).unwrap_err();
        assert!(error.to_string().contains("8589934593"), "{error}");
    }

    #[test]
    fn a_part_visits_one_block_of_each_window() {
        for n_samples in [1, 5_000, 100_003] {
            for one_in in [2, 7, 16] {
                let part = Part { one_in };
                let tasks = for_tasks(n_samples, 19, part, |task| task.blocks(&Cancel::new()).collect()).unwrap();
                let blocks: Vec<(usize, usize)> = tasks.into_iter().flat_map(|blocks: Vec<_>| blocks).collect();
                assert_eq!(blocks.iter().map(|(_, n)| n).sum::<usize>(), part.n_samples(n_samples, 19));
                let windows: Vec<usize> = blocks.iter().map(|(first, _)| first / block_len(19) / one_in).collect();
                assert!(windows.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            }
        }
    }
}
