//! An element as the shapes of its slices.

use super::element::Element;

/// What the element is at some distances from its centre along z: rows along y and x, each a window along x.
#[derive(Debug, PartialEq)]
pub(super) struct Section {
    /// Distances along z, at either side.
    pub dzs: Vec<usize>,
    /// Whether the section before, further out, is part of this one. Its rows are then not repeated.
    pub inherits: bool,
    /// Offset along y and the window's place in the ladder of widths.
    pub rows: Vec<(isize, usize)>,
}

/// Sections from the outermost to the one at the centre, and how their windows are made.
#[derive(Debug, PartialEq)]
pub(super) struct Sections {
    pub sections: Vec<Section>,
    /// Window 0 is the voxel alone; window i + 1 joins three of window i set `steps[i]` apart.
    pub steps: Vec<usize>,
    pub reach: (usize, usize),
}

/// Most rows of an element, by their distances along z and y, that are taken apart.
const MOST_ROWS: usize = 1 << 12;

impl Sections {
    /// None of an element of too many rows.
    pub fn of(element: &Element) -> Option<Self> {
        let reach = element.reach();
        if (reach.0 + 1).saturating_mul(reach.1 + 1) > MOST_ROWS {
            return None;
        }
        let (mut steps, mut width) = (Vec::new(), 0);
        let mut windows = vec![vec![None; reach.1 + 1]; reach.0 + 1]; // by the distances along z and y
        for ring in &element.rings {
            while width < ring.width {
                let step = (width + 1).min(ring.width - width);
                steps.push(step);
                width += step;
            }
            for span in &ring.spans {
                windows[span.dz][span.from..=span.to].fill(Some(steps.len()));
            }
        }
        let mut sections: Vec<Section> = Vec::new();
        let mut outer = vec![None; reach.1 + 1];
        for (dz, own) in windows.into_iter().enumerate().rev() {
            if own.iter().all(Option::is_none) {
                continue;
            }
            match sections.last_mut() {
                Some(last) if own == outer => last.dzs.push(dz),
                _ => sections.push(Section::new(dz, &own, &outer)),
            }
            outer = own;
        }
        Some(Self { sections, steps, reach })
    }
}

impl Section {
    /// From the windows by the distance along y, of this section and of the one further out, which is part of it.
    fn new(dz: usize, own: &[Option<usize>], outer: &[Option<usize>]) -> Self {
        let (mut inherits, mut rows) = (false, Vec::new());
        for (dy, (window, outer)) in own.iter().zip(outer).enumerate() {
            debug_assert!(window >= outer, "balls and boxes are convex");
            let Some(window) = *window else { continue };
            if *outer == Some(window) {
                inherits = true;
                continue;
            }
            rows.push((dy as isize, window));
            if dy > 0 {
                rows.push((-(dy as isize), window));
            }
        }
        Self { dzs: vec![dz], inherits, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::{ElementShape, elements};
    use super::*;

    #[test]
    fn a_ball_of_radius_2_is_a_point_a_square_and_a_disc() {
        let ball = &elements([2, 2, 2], ElementShape::Ball, [9, 9, 9]).unwrap()[0];
        let section = |dz, inherits, rows: &[(isize, usize)]| Section { dzs: vec![dz], inherits, rows: rows.to_vec() };
        let expected = vec![
            section(2, false, &[(0, 0)]),
            section(1, false, &[(0, 1), (1, 1), (-1, 1)]),
            section(0, true, &[(0, 2), (2, 0), (-2, 0)]),
        ];
        let expected = Sections { sections: expected, steps: vec![1, 1], reach: (2, 2) };
        assert_eq!(Sections::of(ball), Some(expected));
    }

    #[test]
    fn equal_sections_are_one() {
        let passes = elements([3, 0, 2], ElementShape::Box, [9, 9, 9]).unwrap();
        let last = Sections::of(&passes[passes.len() - 1]).unwrap();
        assert_eq!(last.sections.len(), 1);
        assert_eq!(last.sections[0].dzs, [3, 2, 1, 0]);
    }
}
