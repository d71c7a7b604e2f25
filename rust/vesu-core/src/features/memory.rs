//! Sizes checked before anything is allocated, and allocation that fails with an error instead of an abort.

use std::alloc::{Layout, alloc_zeroed};

use crate::error::{Error, Result};

/// Bytes of `count` products of `factors` as f32, or `u64::MAX` where that overflows.
pub fn bytes_of(factors: &[usize]) -> u64 {
    factors.iter().try_fold(4u64, |bytes, &factor| bytes.checked_mul(factor as u64)).unwrap_or(u64::MAX)
}

pub fn check_limit(what: &str, needed: u64, limit: u64) -> Result<()> {
    if needed > limit { Err(Error::Memory { what: what.to_owned(), needed, limit }) } else { Ok(()) }
}

/// `len` zeros. Fresh pages come zeroed from the system, so the threads that fill them also fault them in.
pub fn zeroed(what: &str, len: usize) -> Result<Vec<f32>> {
    let refused = || Error::Memory { what: what.to_owned(), needed: bytes_of(&[len]), limit: isize::MAX as u64 };
    if len == 0 {
        return Ok(Vec::new());
    }
    let layout = Layout::array::<f32>(len).map_err(|_| refused())?;
    // SAFETY: the layout's size is not zero, since `len` is not.
    let pointer = unsafe { alloc_zeroed(layout) }.cast::<f32>();
    if pointer.is_null() {
        return Err(refused());
    }
    // SAFETY: allocated just now by the global allocator with the layout of `len` f32, and all-zero bytes are
    // `len` valid f32.
    Ok(unsafe { Vec::from_raw_parts(pointer, len, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_size_is_an_error_not_an_abort() {
        assert_eq!(zeroed("x", 3).unwrap(), [0.0; 3]);
        assert!(matches!(zeroed("x", usize::MAX), Err(Error::Memory { .. })));
        assert!(matches!(zeroed("x", isize::MAX as usize / 8), Err(Error::Memory { .. })));
        assert_eq!(bytes_of(&[usize::MAX, 2]), u64::MAX);
    }
}
