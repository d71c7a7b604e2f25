//! Gaps of a height map: found, judged, and filled by interpolation.

use super::columns::Interval;

/// Known columns this near a gap, in either direction, tell whether the sheet is flat enough there.
const RING: usize = 2;

/// Known columns this near a gap say how thick the sheet is.
const WIDE_RING: usize = 6;

/// Fewest columns that can enclose a gap.
pub(super) const SMALLEST_RING: usize = 8;

/// What became of a gap.
pub(super) enum Judged {
    TooWide,
    PoorFit,
    /// The columns to add.
    Fill(Vec<Interval>),
}

/// One layer as a map over its bounding box: bottom and top of each column, or nothing.
pub(super) struct HeightMap {
    first: [u32; 2],
    size: [usize; 2],
    heights: Vec<Option<(u32, u32)>>,
}

impl HeightMap {
    pub fn of_layer(layer: &[Interval]) -> Self {
        let (mut first, mut last) = ([u32::MAX; 2], [0; 2]);
        for column in layer {
            first = [first[0].min(column.u), first[1].min(column.v)];
            last = [last[0].max(column.u), last[1].max(column.v)];
        }
        let size = [0, 1].map(|k| (last[k] + 1).saturating_sub(first[k]) as usize);
        let mut heights = vec![None; size[0] * size[1]];
        for column in layer {
            let place = (column.u - first[0]) as usize * size[1] + (column.v - first[1]) as usize;
            heights[place] = Some((column.low, column.high));
        }
        Self { first, size, heights }
    }

    /// Enclosed gaps: missing columns that hang together over edges or corners and do not reach the map's border.
    pub fn gaps(&self) -> Vec<Vec<usize>> {
        let [nu, nv] = self.size;
        let mut seen: Vec<bool> = self.heights.iter().map(Option::is_some).collect();
        let mut gaps = Vec::new();
        for seed in 0..seen.len() {
            if seen[seed] {
                continue;
            }
            seen[seed] = true;
            let (mut gap, mut enclosed, mut next) = (vec![seed], true, 0);
            while next < gap.len() {
                let place = gap[next];
                next += 1;
                let (u, v) = (place / nv, place % nv);
                enclosed &= u > 0 && u + 1 < nu && v > 0 && v + 1 < nv;
                for place in self.around(u, v, 1) {
                    if !seen[place] {
                        seen[place] = true;
                        gap.push(place);
                    }
                }
            }
            if enclosed {
                gap.sort_unstable();
                gaps.push(gap);
            }
        }
        gaps
    }

    /// Places within `reach` of (u, v), in order.
    fn around(&self, u: usize, v: usize, reach: usize) -> impl Iterator<Item = usize> + use<> {
        let [nu, nv] = self.size;
        let columns = v.saturating_sub(reach)..(v + reach + 1).min(nv);
        (u.saturating_sub(reach)..(u + reach + 1).min(nu)).flat_map(move |u| columns.clone().map(move |v| u * nv + v))
    }

    pub fn judge(&self, gap: &[usize], max_gap: usize, max_residual: f64) -> Judged {
        let widths = gap.iter().map(|&place| [self.size[1], 1].map(|stride| self.span(place, stride, gap)));
        if widths.into_iter().any(|spans| spans.iter().flatten().map(Span::width).min().is_none_or(|w| w > max_gap)) {
            return Judged::TooWide;
        }
        let gap = self.widened(gap);
        if self.residual(&gap) > max_residual {
            return Judged::PoorFit;
        }
        let filled = gap.iter().map(|&place| {
            let [u, v] = [self.size[1], 1].map(|stride| self.span(place, stride, &gap));
            let (u, v) = match (u, v) {
                (Some(u), Some(v)) => (u, v),
                (Some(only), None) | (None, Some(only)) => (only, only),
                (None, None) => return None,
            };
            let low = Mean::of(u, v, |(low, _)| low).rounded_down();
            let high = Mean::of(u, v, |(_, high)| high).rounded_up();
            let [u, v] = [place / self.size[1], place % self.size[1]];
            Some(Interval { u: self.first[0] + u as u32, v: self.first[1] + v as u32, low, high })
        });
        filled.collect::<Option<_>>().map_or(Judged::PoorFit, Judged::Fill)
    }

    /// The gap together with the stubs around it: columns that the hole's slanting wall has cut thin, and whose middle
    /// says nothing about the sheet. They are next to the gap or to another stub, and at most a sheet's thickness away.
    fn widened(&self, gap: &[usize]) -> Vec<usize> {
        let thickness = |place: usize| self.heights[place].map(|(low, high)| high - low + 1);
        let mut known: Vec<u32> = self.within(gap, WIDE_RING).into_iter().filter_map(thickness).collect();
        known.sort_unstable();
        let usual = known.get(3 * known.len() / 4).copied().unwrap_or(0);
        let is_stub = |place: usize| {
            let [u, v] = [place / self.size[1], place % self.size[1]];
            let inside = u > 0 && u + 1 < self.size[0] && v > 0 && v + 1 < self.size[1];
            inside && thickness(place).is_some_and(|thickness| 4 * thickness < 3 * usual)
        };
        let mut wide = gap.to_vec();
        for _ in 0..usual {
            let before = wide.len();
            let further = self.within(&wide, 1).into_iter().filter(|place| wide.binary_search(place).is_err());
            let further: Vec<usize> = further.filter(|&place| is_stub(place)).collect();
            wide.extend(further);
            if wide.len() == before {
                break;
            }
            wide.sort_unstable();
        }
        wide
    }

