//! Multipage TIFF volumes: bounded decode, reproducible encode.
