//! Which rows touch at each connectivity, for rows taken together in blocks.
//!
//! At connectivity 26 the voxels of neighbouring columns in a block of 2 x 2 rows are all neighbours of each other, so
//! the block's rows, joined by OR, have runs that are connected as they stand; at 18 the same holds for two rows of a
//! slice. That leaves a quarter (a half) of the runs to unite, and neighbouring blocks touch only where they face.

use super::Connectivity;

/// How far contact reaches along x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The same column only.
    Straight,
    /// The same column for any two rows of the relation; one step aside only for rows at the same place of the lists.
    Paired,
    /// One step aside for any two rows.
    Diagonal,
}

/// Rows of a block that touch rows of an earlier one, as (z, y) steps from the block's first row.
pub(super) struct Relation {
    /// Steps to the earlier block, in blocks.
    pub block: (isize, isize),
    pub own: &'static [(isize, isize)],
    pub others: &'static [(isize, isize)],
    pub reach: Reach,
}

/// Blocks of rows, and how a block touches the earlier ones.
pub(super) struct Plan {
    /// Rows of a block along z and y.
    pub block: [usize; 2],
    pub relations: &'static [Relation],
}

const fn relation(
    block: (isize, isize),
    own: &'static [(isize, isize)],
    others: &'static [(isize, isize)],
    reach: Reach,
) -> Relation {
    Relation { block, own, others, reach }
}

impl Plan {
    /// For masks: the largest blocks.
    pub fn of_mask(connectivity: Connectivity) -> Self {
        use Reach::*;
        const EDGES: &[Relation] = &[
            relation((0, -1), &[(0, 0)], &[(0, -1)], Diagonal),
            relation((-1, 0), &[(0, 0), (0, 1)], &[(-1, 0), (-1, 1)], Paired),
            relation((-1, -1), &[(0, 0)], &[(-1, -1)], Straight),
            relation((-1, 1), &[(0, 1)], &[(-1, 2)], Straight),
        ];
        const CORNERS: &[Relation] = &[
            relation((0, -1), &[(0, 0), (1, 0)], &[(0, -1), (1, -1)], Diagonal),
            relation((-1, 0), &[(0, 0), (0, 1)], &[(-1, 0), (-1, 1)], Diagonal),
            relation((-1, -1), &[(0, 0)], &[(-1, -1)], Diagonal),
            relation((-1, 1), &[(0, 1)], &[(-1, 2)], Diagonal),
        ];
        match connectivity {
            Connectivity::Faces => Self::of_labels(connectivity),
            Connectivity::Edges => Self { block: [1, 2], relations: EDGES },
            Connectivity::Corners => Self { block: [2, 2], relations: CORNERS },
        }
    }

    /// For volumes of many values, whose rows cannot be joined.
    pub fn of_labels(connectivity: Connectivity) -> Self {
        const fn row(z: isize, y: isize, own: &'static [(isize, isize)], reach: Reach) -> Relation {
            let others: &[(isize, isize)] = match (z, y) {
                (0, -1) => &[(0, -1)],
                (-1, -1) => &[(-1, -1)],
                (-1, 0) => &[(-1, 0)],
                _ => &[(-1, 1)],
            };
            relation((z, y), own, others, reach)
        }
        use Reach::{Diagonal, Straight};
        const SELF: &[(isize, isize)] = &[(0, 0)];
        const FACES: &[Relation] = &[row(0, -1, SELF, Straight), row(-1, 0, SELF, Straight)];
        const EDGES: &[Relation] = &[
            row(0, -1, SELF, Diagonal),
            row(-1, -1, SELF, Straight),
            row(-1, 0, SELF, Diagonal),
            row(-1, 1, SELF, Straight),
        ];
        const CORNERS: &[Relation] = &[
            row(0, -1, SELF, Diagonal),
            row(-1, -1, SELF, Diagonal),
            row(-1, 0, SELF, Diagonal),
            row(-1, 1, SELF, Diagonal),
        ];
        let relations = match connectivity {
            Connectivity::Faces => FACES,
            Connectivity::Edges => EDGES,
            Connectivity::Corners => CORNERS,
        };
        Self { block: [1, 1], relations }
    }
}
