//! One pass of the distance transform on a tile of neighbouring lines.
//!
//! A line `f` of squared distances becomes `min over j of f(j) + w(|i - j|)`, `w(k)` being the square of k steps. The
//! search goes outwards from i until no lane can gain: as many steps as the distance is long, few in thin sheets. A
//! tile that needs many takes the lower envelope of parabolas instead (Felzenszwalb and Huttenlocher, Theory of
//! Computing 2012), whose cost does not grow with the distance.

use super::{Real, Shared};
use crate::{Cancel, Error, Result};

/// Lines handled together, so that vectors are full and a tile of usual length stays in the nearest caches.
pub(super) const LANES: usize = 32;

/// Steps that the search may take per line position, on average, before the envelope is cheaper.
const STEPS: usize = 96;

/// Positions between two polls of the cancel token.
const POLL: usize = 1 << 10;

type Lanes<T> = [T; LANES];

/// What all lines along one axis share.
pub(super) struct Line<T> {
    step: f64,
    /// `squares[k]` is the square of k steps, one for every k that the axis allows and one more.
    pub squares: Vec<T>,
}

impl<T: Real> Line<T> {
    pub fn new(length: usize, step: f64) -> Result<Self> {
        let mut squares = reserved(length + 1)?;
        squares.extend((0..=length).map(|k| T::of((k as f64 * step) * (k as f64 * step))));
        Ok(Self { step, squares })
    }
}

/// Where a tile's lines lie: element i of lane k is `first + k + i * stride`.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub first: usize,
    pub stride: usize,
    pub count: usize,
    pub width: usize,
}

/// Lower the lines in place and apply `finish`, which must leave 0 as it is.
///
/// # Safety
/// The lines must lie inside `shared`, and nobody else may touch them meanwhile.
pub(super) unsafe fn lower<T: Real>(
    shared: &Shared<T>,
    lines: Lines,
    line: &Line<T>,
    finish: impl Fn(T) -> T + Copy,
    scratch: &mut Vec<Lanes<T>>,
    cancel: &Cancel,
) -> Result<()> {
    debug_assert!(lines.first + (lines.count - 1) * lines.stride + lines.width <= shared.length);
    if scratch.len() < lines.count {
        *scratch = reserved(lines.count)?;
        scratch.resize(lines.count, [T::of(0.0); LANES]);
    }
    let source = &mut scratch[..lines.count];
    let mut any = false;
    for (i, lanes) in source.iter_mut().enumerate() {
        poll(i, cancel)?;
        // SAFETY: inside `shared` and ours alone, as the caller promises.
        let row = unsafe { std::slice::from_raw_parts(shared.start.add(lines.first + i * lines.stride), lines.width) };
        if let Ok(full) = <&Lanes<T>>::try_from(row) {
            *lanes = *full;
        } else {
            lanes[..lines.width].copy_from_slice(row);
            lanes[lines.width..].fill(T::of(0.0));
        }
        any |= lanes.iter().fold(false, |any, &value| any | (value > T::of(0.0)));
    }
    if !any {
        return Ok(()); // all background, and zero already
    }
    let write = |i: usize, lanes: &Lanes<T>| {
        // SAFETY: as above.
        let row =
            unsafe { std::slice::from_raw_parts_mut(shared.start.add(lines.first + i * lines.stride), lines.width) };
        for (voxel, &value) in row.iter_mut().zip(lanes) {
            *voxel = finish(value);
        }
    };
    if !search(source, &line.squares, write, cancel)? {
        envelopes(source, line, lines.width, write, cancel)?;
    }
    Ok(())
}

fn search<T: Real>(
    source: &[Lanes<T>],
    squares: &[T],
    write: impl FnMut(usize, &Lanes<T>),
    cancel: &Cancel,
) -> Result<bool> {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2<T: Real>(
            source: &[Lanes<T>],
            squares: &[T],
            write: impl FnMut(usize, &Lanes<T>),
            cancel: &Cancel,
        ) -> Result<bool> {
            search_outwards(source, squares, write, cancel)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, the only requirement. Sums and minima round alike in any width.
            return unsafe { avx2(source, squares, write, cancel) };
        }
    }
    search_outwards(source, squares, write, cancel)
}

