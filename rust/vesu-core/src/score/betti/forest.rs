//! Union-find.

use crate::Result;
use crate::pages::zeroed;

/// `length` times `value`.
pub fn filled(what: &'static str, length: usize, value: u32) -> Result<Vec<u32>> {
    let mut list = zeroed(what, length)?;
    list.fill(value);
    Ok(list)
}

/// Disjoint sets of the numbers `0..len`; a set's root is its smallest member.
pub struct Forest {
    parents: Vec<u32>,
}

impl Forest {
    pub fn new(len: usize) -> Result<Self> {
        let mut parents = zeroed("disjoint sets", len)?;
        for (number, parent) in parents.iter_mut().enumerate() {
            *parent = number as u32;
        }
        Ok(Self { parents })
    }

    /// A further number, alone in its set.
    pub fn push(&mut self) -> u32 {
        let number = self.parents.len() as u32;
        self.parents.push(number);
        number
    }

    pub fn is_root(&self, number: u32) -> bool {
        self.parents[number as usize] == number
    }

    #[inline]
    pub fn find(&mut self, mut number: u32) -> u32 {
        loop {
            let parent = self.parents[number as usize];
            if parent == number {
                return number;
            }
            let grandparent = self.parents[parent as usize];
            self.parents[number as usize] = grandparent;
            number = grandparent;
        }
    }

    /// Join two sets. Returns their roots, the one that stays first, or `None` if they were one already.
    #[inline]
    pub fn unite(&mut self, a: u32, b: u32) -> Option<(u32, u32)> {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return None;
        }
        let (root, child) = (a.min(b), a.max(b));
        self.parents[child as usize] = root;
        Some((root, child))
    }
}
