//! The competition's score of a predicted mask against a label: its terms, each exact and deterministic.
//!
//! Masks are bytes, non-zero being foreground, axes (z, y, x).

mod area;
pub mod betti;
mod bits;
mod surface;
mod voi;

pub use area::area_table;
pub use surface::{Surface, SurfaceAreas, SurfaceOverlap, surface_overlap};
pub use voi::{Entropies, Segments, conditional_entropies, entropies_against};