/// Write every position's minimum; false, with some written or none, when that would take too many steps.
#[inline(always)]
fn search_outwards<T: Real>(
    source: &[Lanes<T>],
    squares: &[T],
    mut write: impl FnMut(usize, &Lanes<T>),
    cancel: &Cancel,
) -> Result<bool> {
    let n = source.len();
    let mut budget = STEPS * n;
    for i in 0..n {
        poll(i, cancel)?;
        let mut best = source[i];
        let farthest = i.max(n - 1 - i);
        let mut k = 1;
        // No voxel k steps away can lower a value that is not above the square of k steps.
        while k <= farthest && best.iter().fold(false, |any, &value| any | (value > squares[k])) {
            if let Some(before) = i.checked_sub(k) {
                take_smaller(&mut best, &source[before], squares[k]);
            }
            if let Some(after) = source.get(i + k) {
                take_smaller(&mut best, after, squares[k]);
            }
            k += 1;
        }
        write(i, &best);
        match budget.checked_sub(k) {
            Some(rest) => budget = rest,
            None => return Ok(false),
        }
    }
    Ok(true)
}

#[inline(always)]
fn take_smaller<T: Real>(best: &mut Lanes<T>, other: &Lanes<T>, square: T) {
    for (value, &candidate) in best.iter_mut().zip(other) {
        let candidate = candidate + square;
        *value = if candidate < *value { candidate } else { *value };
    }
}

/// The same by lower envelopes, one lane after the other.
fn envelopes<T: Real>(
    source: &mut [Lanes<T>],
    line: &Line<T>,
    width: usize,
    mut write: impl FnMut(usize, &Lanes<T>),
    cancel: &Cancel,
) -> Result<()> {
    let n = source.len();
    let (mut envelope, mut column) = (reserved(n)?, reserved(n)?);
    for lane in 0..width {
        column.clear();
        column.extend(source.iter().map(|lanes| lanes[lane]));
        build_envelope(&column, line.step, &mut envelope, cancel)?;
        let mut parabola = envelope.iter().peekable();
        let Some(mut current) = parabola.next() else {
            continue; // infinite throughout
        };
        for i in 0..n {
            poll(i, cancel)?;
            while let Some(next) = parabola.next_if(|next| next.from <= i as f64) {
                current = next;
            }
            source[i][lane] = column[current.vertex] + line.squares[i.abs_diff(current.vertex)];
        }
    }
    for (i, lanes) in source.iter().enumerate() {
        write(i, lanes);
    }
    Ok(())
}

/// The parabola over `vertex` is the lowest from position `from` on.
struct Parabola {
    vertex: usize,
    from: f64,
}

fn build_envelope<T: Real>(column: &[T], step: f64, envelope: &mut Vec<Parabola>, cancel: &Cancel) -> Result<()> {
    // In units of one step squared; unit spacing keeps these sums integers, exact in f64.
    let height = |i: usize| column[i].to_f64() / (step * step) + (i as f64) * (i as f64);
    envelope.clear();
    for vertex in 0..column.len() {
        poll(vertex, cancel)?;
        if column[vertex] == T::INFINITY {
            continue;
        }
        let mut from = f64::NEG_INFINITY;
        while let Some(last) = envelope.last() {
            from = (height(vertex) - height(last.vertex)) / (2.0 * (vertex - last.vertex) as f64);
            if from > last.from {
                break;
            }
            envelope.pop();
            from = f64::NEG_INFINITY;
        }
        envelope.push(Parabola { vertex, from });
    }
    Ok(())
}

#[inline]
fn poll(i: usize, cancel: &Cancel) -> Result<()> {
    if i.is_multiple_of(POLL) { cancel.check() } else { Ok(()) }
}

fn reserved<T>(length: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(length).map_err(|_| Error::Memory {
        what: "lines of distances".to_owned(),
        needed: (length as u64).saturating_mul(size_of::<T>() as u64),
        limit: isize::MAX as u64,
    })?;
    Ok(values)
}
