//! Fixed cuts of the samples: blocks for the cache, tasks of many blocks for the threads and for the processes that share
//! a search. The tasks depend on the number of samples alone, the blocks on the row width besides, and results are folded
//! in task order, so neither threads nor processes change a bit.

use std::ops::Range;

use rayon::prelude::*;

use super::bootstrap::mix;
use super::kernel::{WHOLE_BLOCKS, block_len};
use crate::{Cancel, Error, Result};

/// A task is at least this many samples...
const MIN_TASK: usize = 15_360;
/// ...and there are at most this many, so that the partial sums stay small however many samples there are.
pub(super) const MAX_TASKS: usize = 128;

/// Samples of a task: whole blocks, whatever the row width.
fn task_len(n_samples: usize) -> usize {
    n_samples.div_ceil(MAX_TASKS).next_multiple_of(WHOLE_BLOCKS).max(MIN_TASK)
}

/// First sample of each task of a pass over all samples, and the end of the last. Processes that share a search each
/// hold the samples of a range of tasks.
pub fn task_bounds(n_samples: usize) -> Vec<usize> {
    (0..n_samples).step_by(task_len(n_samples)).chain([n_samples]).collect()
}

/// The samples that this process holds: `n` from `first` of `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub first: usize,
    pub n: usize,
    pub total: usize,
}

impl Held {
    pub fn all(total: usize) -> Self {
        Self { first: 0, n: total, total }
    }

    /// Whether all of `samples` are held; an error where some are and some are not.
    fn holds(self, samples: &Range<usize>) -> Result<bool> {
        let held = self.first..self.first + self.n;
        if samples.end <= held.start || held.end <= samples.start {
            return Ok(false);
        }
        if held.start <= samples.start && samples.end <= held.end {
            return Ok(true);
        }
        let got = format!("samples {} to {} of {}, which cut a task in two", held.start, held.end, self.total);
        Err(Error::argument("first", got, "samples of whole tasks"))
    }
}

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

/// Run `work` on every task whose samples are held, in parallel; the results come in task order.
pub(super) fn for_tasks<T: Send>(
    held: Held,
    width: usize,
    part: Part,
    work: impl Fn(&Task) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (block, n_samples) = (block_len(width), held.total);
    let windows = part.windows(n_samples, block);
    let step = task_len(n_samples) / block;
    let mut tasks = Vec::new();
    for first in (0..windows).step_by(step) {
        let windows = first..windows.min(first.saturating_add(step));
        let at = |window: usize| n_samples.min(window * part.one_in * block);
        if held.holds(&(at(windows.start)..at(windows.end)))? {
            tasks.push(Task { windows, part, block, n_samples });
        }
    }
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
            let tasks =
                for_tasks(Held::all(n_samples), 19, Part::ALL, |task| task.blocks(&Cancel::new()).collect()).unwrap();
            let blocks: Vec<(usize, usize)> = tasks.into_iter().flat_map(|blocks: Vec<_>| blocks).collect();
            assert_eq!(blocks.iter().map(|(_, n)| n).sum::<usize>(), n_samples);
            assert!(blocks.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0));
        }
    }

    #[test]
    fn tasks_are_whole_blocks_of_any_width() {
        for n_samples in [1, 15_360, 15_361, 1_000_000, 1_966_080, 1_966_081, 25_100_000] {
            let bounds = task_bounds(n_samples);
            assert!(bounds.len() <= MAX_TASKS + 1 && bounds[0] == 0 && *bounds.last().unwrap() == n_samples);
            for width in [19, 49] {
                let firsts = for_tasks(Held::all(n_samples), width, Part::ALL, |task| {
                    task.blocks(&Cancel::new()).next().unwrap().map(|(first, _)| first)
                });
                assert_eq!(firsts.unwrap(), bounds[..bounds.len() - 1]);
            }
        }
    }

    #[test]
    fn only_tasks_that_are_held_are_done() {
        let bounds = task_bounds(50_000);
        let done = |first: usize, n: usize| {
            let held = Held { first, n, total: 50_000 };
            for_tasks(held, 19, Part::ALL, |task| Ok(task.windows.start * task.block))
        };
        assert_eq!(done(bounds[1], bounds[3] - bounds[1]).unwrap(), bounds[1..3]);
        assert_eq!(done(0, 0).unwrap(), [0usize; 0]);
        let error = done(bounds[1], 10).unwrap_err().to_string();
        assert!(error.contains("samples 15360 to 15370 of 50000"), "{error}");
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
                let tasks =
                    for_tasks(Held::all(n_samples), 19, part, |task| task.blocks(&Cancel::new()).collect()).unwrap();
                let blocks: Vec<(usize, usize)> = tasks.into_iter().flat_map(|blocks: Vec<_>| blocks).collect();
                assert_eq!(blocks.iter().map(|(_, n)| n).sum::<usize>(), part.n_samples(n_samples, 19));
                let windows: Vec<usize> = blocks.iter().map(|(first, _)| first / block_len(19) / one_in).collect();
                assert!(windows.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            }
        }
    }
}
