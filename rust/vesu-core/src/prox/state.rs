//! What the next iteration depends on besides the grid, the settings and the samples: arrays and integers alone, so that
//! a run can be cut and taken up at any iteration with the same bits.

use super::newton::Trial;
use crate::{Error, Result};

/// How the candidates are advanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Proximal gradient: the historical search.
    Ista,
    /// Proximal gradient with Nesterov's momentum and adaptive restart.
    Fista,
    /// Proximal Newton with a subsampled Hessian, to a certified optimum.
    ProxNewton,
}

impl Method {
    const ALL: [Self; 3] = [Self::Ista, Self::Fista, Self::ProxNewton];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ista => "ista",
            Self::Fista => "fista",
            Self::ProxNewton => "prox_newton",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| Error::argument("method", format!("{name:?}"), Self::ALL.map(Self::name).join(", ")))
    }
}

/// What a method keeps of each candidate besides its params. Matrices are (n_candidates, n_coefficients + 1).
#[derive(Clone, Debug, PartialEq)]
pub enum Memory {
    Ista,
    Fista {
        /// Params one iteration ago.
        previous: Vec<f64>,
        /// The sequence t_k of Beck and Teboulle; 0 before the first iteration and after a restart.
        momentum: Vec<f64>,
    },
    ProxNewton {
        /// The last accepted params; `params` is the trial that the next pass judges.
        previous: Vec<f64>,
        /// Objective at `previous`; NaN before the first pass.
        previous_loss: Vec<f64>,
        /// Decrease of the objective that the model foretells for the trial, <= 0.
        decrease: Vec<f64>,
        /// Ridge added to the Hessian, in units of its mean diagonal; above 0 only after rejected trials.
        damping: Vec<f64>,
        /// How often the Hessian's subsample was doubled.
        doublings: Vec<f64>,
        /// Certified: frozen from then on.
        converged: Vec<bool>,
    },
}

/// The first axis of every array is the candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// (n_candidates, n_coefficients + 1), the intercept last.
    pub params: Vec<f64>,
    pub iteration: u64,
    pub diverged: Vec<bool>,
    /// Objective of each candidate at its first iteration on these samples; NaN before it. Setting it to NaN again says
    /// that other samples follow: momentum, trials and certificates that belong to the old ones are dropped.
    pub start_loss: Vec<f64>,
    /// Step length of each candidate.
    pub learning_rate: Vec<f64>,
    pub memory: Memory,
}

