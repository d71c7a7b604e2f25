//! Inside checks; the comparison with tifffile and the hostile files are in `tests/test_tiff*.py`.

use proptest::prelude::*;

use super::*;

fn volume_bytes(shape: [usize; 3], seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut byte = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    // Runs of random length: long and short dictionary strings.
    let mut bytes = Vec::new();
    while bytes.len() < shape.iter().product() {
        let (value, run) = (byte() % 7, usize::from(byte()) % 40 + 1);
        bytes.extend(std::iter::repeat_n(value, run));
    }
    bytes.truncate(shape.iter().product());
    bytes
}

const COMPRESSIONS: [Compression; 4] =
    [Compression::None, Compression::Lzw, Compression::Deflate, Compression::PackBits];

proptest! {
    // R03, R04
    #[test]
    fn what_is_written_is_read(z in 1_usize..5, y in 1_usize..40, x in 1_usize..700, seed: u32) {
        let (shape, cancel) = ([z, y, x], Cancel::new());
        let bytes = volume_bytes(shape, seed);
        for compression in COMPRESSIONS {
            let volume = VolumeRef::new(shape, &bytes).unwrap();
            let file = encode_to_vec(volume, compression, &cancel).unwrap();
            let read = read_bytes(&file, "file", 1 << 30, &cancel).unwrap();
            prop_assert_eq!(read, Volume { shape, samples: Samples::U8(bytes.clone()) });
        }
    }

    // R03: our LZW decoder against an independent encoder, at every cut of the output.
    #[test]
    fn lzw_stops_at_the_declared_size(data in prop::collection::vec(0_u8..4, 1..3000), keep in 0.0..1.0) {
        let packed = weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8).encode(&data).unwrap();
        let mut out = vec![0; (data.len() as f64 * keep) as usize];
        lzw::Decoder::new().decode(&packed, &mut out, &Cancel::new()).unwrap().unwrap();
        prop_assert_eq!(&out[..], &data[..out.len()]);
    }

    // R03
    #[test]
    fn lzw_survives_any_bytes(data in prop::collection::vec(any::<u8>(), 0..2000), size in 0_usize..20_000) {
        let mut out = vec![0; size];
        let ours = lzw::Decoder::new().decode(&data, &mut out, &Cancel::new()).unwrap();
        if ours.is_ok() && data.first() == Some(&0x80) {
            let mut theirs = vec![0; size];
            let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
            let result = decoder.decode_bytes(&data, &mut theirs);
            prop_assert_eq!(result.consumed_out, size);
            prop_assert_eq!(out, theirs);
        }
    }

    // R03
    #[test]
    fn parsing_survives_any_bytes(mut data in prop::collection::vec(any::<u8>(), 8..600), big: bool) {
        data[..8].copy_from_slice(if big { b"II\x2b\0\x08\0\0\0" } else { b"II\x2a\0\x08\0\0\0" });
        let _ = read_bytes(&data, "file", 1 << 20, &Cancel::new());
    }
}

// R03
#[test]
fn a_cancelled_token_stops_both_ways() {
    let (cancel, shape) = (Cancel::new(), [3, 64, 64]);
    let bytes = volume_bytes(shape, 1);
    let volume = VolumeRef::new(shape, &bytes).unwrap();
    let file = encode_to_vec(volume, Compression::Lzw, &cancel).unwrap();
    cancel.cancel();
    assert!(matches!(read_bytes(&file, "file", 1 << 20, &cancel), Err(Error::Cancelled)));
    assert!(matches!(encode_to_vec(volume, Compression::Lzw, &cancel), Err(Error::Cancelled)));
}

// R03
#[test]
fn the_memory_limit_is_exact() {
    let (cancel, shape) = (Cancel::new(), [2, 5, 7]);
    let bytes = volume_bytes(shape, 1);
    let file = encode_to_vec(VolumeRef::new(shape, &bytes).unwrap(), Compression::None, &cancel).unwrap();
    assert!(read_bytes(&file, "file", 70, &cancel).is_ok());
    assert!(matches!(read_bytes(&file, "file", 69, &cancel), Err(Error::Memory { needed: 70, limit: 69, .. })));
}
