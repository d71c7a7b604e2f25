//! Union-find in which the smaller index always becomes the root.

use super::POLL;
use super::meeting::Join;
use crate::{Cancel, Result};

/// Disjoint sets of `base..base + parents.len()`; a parent is never larger than its child.
pub(super) struct Forest<'a> {
    pub parents: &'a mut [u32],
    pub base: u32,
}

impl Forest<'_> {
    /// Every index in a set of its own.
    pub fn separate(&mut self) {
        for (i, parent) in self.parents.iter_mut().enumerate() {
            *parent = self.base + i as u32;
        }
    }

    #[inline(always)]
    pub fn unite(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[(a.max(b) - self.base) as usize] = a.min(b);
    }

    /// The root of `of`, halving the path on the way.
    #[inline(always)]
    fn root(&mut self, mut of: u32) -> u32 {
        loop {
            let parent = self.parents[(of - self.base) as usize];
            if parent == of {
                return of;
            }
            let grandparent = self.parents[(parent - self.base) as usize];
            self.parents[(of - self.base) as usize] = grandparent;
            of = grandparent;
        }
    }
}

impl Join for Forest<'_> {
    #[inline(always)]
    fn join(&mut self, own: u32, other: u32) {
        self.unite(own, other);
    }
}

/// Turn parents (of base 0) into the numbers of their sets, from 0 in order of the roots; returns how many there are.
///
/// A parent never comes after its child, so when an index is met its parent holds its final number already.
pub(super) fn number(parents: &mut [u32], cancel: &Cancel) -> Result<u32> {
    let mut count = 0;
    for first in (0..parents.len()).step_by(POLL) {
        cancel.check()?;
        for i in first..(first + POLL).min(parents.len()) {
            let parent = parents[i] as usize;
            parents[i] = if parent == i {
                count += 1;
                count - 1
            } else {
                parents[parent]
            };
        }
    }
    Ok(count)
}