/// One array of a state, by name.
#[derive(Debug)]
pub enum Values<'a> {
    Reals(&'a mut Vec<f64>),
    Flags(&'a mut Vec<bool>),
}

impl State {
    pub(super) fn new(method: Method, params: Vec<f64>, n_candidates: usize, learning_rate: f64) -> Self {
        let all = |value: f64| vec![value; n_candidates];
        let memory = match method {
            Method::Ista => Memory::Ista,
            Method::Fista => Memory::Fista { previous: params.clone(), momentum: all(0.0) },
            Method::ProxNewton => Memory::ProxNewton {
                previous: params.clone(),
                previous_loss: all(f64::NAN),
                decrease: all(0.0),
                damping: all(0.0),
                doublings: all(0.0),
                converged: vec![false; n_candidates],
            },
        };
        Self {
            params,
            iteration: 0,
            diverged: vec![false; n_candidates],
            start_loss: all(f64::NAN),
            learning_rate: all(learning_rate),
            memory,
        }
    }

    pub fn method(&self) -> Method {
        match self.memory {
            Memory::Ista => Method::Ista,
            Memory::Fista { .. } => Method::Fista,
            Memory::ProxNewton { .. } => Method::ProxNewton,
        }
    }

    /// Every array by name; `iteration` is the one value besides.
    pub fn arrays(&mut self) -> Vec<(&'static str, Values<'_>)> {
        use Values::{Flags, Reals};
        let mut arrays = vec![
            ("params", Reals(&mut self.params)),
            ("diverged", Flags(&mut self.diverged)),
            ("start_loss", Reals(&mut self.start_loss)),
            ("learning_rate", Reals(&mut self.learning_rate)),
        ];
        match &mut self.memory {
            Memory::Ista => {}
            Memory::Fista { previous, momentum } => {
                arrays.extend([("previous", Reals(previous)), ("momentum", Reals(momentum))]);
            }
            Memory::ProxNewton { previous, previous_loss, decrease, damping, doublings, converged } => arrays.extend([
                ("previous", Reals(previous)),
                ("previous_loss", Reals(previous_loss)),
                ("decrease", Reals(decrease)),
                ("damping", Reals(damping)),
                ("doublings", Reals(doublings)),
                ("converged", Flags(converged)),
            ]),
        }
        arrays
    }

    /// Refuse a state of another method or shape than `self`, or values that no run can have left.
    pub(super) fn check_successor(&self, next: &Self) -> Result<()> {
        if self.method() != next.method() {
            return Err(Error::argument("state", format!("a state of {}", next.method().name()), self.method().name()));
        }
        let (mut wanted, mut next) = (self.clone(), next.clone());
        for ((name, wanted), (_, got)) in wanted.arrays().into_iter().zip(next.arrays()) {
            let (wanted, got) = (wanted.len(), got.len());
            if wanted != got {
                return Err(Error::argument("state", format!("{name} of {got} values"), format!("{wanted} values")));
            }
        }
        for (name, values) in next.arrays() {
            let Values::Reals(values) = values else { continue };
            let (accepts, accepted): (fn(f64) -> bool, _) = match name {
                "params" | "previous" => (f64::is_finite, "finite values"),
                "learning_rate" => (|v| v.is_finite() && v > 0.0, "finite values above 0"),
                "decrease" => (|v| v.is_finite() && v <= 0.0, "finite values <= 0"),
                "momentum" | "damping" | "doublings" => (|v| v.is_finite() && v >= 0.0, "finite values >= 0"),
                // Infinite where a candidate blew up at once.
                _ => (|v| v != f64::NEG_INFINITY, "losses, or NaN before the first iteration"),
            };
            if let Some(at) = values.iter().position(|&value| !accepts(value)) {
                let got = format!("{name} with {} at {at}", values[at]);
                return Err(Error::argument("state", got, format!("{name} of {accepted}")));
            }
        }
        Ok(())
    }

    /// Forget what belongs to other samples, for candidates that have not begun on these.
    pub(super) fn begin(&mut self, width: usize) {
        for candidate in 0..self.diverged.len() {
            if !self.start_loss[candidate].is_nan() {
                continue;
            }
            let row = candidate * width..(candidate + 1) * width;
            match &mut self.memory {
                Memory::Ista => {}
                Memory::Fista { previous, momentum } => {
                    previous[row.clone()].copy_from_slice(&self.params[row]);
                    momentum[candidate] = 0.0;
                }
                Memory::ProxNewton { converged, .. } => {
                    converged[candidate] = false;
                    let params = self.params[row].to_vec();
                    self.set_trial(candidate, Trial::new(params));
                }
            }
        }
    }

    pub(super) fn converged(&self) -> Vec<bool> {
        match &self.memory {
            Memory::ProxNewton { converged, .. } => converged.clone(),
            _ => vec![false; self.diverged.len()],
        }
    }

    /// Take the candidate's trial out of the arrays; [`set_trial`](Self::set_trial) puts it back.
    pub(super) fn trial(&self, candidate: usize) -> Trial {
        let width = self.params.len() / self.diverged.len();
        let row = candidate * width..(candidate + 1) * width;
        match &self.memory {
            Memory::ProxNewton { previous, previous_loss, decrease, damping, doublings, .. } => Trial {
                params: self.params[row.clone()].to_vec(),
                previous: previous[row].to_vec(),
                previous_loss: previous_loss[candidate],
                decrease: decrease[candidate],
                damping: damping[candidate],
                doublings: doublings[candidate],
            },
            _ => Trial::new(self.params[row].to_vec()),
        }
    }

    pub(super) fn set_trial(&mut self, candidate: usize, trial: Trial) {
        let width = trial.params.len();
        let row = candidate * width..(candidate + 1) * width;
        self.params[row.clone()].copy_from_slice(&trial.params);
        if let Memory::ProxNewton { previous, previous_loss, decrease, damping, doublings, .. } = &mut self.memory {
            previous[row].copy_from_slice(&trial.previous);
            previous_loss[candidate] = trial.previous_loss;
            decrease[candidate] = trial.decrease;
            damping[candidate] = trial.damping;
            doublings[candidate] = trial.doublings;
        }
    }
}

impl Values<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Reals(values) => values.len(),
            Self::Flags(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
