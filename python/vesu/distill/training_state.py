"""The whole state of a torch training between two steps: safetensors and JSON, no pickle (R36, R37)."""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vesu.distill.module_state import plan_module, write_module
from vesu.distill.optimizer_state import plan_optimizer, write_optimizer
from vesu.distill.plan import Difference, Plan
from vesu.distill.rng_state import describe_rng, plan_rng
from vesu.distill.tensor_tree import TreeReader, TreeWriter, json_bytes, json_value, members
from vesu.errors import ArgumentError, FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["PARTS", "capture", "restore"]

FORMAT = "vesu-training-state/1"
JSON_PART = "training.json"
TENSOR_PARTS = {
    "model": "training_model.safetensors",
    "ema": "training_ema.safetensors",
    "optimizer": "training_optimizer.safetensors",
    "rng": "training_rng.safetensors",
}
"""Which part holds whose tensors; those of scheduler and scaler, few and small, are with the optimizer's."""

PARTS = (JSON_PART, *TENSOR_PARTS.values())
"""The names that :func:`capture` may give; the second is there only with an ``ema``."""

CURSOR = ("epoch", "index", "seed")

MEMBERS: Mapping[str, type | tuple[type, ...]] = {
    "format": str,
    "environment": dict,
    "model": dict,
    "ema": (dict, type(None)),
    "optimizer": dict,
    "scheduler": (dict, type(None)),
    "scaler": (dict, type(None)),
    "rng": dict,
    "cursor": dict,
}


