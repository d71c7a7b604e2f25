"""Small teachers for the tests: a network of each registered architecture, and a folder to put one in."""

from pathlib import Path
from typing import Any

from vesu.distill.architectures import build_network
from vesu.distill.teacher import InputSpec, Normalisation, OutputSpec, TeacherSpec, write_teacher

SMALL: dict[str, dict[str, Any]] = {
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "UNet": {"channels": [4, 8], "strides": [2], "num_res_units": 1, "act": ["leakyrelu", {"negative_slope": 0.1}]},
    "DynUNet": {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
    "ResidualEncoderUNet": {
        **{"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": 3, "strides": [1, 2]},
        **{"n_blocks_per_stage": 1, "n_conv_per_stage_decoder": 1},
    },
}
PATCH = (16, 16, 16)
MEMBERS: dict[str, Any] = {
    "input": InputSpec(PATCH),
    "normalisation": Normalisation("zscore"),
    "output": OutputSpec(3, 1, ignored_class=2),
    "licence": "CC0-1.0",
    "source": "made by a test",
}


def small_network(name: str = "UNet", seed: int = 0) -> Any:
    import torch

    torch.manual_seed(seed)
    return build_network(name, 3, SMALL[name])


def small_teacher(folder: Path, network: Any = None, *, architecture: str = "UNet", **members: Any) -> TeacherSpec:
    """A safetensors teacher of three classes, the last of them untrained."""
    network = network or small_network(architecture)
    given = {"name": folder.name, "architecture": {"name": architecture, "kwargs": SMALL[architecture]}}
    return write_teacher(folder, network.state_dict(), **MEMBERS | given | members)
