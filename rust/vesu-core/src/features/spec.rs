//! Which channels to compute, and in which order they stand.

use super::gaussian::radius;
use crate::error::{Error, Result};

/// Radius 64 at most: beyond it a recursive filter would be the right tool, not a longer one.
const SIGMA_RANGE: std::ops::RangeInclusive<f64> = 0.3..=16.0;
const MAX_SCALES: usize = 16;

/// One kind of channel; each gives one channel a scale. docs/features.md has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Intensity,
    Bandpass,
    Gradient,
    ZContrast,
    Laplacian,
    Hessian,
    Sheetness,
    Planarity,
    Variance,
}

impl Family {
    pub const COUNT: usize = 9;

    /// In channel order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Intensity,
        Self::Bandpass,
        Self::Gradient,
        Self::ZContrast,
        Self::Laplacian,
        Self::Hessian,
        Self::Sheetness,
        Self::Planarity,
        Self::Variance,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Intensity => "intensity",
            Self::Bandpass => "bandpass",
            Self::Gradient => "gradient",
            Self::ZContrast => "z_contrast",
            Self::Laplacian => "laplacian",
            Self::Hessian => "hessian",
            Self::Sheetness => "sheetness",
            Self::Planarity => "planarity",
            Self::Variance => "variance",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::argument("families", format!("{name:?}"), format!("any of {known}, each once"))
        })
    }
}

/// A checked choice of scales and families. Channels are ordered by family (in the order of [`Family::ALL`],
/// however they were asked for), then by scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    scales: Vec<f64>,
    families: Vec<Family>,
    /// Channels in units of the volume's standard deviation, else in the volume's own units.
    pub normalise: bool,
}

impl Spec {
    pub fn new(scales: &[f64], families: &[impl AsRef<str>], normalise: bool) -> Result<Self> {
        let ascending = scales.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = scales.iter().all(|sigma| SIGMA_RANGE.contains(sigma));
        if scales.is_empty() || scales.len() > MAX_SCALES || !ascending || !in_range {
            let accepted = format!(
                "1 to {MAX_SCALES} strictly ascending standard deviations in voxels, each {} to {}",
                SIGMA_RANGE.start(),
                SIGMA_RANGE.end()
            );
            return Err(Error::argument("scales", format!("{scales:?}"), accepted));
        }
        let mut chosen = Vec::new();
        for name in families {
            let family = Family::parse(name.as_ref())?;
            if chosen.contains(&family) {
                return Err(Error::argument("families", format!("{:?} twice", family.name()), "each family once"));
            }
            chosen.push(family);
        }
        if chosen.is_empty() {
            return Err(Error::argument("families", "none", "at least one family"));
        }
        chosen.sort_by_key(|family| *family as usize);
        Ok(Self { scales: scales.to_vec(), families: chosen, normalise })
    }

    pub fn scales(&self) -> &[f64] {
        &self.scales
    }

    pub fn has(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    pub fn n_channels(&self) -> usize {
        self.families.len() * self.scales.len()
    }

    /// Where the channel of `family` at the `scale`-th scale stands, if it was asked for.
    pub fn channel(&self, family: Family, scale: usize) -> Option<usize> {
        self.families.iter().position(|&candidate| candidate == family).map(|at| at * self.scales.len() + scale)
    }

    /// `family_sSIGMA`, in channel order.
    pub fn names(&self) -> Vec<String> {
        let of_family = |family: &Family| {
            let name = family.name();
            self.scales.iter().map(move |sigma| format!("{name}_s{sigma}")).collect::<Vec<_>>()
        };
        self.families.iter().flat_map(of_family).collect()
    }

    /// How far a voxel's channels look, in voxels along each axis.
    pub fn halo(&self) -> usize {
        let largest = self.scales.last().map_or(0, |&sigma| radius(sigma));
        let reach = |family: &Family| match family {
            Family::Intensity | Family::Bandpass | Family::Variance => largest,
            Family::Planarity => 2 * largest + 1,
            _ => largest + 1,
        };
        self.families.iter().map(reach).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_stand_by_family_then_scale_however_asked() {
        let spec = Spec::new(&[1.0, 2.5], &["variance", "intensity"], true).unwrap();
        assert_eq!(spec.names(), ["intensity_s1", "intensity_s2.5", "variance_s1", "variance_s2.5"]);
        assert_eq!(spec.channel(Family::Variance, 1), Some(3));
        assert_eq!(spec.channel(Family::Hessian, 0), None);
        assert_eq!(spec.halo(), 10);
    }

    #[test]
    fn nonsense_is_refused() {
        let all = ["intensity"];
        for scales in [&[][..], &[0.0], &[f64::NAN], &[f64::INFINITY], &[2.0, 1.0], &[1.0, 1.0], &[17.0]] {
            assert!(matches!(Spec::new(scales, &all, true), Err(Error::Argument { name: "scales", .. })), "{scales:?}");
        }
        for families in [&[][..], &["entropy"], &["intensity", "intensity"]] {
            assert!(matches!(Spec::new(&[1.0], families, true), Err(Error::Argument { name: "families", .. })));
        }
    }
}
