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

impl Sections {
    pub fn of(element: &Element) -> Self {
        let reach = element.reach();
        let (mut steps, mut width) = (Vec::new(), 0);
        let mut windows = Vec::new(); // in the order of the rings
        for ring in &element.rings {
            while width < ring.width {
                let step = (width + 1).min(ring.width - width);
                steps.push(step);
                width += step;
            }
            windows.push(steps.len());
        }
        let mut sections: Vec<Section> = Vec::new();
        let mut outer = vec![None; reach.1 + 1];
        for dz in (0..=reach.0).rev() {
            let mut own = vec![None; reach.1 + 1];
            for (ring, &window) in element.rings.iter().zip(&windows) {
                for span in ring.spans.iter().filter(|span| span.dz == dz) {
                    own[span.from..=span.to].fill(Some(window));
                }
            }
            if own.iter().all(Option::is_none) {
                continue;
            }
            match sections.last_mut() {
                Some(last) if own == outer => last.dzs.push(dz),
                _ => sections.push(Section::new(dz, &own, &outer)),
            }
            outer = own;
        }
        Self { sections, steps, reach }
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
        assert_eq!(Sections::of(ball), Sections { sections: expected, steps: vec![1, 1], reach: (2, 2) });
    }

    #[test]
    fn equal_sections_are_one() {
        let passes = elements([3, 0, 2], ElementShape::Box, [9, 9, 9]).unwrap();
        let last = Sections::of(&passes[passes.len() - 1]);
        assert_eq!(last.sections.len(), 1);
        assert_eq!(last.sections[0].dzs, [3, 2, 1, 0]);
    }
}
