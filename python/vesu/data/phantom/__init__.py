"""Generated scrolls: labels with known truth, CT made to fit any label, a data set in the competition's layout."""

from vesu.data.phantom.dataset import write_dataset
from vesu.data.phantom.forward import DressParams, dress
from vesu.data.phantom.scroll import ScrollParams, generate_scroll

__all__ = ["DressParams", "ScrollParams", "dress", "generate_scroll", "write_dataset"]
