//! 3-D multi-scale sheet features.
