//! BLAKE3 content ids of byte strings, arrays and files.
//!
//! BLAKE3 is a tree hash: the subtrees are hashed on all threads of the current pool, and the digest is the
//! same on any number of them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::{Cancel, Error, Result};

/// A 32-byte BLAKE3 digest; `to_hex()` gives the usual 64 characters.
pub use blake3::Hash;

/// Bytes hashed between two looks at the cancel token: a millisecond or two on one thread, and long enough
/// that the subtrees keep several threads busy. A power of two keeps the pieces on subtree borders.
const PIECE: usize = 4 << 20;

/// The digest of `parts`, as if they stood one after another in memory.
pub fn of_parts(parts: &[&[u8]], cancel: &Cancel) -> Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
        cancel.check()?;
        hasher.update_rayon(piece);
    }
    Ok(hasher.finalize())
}

/// The digest of an array: of a header naming element type and shape, then of the elements in C order.
///
/// `dtype` is NumPy's type string with its byte order (`"<f4"`, `"|u1"`), so arrays of equal bytes but another
/// type or shape have other ids. The header is ASCII: `vesu.array.v1;<f4;3,320,320;`.
pub fn of_array(dtype: &str, shape: &[usize], data: &[u8], cancel: &Cancel) -> Result<Hash> {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let header = format!("vesu.array.v1;{dtype};{};", axes.join(","));
    of_parts(&[header.as_bytes(), data], cancel)
}

/// The digest of a regular file's bytes, read in pieces: memory does not grow with the file.
///
/// The next piece is read while the last one is hashed. The file is read, not mapped: a mapped file that
/// another process cuts short would kill this one with SIGBUS.
pub fn of_file(path: &Path, cancel: &Cancel) -> Result<Hash> {
    let failed = |source| Error::io(path, source);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() && !metadata.is_dir() {
        // Opening a pipe would wait for a writer for ever. (A folder is refused by the read itself, with its errno.)
        return Err(Error::format(path.display().to_string(), "not a regular file"));
    }
    let mut file = File::open(path).map_err(failed)?;
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX).clamp(1, PIECE);
    let (mut current, mut next) = (vec![0; size], vec![0; size]);
    let mut hasher = blake3::Hasher::new();
    let mut filled = fill(&mut file, &mut current).map_err(failed)?;
    while filled > 0 {
        cancel.check()?;
        let (_, read) = rayon::join(|| hasher.update_rayon(&current[..filled]), || fill(&mut file, &mut next));
        filled = read.map_err(failed)?;
        std::mem::swap(&mut current, &mut next);
    }
    Ok(hasher.finalize())
}

/// Read until `buffer` is full or the file ends; the number of bytes read.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The official test vectors' input: 0, 1, ... 250, 0, 1, ...
    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    fn written(data: &[u8]) -> std::path::PathBuf {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vesu-digest-{}-{number}", std::process::id()));
        std::fs::write(&path, data).unwrap();
        path
    }

    #[test]
    fn known_digests() {
        let hex = |length| of_parts(&[&pattern(length)], &Cancel::new()).unwrap().to_hex().to_string();
        assert_eq!(hex(0), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(hex(1), "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
        assert_eq!(hex(1024), "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7");
    }

    #[test]
    fn files_agree_with_bytes_around_the_piece_border() {
        for length in [0, 1, 1023, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 17] {
            let data = pattern(length);
            let path = written(&data);
            let digest = of_file(&path, &Cancel::new());
            std::fs::remove_file(&path).unwrap();
            assert_eq!(digest.unwrap(), blake3::hash(&data), "{length} bytes");
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let data = pattern(PIECE + 12_345);
        for n_threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            let digest = pool.install(|| of_parts(&[&data], &Cancel::new()));
            assert_eq!(digest.unwrap(), blake3::hash(&data));
        }
    }

    #[test]
    fn a_cancelled_token_stops_the_work() {
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(of_parts(&[b"x"], &cancel), Err(Error::Cancelled)));
        let path = written(b"x");
        let stopped = of_file(&path, &cancel);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(stopped, Err(Error::Cancelled)));
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let cancel = Cancel::new();
        assert!(matches!(of_file(&std::env::temp_dir(), &cancel), Err(Error::Io { .. })));
        assert!(matches!(of_file(Path::new("/nowhere/at/all"), &cancel), Err(Error::Io { .. })));
        #[cfg(unix)]
        assert!(matches!(of_file(Path::new("/dev/null"), &cancel), Err(Error::Format { .. })));
    }

    #[test]
    fn type_and_shape_are_part_of_an_array_s_id() {
        let id = |dtype: &str, shape: &[usize]| of_array(dtype, shape, &[0; 24], &Cancel::new()).unwrap();
        let ids = [id("|u1", &[24]), id("|u1", &[4, 6]), id("|u1", &[6, 4]), id("|i1", &[24]), id("<f4", &[6])];
        for (i, a) in ids.iter().enumerate() {
            assert!(ids[i + 1..].iter().all(|b| a != b));
        }
    }

    proptest! {
        #[test]
        fn parts_hash_as_their_concatenation(parts in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..3000), 0..6)) {
            let views: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(of_parts(&views, &Cancel::new()).unwrap(), blake3::hash(&parts.concat()));
        }
    }
}