def capture(
    model: "torch.nn.Module",
    optimizer: "torch.optim.Optimizer",
    scheduler: Any = None,
    scaler: "torch.amp.GradScaler | None" = None,
    *,
    cursor: Mapping[str, Any],
    ema: "torch.nn.Module | None" = None,
    generators: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Everything that a training needs to go on with the same bits, as named byte strings.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters, buffers, and which are frozen or in evaluation mode. Tied weights are kept once and stay tied.
        Non-persistent buffers are left out: their module calls them no state.
    optimizer : torch.optim.Optimizer
        Of parameters of ``model`` only; any class whose ``state_dict`` holds tensors and plain values.
    scheduler : optional
        Anything with ``state_dict`` and ``load_state_dict`` of plain values. Functions (``LambdaLR``) are not state:
        the same ones must be given again.
    scaler : torch.amp.GradScaler, optional
        The loss scale.
    cursor : Mapping
        Where the data stand: ``epoch``, ``index`` (samples or batches taken in it) and ``seed``, integers; and
        whatever plain values the training adds.
    ema : torch.nn.Module, optional
        The averaged model, ``torch.optim.swa_utils.AveragedModel`` for example.
    generators : Mapping of str to generator, optional
        Random generators besides the global ones of Python, numpy, torch and every CUDA device, which are always
        kept: ``numpy.random.Generator`` or ``RandomState``, ``random.Random``, ``torch.Generator``.

    Returns
    -------
    dict of str to bytes
        The parts; the same state gives the same bytes.

    Raises
    ------
    ArgumentError
        Something that cannot be kept; the message names its place.
    MissingSafetensorsError
        The package is not installed.

    Notes
    -----
    R36, R37. To be called between two steps: gradients are not kept. NaN and infinities are, as bits: a state is a
    state. The model's tensors are copied to the host; about three times their bytes are needed for a moment.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(), torch.nn.Linear(4, 1))
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> def step():
    ...     optimizer.zero_grad()
    ...     model(torch.randn(8, 4)).square().mean().backward()
    ...     optimizer.step()
    >>> step()
    >>> parts = capture(model, optimizer, cursor={"epoch": 0, "index": 1, "seed": 0})
    >>> step()
    >>> whole = model[0].weight.clone()
    >>> restore(parts, model, optimizer)
    {'epoch': 0, 'index': 1, 'seed': 0}
    >>> step()
    >>> torch.equal(model[0].weight, whole)
    True
    """
    _check_kinds(model, optimizer, ema)
    writers = {name: TreeWriter() for name in TENSOR_PARTS}
    document = {
        "format": FORMAT,
        "model": write_module(model, writers["model"], "model"),
        "environment": _environment(model),
        "ema": None if ema is None else write_module(ema, writers["ema"], "ema"),
        "optimizer": write_optimizer(optimizer, model, writers["optimizer"]),
        "scheduler": _write_plain("scheduler", scheduler, writers["optimizer"]),
        "scaler": _write_plain("scaler", scaler, writers["optimizer"]),
        "rng": writers["rng"].encode(describe_rng(generators or {}), "rng"),
        "cursor": TreeWriter().encode(_checked_cursor(cursor, ArgumentError), "cursor"),
    }
    kept = {TENSOR_PARTS[name]: writer.to_bytes() for name, writer in writers.items() if name != "ema" or ema}
    return {JSON_PART: json_bytes(document), **kept}


def restore(
    parts: Mapping[str, bytes],
    model: "torch.nn.Module",
    optimizer: "torch.optim.Optimizer",
    scheduler: Any = None,
    scaler: "torch.amp.GradScaler | None" = None,
    *,
    ema: "torch.nn.Module | None" = None,
    generators: Mapping[str, Any] | None = None,
    emit: Callable[..., object] | None = None,
) -> dict[str, Any]:
    """Set everything to what :func:`capture` found; the next step then has the bits that it would have had.

    The objects are built as they were for the first step, then restored in place. All is checked before anything is
    changed.

    Parameters
    ----------
    parts : Mapping of str to bytes
        Of :func:`capture`; others beside them are let be.
    model, optimizer, scheduler, scaler, ema, generators
        As given to :func:`capture`, of the same classes, names, shapes and types. Learning rates, betas and the like
        become what they were; so do functions' arguments that a scheduler keeps.
    emit : callable, optional
        ``emit("TRAINING_ENVIRONMENT_CHANGED", field=..., checkpoint=..., now=...)`` for each thing that may change
        bits but is no reason to refuse: versions, devices, threads. Without it they are warnings.

    Returns
    -------
    dict
        The cursor.

    Raises
    ------
    ArgumentError
        An object of a wrong kind, as in :func:`capture`.
    ResumeIncompatible
        Names, shapes, types, ties, classes or kinds of generators that differ; the message names each.
    FormatError
        Parts that are missing, truncated or not what ``capture`` writes.
    MissingSafetensorsError
        The package is not installed.

    Warns
    -----
    UserWarning
        Another environment, when there is no ``emit``.

    Notes
    -----
    R37. Bits are promised on the same machine, version and number of threads, and on a GPU only as far as its
    operations are deterministic. That bytes are the ones once saved is the checkpoint's to check, by their digests.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> parts = capture(model, sgd, cursor={"epoch": 3, "index": 0, "seed": 7})
    >>> restore(parts, model, torch.optim.Adam(model.parameters()))
    Traceback (most recent call last):
        ...
    vesu.errors.ResumeIncompatible: RESUME_INCOMPATIBLE: field optimizer.class: checkpoint has SGD, this run has Adam
    """
    _check_kinds(model, optimizer, ema)
    document, readers = _open(parts)
    plan = plan_module(document["model"], readers["model"], model, "model")
    plan += _plan_ema(document["ema"], readers, ema)
    plan += plan_optimizer(document["optimizer"], readers["optimizer"], optimizer, model)
    plan += _plan_plain("scheduler", document["scheduler"], readers["optimizer"], scheduler)
    plan += _plan_plain("scaler", document["scaler"], readers["optimizer"], scaler)
    plan += plan_rng(readers["rng"].decode(document["rng"], "rng"), generators or {})
    cursor = _checked_cursor(readers["rng"].decode(document["cursor"], "cursor"), FormatError)
    plan.check()
    for reader in readers.values():
        reader.finish()
    _tell_environment(document["environment"], _environment(model), emit)
    for change in plan.changes:
        try:
            change()
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            raise FormatError(f"training state: {error}; the objects are restored in part: build them anew") from error
    return cursor


def _check_kinds(model: Any, optimizer: Any, ema: Any) -> None:
    import torch

    def check(name: str, given: Any, kind: type, accepted: str) -> None:
        if not isinstance(given, kind):
            raise ArgumentError(f"{name}: got {type(given).__name__}; accepted: {accepted}")

    check("model", model, torch.nn.Module, "a torch module")
    check("optimizer", optimizer, torch.optim.Optimizer, "a torch optimizer")
    if ema is not None:
        check("ema", ema, torch.nn.Module, "a torch module or None")


def _open(parts: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, TreeReader]]:
    if JSON_PART not in parts:
        raise FormatError(f"{JSON_PART}: missing from the parts")
    document = json_value(JSON_PART, parts[JSON_PART])
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise FormatError(f"{JSON_PART}: format {document['format']!r}; accepted: {FORMAT!r}")
    members(document, JSON_PART, MEMBERS)
    expected = {name: part for name, part in TENSOR_PARTS.items() if document[name] is not None}
    for name, part in TENSOR_PARTS.items():
        if (name in expected) != (part in parts):
            raise FormatError(f"{part}: {'missing from the parts' if name in expected else 'not expected'}")
    return document, {name: TreeReader(part, parts[part]) for name, part in expected.items()}


def _plan_ema(saved: Any, readers: Mapping[str, TreeReader], ema: "torch.nn.Module | None") -> Plan:
    if saved is None and ema is None:
        return Plan([])
    if saved is None or ema is None:
        return Plan([Difference.of_presence("ema", saved is not None)])
    return plan_module(saved, readers["ema"], ema, "ema")


def _write_plain(what: str, thing: Any, writer: TreeWriter) -> dict[str, Any] | None:
    if thing is None:
        return None
    name = type(thing).__name__
    try:
        state = thing.state_dict()
    except AttributeError as error:  # it has none, or it is made of something that has none
        raise ArgumentError(f"{what}: got {name} without a state_dict that works ({error}); accepted: one") from error
    return {"class": name, "state": writer.encode(state, f"{what}.{name}")}


def _plan_plain(what: str, saved: Any, reader: TreeReader, thing: Any) -> Plan:
    """A scheduler or scaler: a class and a dict of plain values."""
    if saved is None or thing is None:
        absent = saved is None and thing is None
        return Plan([] if absent else [Difference.of_presence(what, saved is not None)])
    members(saved, what, {"class": str, "state": dict})
    state = reader.decode(saved["state"], f"{what}.state")
    if saved["class"] != type(thing).__name__:
        return Plan([Difference(f"{what}.class", saved["class"], type(thing).__name__)])
    return Plan(_name_differences(what, state, thing), [lambda: thing.load_state_dict(state)])


def _name_differences(what: str, saved: Mapping[str, Any], thing: Any) -> list[Difference]:
    """Names that are missing, and names that would hide a method; others may have come while the training went on."""
    now = thing.state_dict()
    missing = sorted(now.keys() - saved.keys())
    strange = sorted(name for name in saved.keys() - now.keys() if not now or hasattr(thing, str(name)))
    return [Difference.of_presence(f"{what}.{name}", name in saved) for name in missing + strange]


def _checked_cursor(cursor: Any, error: type[ArgumentError] | type[FormatError]) -> dict[str, Any]:
    for name in CURSOR:
        value = cursor.get(name) if isinstance(cursor, Mapping) else None
        if type(value) is not int or value < 0:
            raise error(f"cursor[{name!r}]: got {value!r}; accepted: an integer of 0 or more")
    return dict(cursor)


def _environment(model: "torch.nn.Module") -> dict[str, Any]:
    """What may change the bits though it is no state."""
    import numpy as np
    import torch

    tensors = [*model.parameters(), *model.buffers()]
    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "devices": sorted({_device_name(tensor.device) for tensor in tensors}),
        "cuda_devices": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tensors_not_contiguous": sum(not tensor.is_contiguous() for tensor in tensors),
    }


def _device_name(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _tell_environment(saved: Mapping[str, Any], now: Mapping[str, Any], emit: Callable[..., object] | None) -> None:
    for field in sorted(saved.keys() | now.keys()):
        if saved.get(field) == now.get(field):
            continue
        if emit is not None:
            emit("TRAINING_ENVIRONMENT_CHANGED", field=field, checkpoint=saved.get(field), now=now.get(field))
        else:
            told = f"{field} was {saved.get(field)!r} at the checkpoint and is {now.get(field)!r} now"
            warnings.warn(f"training state: {told}; bits may differ", UserWarning, stacklevel=3)
