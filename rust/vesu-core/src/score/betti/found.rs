//! Features and where they are.

/// The features of both masks and those of them that are matched, each named by a voxel.
#[derive(Debug, Default)]
pub struct Found {
    pub births: [Vec<u32>; 2],
    pub matched: [Vec<u32>; 2],
}

impl Found {
    /// The features of `mask` that are not matched, in order; two may share a voxel.
    pub fn unmatched(&self, mask: usize) -> Vec<u32> {
        let [mut births, mut matched] = [&self.births, &self.matched].map(|both| both[mask].clone());
        births.sort_unstable();
        matched.sort_unstable();
        let mut matched = matched.into_iter().peekable();
        births.retain(|birth| matched.next_if_eq(birth).is_none());
        births
    }
}