    /// Places within `reach` of any of these, in order.
    fn within(&self, places: &[usize], reach: usize) -> Vec<usize> {
        let nv = self.size[1];
        let mut near: Vec<usize> =
            places.iter().flat_map(|&place| self.around(place / nv, place % nv, reach)).collect();
        near.sort_unstable();
        near.dedup();
        near
    }

    /// The nearest known columns outside the gap on both sides of one of its columns, `stride` places apart; None if the
    /// map ends first.
    fn span(&self, place: usize, stride: usize, gap: &[usize]) -> Option<Span> {
        let (u, v) = (place / self.size[1], place % self.size[1]);
        let (backward, forward) = if stride == 1 { (v, self.size[1] - 1 - v) } else { (u, self.size[0] - 1 - u) };
        let known = |at: usize| self.heights[at].filter(|_| gap.binary_search(&at).is_err());
        let (before, start) = (1..=backward).find_map(|steps| Some((steps, known(place - steps * stride)?)))?;
        let (after, end) = (1..=forward).find_map(|steps| Some((steps, known(place + steps * stride)?)))?;
        Some(Span { before, start, after, end })
    }

    /// Root mean square distance, along the columns, of the known middles around a gap from the plane that fits them best.
    fn residual(&self, gap: &[usize]) -> f64 {
        let nv = self.size[1];
        let ring = self.within(gap, RING).into_iter().filter(|place| gap.binary_search(place).is_err());
        let (u0, v0) = (gap[0] / nv, gap[0] % nv);
        let points: Vec<[f64; 3]> = ring
            .filter_map(|place| {
                let (low, high) = self.heights[place]?;
                let [u, v] = [(place / nv) as f64 - u0 as f64, (place % nv) as f64 - v0 as f64];
                Some([u, v, (f64::from(low) + f64::from(high)) / 2.0])
            })
            .collect();
        distance_from_plane(&points)
    }
}

/// Root mean square of h - (a u + b v + c) for the best a, b, c.
fn distance_from_plane(points: &[[f64; 3]]) -> f64 {
    let n = points.len() as f64;
    let mean = points.iter().fold([0.0; 3], |sum, point| [0, 1, 2].map(|k| sum[k] + point[k])).map(|sum| sum / n);
    // Second moments about the mean: uu, uv, vv, uh, vh, hh.
    let mut moments = [0.0; 6];
    for point in points {
        let [u, v, h] = [0, 1, 2].map(|k| point[k] - mean[k]);
        for (moment, product) in moments.iter_mut().zip([u * u, u * v, v * v, u * h, v * h, h * h]) {
            *moment += product;
        }
    }
    let [uu, uv, vv, uh, vh, hh] = moments;
    // A ring around a gap never lies on one line, so the determinant is positive.
    let determinant = uu * vv - uv * uv;
    let (a, b) = ((uh * vv - vh * uv) / determinant, (vh * uu - uh * uv) / determinant);
    ((hh - a * uh - b * vh).max(0.0) / n).sqrt()
}

/// The known columns at both ends of a missing stretch, seen from one of its columns.
#[derive(Clone, Copy)]
struct Span {
    before: usize,
    start: (u32, u32),
    after: usize,
    end: (u32, u32),
}

impl Span {
    /// Missing columns between the ends.
    fn width(&self) -> usize {
        self.before + self.after - 1
    }

    fn nearest(&self) -> i128 {
        self.before.min(self.after) as i128
    }

    fn length(&self) -> i128 {
        (self.before + self.after) as i128
    }

    /// Linear interpolation, times `length`.
    fn interpolated(&self, height: impl Fn((u32, u32)) -> u32) -> i128 {
        i128::from(height(self.start)) * self.after as i128 + i128::from(height(self.end)) * self.before as i128
    }
}

/// The mean of two directions' interpolations, each weighted by 1 / (distance to its nearest end); an exact fraction, so
/// that mirrored input gives mirrored output.
struct Mean {
    numerator: i128,
    denominator: i128,
}

impl Mean {
    fn of(u: Span, v: Span, height: impl Fn((u32, u32)) -> u32 + Copy) -> Self {
        let numerator =
            v.nearest() * v.length() * u.interpolated(height) + u.nearest() * u.length() * v.interpolated(height);
        Self { numerator, denominator: (u.nearest() + v.nearest()) * u.length() * v.length() }
    }

    /// To the nearest integer; halves go down.
    fn rounded_down(&self) -> u32 {
        -(-2 * self.numerator + self.denominator).div_euclid(2 * self.denominator) as u32
    }

    /// To the nearest integer; halves go up.
    fn rounded_up(&self) -> u32 {
        (2 * self.numerator + self.denominator).div_euclid(2 * self.denominator) as u32
    }
}
