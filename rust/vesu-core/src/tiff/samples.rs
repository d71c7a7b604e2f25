//! The sample types, and the one place where samples are seen as bytes.

/// Sample type of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    F64,
}

impl Dtype {
    /// Bytes a sample.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// NumPy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// The TIFF tag SampleFormat: 1 unsigned, 2 signed, 3 IEEE float.
    pub(super) fn sample_format(self) -> u16 {
        match self {
            Self::U8 | Self::U16 | Self::U32 => 1,
            Self::I8 | Self::I16 | Self::I32 => 2,
            Self::F32 | Self::F64 => 3,
        }
    }

    pub(super) fn from_tags(sample_format: u64, bits: u64) -> Option<Self> {
        const ALL: [Dtype; 8] =
            [Dtype::U8, Dtype::I8, Dtype::U16, Dtype::I16, Dtype::U32, Dtype::I32, Dtype::F32, Dtype::F64];
        ALL.into_iter()
            .find(|dtype| u64::from(dtype.sample_format()) == sample_format && dtype.size() as u64 * 8 == bits)
    }
}

/// What `FormatError` says is accepted.
pub(super) const ACCEPTED_DTYPES: &str = "uint8, int8, uint16, int16, uint32, int32, float32, float64";

/// Decoded samples of one of the accepted types.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// A number that a TIFF volume may be made of.
///
/// # Safety
/// Only for types without padding or invalid bit patterns, for which all-zero bytes are a value.
pub unsafe trait Sample: Copy + Sync {
    const DTYPE: Dtype;
}

macro_rules! sample {
    ($($number:ty => $dtype:ident),*) => {
        // SAFETY: the primitive numbers have neither padding nor invalid bit patterns.
        $(unsafe impl Sample for $number { const DTYPE: Dtype = Dtype::$dtype; })*
    };
}
sample!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, f64 => F64);

/// `n` zeros without touching the memory (the system hands out zero pages); `None` when there is not enough.
pub(super) fn zeroed<T: Sample>(n: usize) -> Option<Vec<T>> {
    let layout = std::alloc::Layout::array::<T>(n).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout's size is not zero.
    let pointer = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<T>();
    if pointer.is_null() {
        return None;
    }
    // SAFETY: allocated just now by the global allocator with the layout of `n` T, all of them zero, which is a T.
    Some(unsafe { Vec::from_raw_parts(pointer, n, n) })
}

pub(super) fn as_bytes_mut<T: Sample>(samples: &mut [T]) -> &mut [u8] {
    // SAFETY: `Sample` types may be seen and written as bytes, and the length is that of the same memory.
    unsafe { std::slice::from_raw_parts_mut(samples.as_mut_ptr().cast(), std::mem::size_of_val(samples)) }
}

pub(super) fn as_bytes<T: Sample>(samples: &[T]) -> &[u8] {
    // SAFETY: `Sample` types may be seen as bytes, and the length is that of the same memory.
    unsafe { std::slice::from_raw_parts(samples.as_ptr().cast(), std::mem::size_of_val(samples)) }
}
