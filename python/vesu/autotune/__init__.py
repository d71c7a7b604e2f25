"""Auto-tuning within bounds: policies, what guards them, and the state that a run carries on (R39).

No run, no file and no clock stands in here: ``vesu.run.autotuning`` feeds it with evidence and does what it decides.
Of four parameters ``dust_min_size`` is decided after the calibration; the others between the epochs of the search.
"""

from vesu.autotune.policies import (
    EPOCH_POLICIES,
    DustEvidence,
    EpochEvidence,
    EpochPolicy,
    convergence_patience,
    dust_min_size,
    meta_neurons,
    mutation_noise,
)
from vesu.autotune.state import (
    PARAMETERS,
    Action,
    Bounds,
    Decision,
    Parameter,
    ParameterState,
    Proposal,
    Trial,
    TunerState,
)
from vesu.autotune.tuner import EpochOutcome, TuningRules, judge_dust, propose_dust, tune_epoch

__all__ = [
    "EPOCH_POLICIES",
    "PARAMETERS",
    "Action",
    "Bounds",
    "Decision",
    "DustEvidence",
    "EpochEvidence",
    "EpochOutcome",
    "EpochPolicy",
    "Parameter",
    "ParameterState",
    "Proposal",
    "Trial",
    "TunerState",
    "TuningRules",
    "convergence_patience",
    "dust_min_size",
    "judge_dust",
    "meta_neurons",
    "mutation_noise",
    "propose_dust",
    "tune_epoch",
]
