//! Kernels on 3-D masks and probabilities.
