"""The OpenAPI schema holds: generated requests find no answer that it does not promise (schemathesis)."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.conftest import KEY, listening

from weft.server.served import Served


@pytest.mark.slow
def test_generated_requests_get_only_what_the_schema_promises(writer, table_run, ranking_run):
    runs = [Served(path, path.name) for path in (writer, table_run.path, ranking_run.path)]
    with listening(*runs, keys=[KEY]) as address:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", address + "/openapi.json", "-n", "15",
            "-H", f"Authorization: Bearer {KEY}", "--generation-deterministic",
            # a schema cannot say that a prompt fits the model, or that a column is one of the run's
            "--exclude-checks", "positive_data_acceptance",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:]
