//! Byte order and predictors: from the bytes as stored to native samples, row by row.

use super::{ByteOrder, Dtype};

/// Undo the predictor and the byte order of rows of `columns` samples. `row` is scratch.
pub fn restore(rows: &mut [u8], columns: usize, dtype: Dtype, predictor: u16, order: ByteOrder, row: &mut Vec<u8>) {
    let size = dtype.size();
    if predictor == 3 {
        for stored in rows.chunks_exact_mut(columns * size) {
            undo_float(stored, columns, size, row);
        }
        return;
    }
    if order != ByteOrder::NATIVE && size > 1 {
        rows.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    if predictor == 2 {
        for stored in rows.chunks_exact_mut(columns * size) {
            match size {
                1 => accumulate::<1>(stored, |sum, delta| [sum[0].wrapping_add(delta[0])]),
                2 => accumulate(stored, |a, b| u16::from_ne_bytes(a).wrapping_add(u16::from_ne_bytes(b)).to_ne_bytes()),
                4 => accumulate(stored, |a, b| u32::from_ne_bytes(a).wrapping_add(u32::from_ne_bytes(b)).to_ne_bytes()),
                _ => accumulate(stored, |a, b| u64::from_ne_bytes(a).wrapping_add(u64::from_ne_bytes(b)).to_ne_bytes()),
            }
        }
    }
}

/// Running sum over samples of `N` bytes.
fn accumulate<const N: usize>(row: &mut [u8], add: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
    let mut sum = [0; N];
    for sample in row.chunks_exact_mut(N) {
        let mut delta = [0; N];
        delta.copy_from_slice(sample);
        sum = add(sum, delta);
        sample.copy_from_slice(&sum);
    }
}

/// Adobe's floating point predictor: byte planes, most significant first whatever the file's order, then deltas.
fn undo_float(stored: &mut [u8], columns: usize, size: usize, row: &mut Vec<u8>) {
    accumulate::<1>(stored, |sum, delta| [sum[0].wrapping_add(delta[0])]);
    row.clear();
    row.extend_from_slice(stored);
    for (column, sample) in stored.chunks_exact_mut(size).enumerate() {
        for (plane, byte) in sample.iter_mut().enumerate() {
            let plane = if ByteOrder::NATIVE == ByteOrder::Little { size - 1 - plane } else { plane };
            *byte = row[plane * columns + column];
        }
    }
}
