//! Large zeroed vectors: an error instead of an abort when memory is short, and huge pages where Linux offers them.
//!
//! A volume's 4 KiB pages cost more to fault in than a simple kernel takes to fill them; numpy advises huge pages for its
//! own arrays for the same reason.

use std::alloc::{Layout, alloc_zeroed};

use crate::{Error, Result};

/// Plain numbers, for which all bytes zero is the value 0.
///
/// # Safety
/// All bytes zero must be a valid value of the type.
pub unsafe trait Zeroable: Copy {}

// SAFETY: a zero in each of these is all bytes zero.
unsafe impl Zeroable for u8 {}
// SAFETY: as above.
unsafe impl Zeroable for u32 {}
// SAFETY: as above.
unsafe impl Zeroable for u64 {}
// SAFETY: as above (+0.0).
unsafe impl Zeroable for f32 {}
// SAFETY: as above (+0.0).
unsafe impl Zeroable for f64 {}

/// `length` zeros. [`Error::Memory`] names `what` if they cannot be had.
pub fn zeroed<T: Zeroable>(what: &'static str, length: usize) -> Result<Vec<T>> {
    if length == 0 || size_of::<T>() == 0 {
        return Ok(Vec::new());
    }
    let layout = Layout::array::<T>(length).map_err(|_| out_of_memory::<T>(what, length))?;
    // SAFETY: the layout's size is not zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        return Err(out_of_memory::<T>(what, length));
    }
    advise_huge_pages(start, layout.size());
    // SAFETY: the global allocator gave `start` for just this layout, and zeroed bytes are `length` valid values.
    Ok(unsafe { Vec::from_raw_parts(start.cast(), length, length) })
}

fn out_of_memory<T>(what: &str, length: usize) -> Error {
    let needed = (length as u64).saturating_mul(size_of::<T>() as u64);
    Error::Memory { what: what.to_owned(), needed, limit: isize::MAX as u64 }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(start: *mut u8, bytes: usize) {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }
    const MADV_HUGEPAGE: c_int = 14;
    const PAGE: usize = 4096;
    const WORTHWHILE: usize = 4 << 20;
    if bytes < WORTHWHILE {
        return;
    }
    let skip = start.align_offset(PAGE);
    // SAFETY: the range lies within our own allocation, and the advice changes no content; a refusal is harmless.
    unsafe { madvise(start.add(skip).cast(), bytes - skip, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_start: *mut u8, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_any_length() {
        for length in [0, 1, 1000, 5_000_000] {
            let zeros: Vec<f32> = zeroed("test", length).unwrap();
            assert_eq!(zeros.len(), length);
            assert!(zeros.iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn too_much_is_an_error_and_no_abort() {
        for length in [usize::MAX, isize::MAX as usize / 8] {
            assert!(matches!(zeroed::<u64>("test", length), Err(Error::Memory { .. })));
        }
    }
}
