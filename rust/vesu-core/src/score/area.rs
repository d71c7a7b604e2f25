//! The area of the surface inside one cube of 2x2x2 voxels.
//!
//! The cube's corners are voxel centres, the surface cuts the edges between foreground and background at their middles.
//! At most four corners are on the surface's inner side (else the complement's surface is the same), and corners that no
//! cube edge joins are cut off separately. So six shapes remain: a corner, an edge, three corners of a face, a whole
//! face, a corner with its three neighbours, and a chain of three edges in the three directions.

/// Axes of a cube's edges: corner index bits 4, 2, 1 stand for z, y, x.
const AXIS_BITS: [usize; 3] = [4, 2, 1];

/// Area of the surface for each set of foreground corners, in the square of `spacing`'s unit.
///
/// Bit `4 z + 2 y + x` of the index is the corner (z, y, x) of the cube.
pub fn area_table(spacing: [f64; 3]) -> [f64; 256] {
    std::array::from_fn(|code| {
        let code = code as u8;
        let inside = if code.count_ones() > 4 { !code } else { code };
        pieces(inside).map(|piece| piece_area(piece, spacing)).sum()
    })
}

/// The parts of a set of corners that hang together by edges.
fn pieces(mut corners: u8) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let mut piece = corners & corners.wrapping_neg();
        if piece == 0 {
            return None;
        }
        loop {
            let grown = (piece | neighbours_of_all(piece)) & corners;
            if grown == piece {
                corners &= !piece;
                return Some(piece);
            }
            piece = grown;
        }
    })
}

fn neighbours_of_all(corners: u8) -> u8 {
    (0..8)
        .filter(|corner| corners >> corner & 1 == 1)
        .fold(0, |all, corner| all | AXIS_BITS.iter().fold(0, |neighbours, bit| neighbours | 1 << (corner ^ bit)))
}

/// Area around one connected piece of at most four corners: the sum of its flat facets.
fn piece_area(piece: u8, spacing: [f64; 3]) -> f64 {
    let directions: Vec<Vec<usize>> = (0..8)
        .filter(|corner| piece >> corner & 1 == 1)
        .map(|corner| (0..3).filter(|&axis| piece >> (corner ^ AXIS_BITS[axis]) & 1 == 1).collect())
        .collect();
    // Every edge is seen from both of its ends.
    let edges: [usize; 3] = std::array::from_fn(|axis| directions.iter().flatten().filter(|&&a| a == axis).count() / 2);
    let facet = |normal: [f64; 3]| facet_area(normal, spacing);
    // Parallel to one axis: across the two others, at half a voxel of each.
    let slanted = |axis: usize| facet(std::array::from_fn(|a| if a == axis { 0.0 } else { 0.25 }));
    let flat = |axis: usize, area: f64| facet(std::array::from_fn(|a| if a == axis { area } else { 0.0 }));
    let across = edges.iter().position(|&count| count == 0).unwrap_or(0);
    match piece.count_ones() {
        1 => facet([0.125; 3]),
        2 => 2.0 * slanted(edges.iter().position(|&count| count == 1).unwrap_or(0)),
        3 => flat(across, 0.5) + facet([0.375; 3]),
        _ if edges.contains(&2) => flat(across, 1.0),
        _ if directions.iter().any(|towards| towards.len() == 3) => facet([0.75; 3]),
        _ => {
            // The chain's two outer edges each carry a facet parallel to themselves.
            let outer = directions.iter().filter(|towards| towards.len() == 1).map(|towards| slanted(towards[0]));
            facet([0.5; 3]) + outer.sum::<f64>()
        }
    }
}

/// Length of an area vector, given in units of a voxel's faces.
fn facet_area(normal: [f64; 3], [z, y, x]: [f64; 3]) -> f64 {
    let scaled = [normal[0] * y * x, normal[1] * z * x, normal[2] * z * y];
    scaled.iter().map(|component| component * component).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_areas_of_unit_cubes() {
        let table = area_table([1.0; 3]);
        let root = |value: f64| value.sqrt();
        for (code, area) in [
            (0b0, 0.0),
            (0b1, root(3.0) / 8.0),
            (0b11, root(2.0) / 2.0),
            (0b1111, 1.0),
            (0b1000_0001, root(3.0) / 4.0),
            (0b0110_1001, root(3.0) / 2.0),
            (0b0001_0111, 0.75 * root(3.0)),
            (0b1111_1111, 0.0),
        ] {
            assert!((table[code] - area).abs() < 1e-15, "{code:#b}: {}", table[code]);
        }
    }

    #[test]
    fn a_set_and_its_complement_share_their_surface() {
        let table = area_table([1.0, 1.5, 0.25]);
        assert!((0..256).all(|code| table[code] == table[255 - code]));
    }
}
