//! The competition's score.

pub mod betti;
