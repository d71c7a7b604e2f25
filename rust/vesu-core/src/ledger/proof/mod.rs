//! Proofs about a tree head, RFC 9162 sections 2.1.3 (inclusion) and 2.1.4 (consistency): made while the leaves pass
//! by, checked with a few hashes.

use super::merkle::{Hash, Tree, node_hash};
use crate::error::{Error, Result};

/// Levels of a tree whose size is a `u64`.
const LEVELS: usize = u64::BITS as usize;

/// What a proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// That the leaf of this number is in the tree.
    Leaf(u64),
    /// That the tree goes on from the one of its first leaves, so many.
    Prefix(u64),
}

/// Makes a proof while the leaves pass by, in memory for the logarithm of their number.
///
/// Seen from one leaf, the *anchor*, any other leaf lies in the sibling subtree at the level of the highest bit in
/// which their numbers differ. So each leaf goes to one of 64 small trees, and the heads of those are the proof. That
/// holds for the ragged right edge too: nobody needs to know the size beforehand.
#[derive(Clone, Debug)]
pub struct Prover {
    subject: Subject,
    anchor: u64,
    /// Leaves that differ from the anchor below this level only make one node with it.
    own_level: u32,
    own: Tree,
    siblings: Vec<Tree>,
    size: u64,
}

impl Prover {
    /// For the leaf `index`, counted from 0.
    pub fn inclusion(index: u64) -> Self {
        Self::new(Subject::Leaf(index), index, 0)
    }

    /// For the tree of the `first` leaves. The anchor is the last of them; the largest perfect subtree that ends
    /// there is the one node that both trees share.
    pub fn consistency(first: u64) -> Self {
        Self::new(Subject::Prefix(first), first.saturating_sub(1), first.trailing_zeros())
    }

    fn new(subject: Subject, anchor: u64, own_level: u32) -> Self {
        Self { subject, anchor, own_level, own: Tree::new(), siblings: vec![Tree::new(); LEVELS], size: 0 }
    }

    pub fn push(&mut self, leaf: Hash) {
        match (self.anchor ^ self.size).checked_ilog2() {
            Some(level) if level >= self.own_level => self.siblings[level as usize].push(leaf),
            _ => self.own.push(leaf),
        }
        self.size += 1;
    }

    /// The proof's hashes, for the tree of all leaves so far; the leaf, or the first tree, must be within it.
    pub fn path(&self) -> Vec<Hash> {
        let mut path = Vec::new();
        if let Subject::Prefix(first) = self.subject {
            if first == 0 || first == self.size {
                return path;
            }
            // A perfect first tree is that node itself, and its head is known to whoever checks.
            if !first.is_power_of_two() {
                path.push(self.own.root());
            }
        }
        path.extend(self.siblings.iter().filter(|sibling| sibling.size() > 0).map(Tree::root));
        path
    }
}

/// Check that `leaf` is number `index` of the tree with `size` leaves and head `root`.
///
/// The size must come from where the root comes from: a head does not contain it.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Result<()> {
    if index >= size {
        return Err(Error::Proof(format!("there is no leaf {index} in a tree of size {size}")));
    }
    let climb = Climb::new(index, size, 0);
    climb.check_length(path)?;
    if climb.last(*leaf, path) != *root {
        return Err(Error::Proof(format!("the path does not lead from leaf {index} to the root")));
    }
    Ok(())
}

/// Check that the tree of `second` leaves and head `second_root` goes on from that of `first` leaves and head
/// `first_root`. Any tree goes on from the empty one, and each from itself; those proofs have no hashes.
pub fn verify_consistency(first: u64, second: u64, path: &[Hash], first_root: &Hash, second_root: &Hash) -> Result<()> {
    if first > second {
        return Err(Error::Proof(format!("the first size, {first}, is beyond the second, {second}")));
    }
    let empty = Tree::new().root();
    for (size, root) in [(first, first_root), (second, second_root)] {
        if size == 0 && *root != empty {
            return Err(Error::Proof("the root of size 0 is not that of an empty tree".into()));
        }
    }
    if first == second && first_root != second_root {
        return Err(Error::Proof(format!("two different roots of size {first}")));
    }
    if first == 0 || first == second {
        return expect_length(path, 0);
    }

    let climb = Climb::new(first - 1, second, first.trailing_zeros());
    let (start, path) = if first.is_power_of_two() {
        (*first_root, path)
    } else {
        let (start, rest) = path.split_first().ok_or_else(|| Error::Proof("it has no hash".into()))?;
        (*start, rest)
    };
    climb.check_length(path)?;
    if climb.first(start, path) != *first_root {
        return Err(Error::Proof("the path does not lead to the first root".into()));
    }
    if climb.last(start, path) != *second_root {
        return Err(Error::Proof("the path does not lead to the second root".into()));
    }
    Ok(())
}

/// The way up from a node to the head of a tree: its lower siblings lie on either side, one a level; above them, on
/// the tree's right edge, all lie to the left and the levels without a sibling are left out.
struct Climb {
    /// Bit `i`: whether the lower sibling `i` is a left one.
    left: u64,
    lower: usize,
    edge: usize,
}

impl Climb {
    /// From the node at `level` above the leaf `index` in a tree of `size` leaves.
    fn new(index: u64, size: u64, level: u32) -> Self {
        let meets_edge = u64::BITS - (index ^ (size - 1)).leading_zeros();
        let beyond = index.checked_shr(meets_edge).unwrap_or(0);
        Self {
            left: index.checked_shr(level).unwrap_or(0),
            lower: meets_edge.saturating_sub(level) as usize,
            edge: beyond.count_ones() as usize,
        }
    }

    fn check_length(&self, path: &[Hash]) -> Result<()> {
        expect_length(path, self.lower + self.edge)
    }

    /// The head of the whole tree.
    fn last(&self, start: Hash, path: &[Hash]) -> Hash {
        (0..).zip(path).fold(start, |node, (level, sibling)| {
            if self.is_left(level) { node_hash(sibling, &node) } else { node_hash(&node, sibling) }
        })
    }

    /// The head of the tree that ends with the node: what lies to the right of it came later.
    fn first(&self, start: Hash, path: &[Hash]) -> Hash {
        let left = (0..).zip(path).filter(|(level, _)| self.is_left(*level));
        left.fold(start, |node, (_, sibling)| node_hash(sibling, &node))
    }

    fn is_left(&self, level: usize) -> bool {
        level >= self.lower || self.left >> level & 1 == 1
    }
}

fn expect_length(path: &[Hash], needed: usize) -> Result<()> {
    if path.len() == needed {
        return Ok(());
    }
    Err(Error::Proof(format!("{} hashes in its path, where these sizes need {needed}", path.len())))
}

#[cfg(test)]
mod tests;
