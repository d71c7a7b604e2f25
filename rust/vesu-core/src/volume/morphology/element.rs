//! Structuring elements, symmetric about their centre, as rows along x.

use super::super::Shape;
use crate::{Error, Result};

/// Widest radius: the products of the ellipsoid's inequality must fit 128 bits.
pub const MAX_RADIUS: u64 = 1 << 20;

/// Voxels along y or z that one step of a box takes at most, at either side.
const BOX_STEPS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementShape {
    /// Offsets with (z / rz)^2 + (y / ry)^2 + (x / rx)^2 <= 1; none along an axis of radius 0.
    Ball,
    /// Offsets with |z| <= rz, |y| <= ry, |x| <= rx.
    Box,
}

/// Part of an element: at each of the offsets of `spans` in (z, y), a row that reaches from -`width` to `width`.
#[derive(Debug, PartialEq)]
pub(super) struct Ring {
    pub width: usize,
    pub spans: Vec<Span>,
}

/// Offsets `dz` by `from..=to` in (z, y) and, as elements are symmetric, those of the other signs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub dz: usize,
    pub from: usize,
    pub to: usize,
}

/// The union of rings, in order of their widths.
#[derive(Debug)]
pub(super) struct Element {
    pub rings: Vec<Ring>,
}

impl Element {
    /// How far it reaches along z and along y.
    pub fn reach(&self) -> (usize, usize) {
        let spans = || self.rings.iter().flat_map(|ring| &ring.spans);
        (spans().map(|span| span.dz).max().unwrap_or(0), spans().map(|span| span.to).max().unwrap_or(0))
    }
}

/// Elements whose dilations one after another, inside a volume of `shape`, are the dilation by the element of `radius`.
///
/// A ball is one element. A box goes axis by axis, each step widening the window of the steps before; along x in the
/// first. Reach beyond the volume is cut off, as nothing lies there.
pub(super) fn elements(radius: [u64; 3], kind: ElementShape, shape: Shape) -> Result<Vec<Element>> {
    if radius.iter().any(|&r| r > MAX_RADIUS) {
        return Err(Error::argument("radius", format!("{radius:?}"), format!("0 to {MAX_RADIUS} along each axis")));
    }
    match kind {
        ElementShape::Ball => Ok(vec![ball(radius, shape)?]),
        ElementShape::Box => {
            let [rz, ry, rx] = clipped(radius, shape);
            let mut steps = Vec::new();
            let along_y = steps_of(ry).into_iter().map(|offsets| offsets.into_iter().map(|dy| (0, dy)).collect());
            let along_z = steps_of(rz).into_iter().map(|offsets| offsets.into_iter().map(|dz| (dz, 0)).collect());
            let passes: Vec<Vec<(usize, usize)>> = along_y.chain(along_z).collect();
            for (i, offsets) in passes.into_iter().enumerate() {
                let spans = offsets.into_iter().map(|(dz, dy)| Span { dz, from: dy, to: dy }).collect();
                steps.push(Element { rings: vec![Ring { width: if i == 0 { rx } else { 0 }, spans }] });
            }
            if steps.is_empty() {
                steps.push(Element { rings: vec![Ring { width: rx, spans: vec![Span { dz: 0, from: 0, to: 0 }] }] });
            }
            Ok(steps)
        }
    }
}

fn clipped(radius: [u64; 3], shape: Shape) -> [usize; 3] {
    std::array::from_fn(|axis| radius[axis].min(shape[axis] as u64 - 1) as usize)
}

/// Offsets (0 and up) whose dilations one after another reach to `radius`.
///
/// Windows that already reach to `reach` may be set `reach` + 1 apart, no more: where the outermost lies outside the
/// volume, the next one must still reach the volume's end.
fn steps_of(radius: usize) -> Vec<Vec<usize>> {
    let (mut reach, mut steps) = (0, Vec::new());
    while reach < radius {
        let (apart, target) = (reach + 1, radius.min(reach + BOX_STEPS * (reach + 1)));
        let mut offsets: Vec<usize> = (0..target - reach).step_by(apart).collect();
        offsets.push(target - reach);
        steps.push(offsets);
        reach = target;
    }
    steps
}

fn ball(radius: [u64; 3], shape: Shape) -> Result<Element> {
    let ellipsoid = Ellipsoid::new(radius);
    let [nz, ny, nx] = clipped(radius, shape);
    let mut rings = Vec::new();
    for width in 0..=nx {
        let mut spans = Vec::new();
        for dz in 0..=nz {
            let Some(to) = ellipsoid.furthest_y(dz, width) else { break };
            // Offsets whose row is wider belong to the next ring; the last one takes all that is left.
            let wider = if width < nx { ellipsoid.furthest_y(dz, width + 1) } else { None };
            let from = wider.map_or(0, |wider| wider + 1);
            if from <= to.min(ny) {
                spans.try_reserve(1).map_err(|_| too_large())?;
                spans.push(Span { dz, from, to: to.min(ny) });
            }
        }
        if !spans.is_empty() {
            rings.push(Ring { width, spans });
        }
    }
    Ok(Element { rings })
}

fn too_large() -> Error {
    Error::Memory { what: "the structuring element".to_owned(), needed: u64::MAX, limit: isize::MAX as u64 }
}

/// The inequality of the ball in whole numbers: both sides times the square of the radii's product, so that no offset
/// on the surface is lost to rounding.
struct Ellipsoid {
    bound: u128,
    /// Factor of the squared offset along z, y, x; none where only offset 0 belongs.
    factors: [Option<u128>; 3],
}

impl Ellipsoid {
    fn new(radius: [u64; 3]) -> Self {
        let product: u128 = radius.iter().filter(|&&r| r > 0).map(|&r| u128::from(r)).product();
        let factor = |r: u64| (r > 0).then(|| (product / u128::from(r)).pow(2));
        Self { bound: product.pow(2), factors: radius.map(factor) }
    }

    /// The largest offset along y of a voxel inside with these along z and x.
    fn furthest_y(&self, dz: usize, dx: usize) -> Option<usize> {
        let [z, y, x] = self.factors;
        let term = |factor: Option<u128>, offset: usize| match factor {
            Some(factor) => Some(factor * (offset as u128).pow(2)),
            None => (offset == 0).then_some(0),
        };
        let rest = self.bound.checked_sub(term(z, dz)?)?.checked_sub(term(x, dx)?)?;
        Some(y.map_or(0, |factor| (rest / factor).isqrt() as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_the_sphere_belong_to_it() {
        let ball = Ellipsoid::new([5, 5, 5]);
        assert_eq!((ball.furthest_y(3, 0), ball.furthest_y(0, 4), ball.furthest_y(5, 1)), (Some(4), Some(3), None));
        let flat = Ellipsoid::new([0, 3, 1]);
        assert_eq!((flat.furthest_y(0, 0), flat.furthest_y(0, 1), flat.furthest_y(1, 0)), (Some(3), Some(0), None));
        let widest = Ellipsoid::new([MAX_RADIUS; 3]);
        assert_eq!(widest.furthest_y(0, 0), Some(MAX_RADIUS as usize));
    }

    #[test]
    fn steps_of_a_box_reach_the_radius_without_gaps() {
        for radius in 0..300 {
            let mut reach = 0;
            for offsets in steps_of(radius) {
                assert_eq!(offsets[0], 0);
                assert!(offsets.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= reach + 1));
                assert!(offsets.len() <= BOX_STEPS + 1);
                reach += offsets[offsets.len() - 1];
            }
            assert_eq!(reach, radius);
        }
    }

    #[test]
    fn a_radius_beyond_the_limit_is_refused() {
        for radius in [[MAX_RADIUS + 1, 0, 0], [0, 0, u64::MAX]] {
            assert!(elements(radius, ElementShape::Box, [2, 2, 2]).is_err());
        }
    }
}
