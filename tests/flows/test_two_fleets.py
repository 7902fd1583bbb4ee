"""Two fleets at once over one pair of bases, in processes of their own: what they share is computed once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from cross_lora_core.catalog import Catalog
from cross_lora_core.migration import MigrationRequest
from cross_lora_core.settings import load_settings
from tests.support.servers import start

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home")]


def test_two_processes_never_compute_the_same_twice(fleet, home, tmp_path: Path):
    counts, processes = tmp_path / "counts", []
    environment = {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
        "CROSS_LORA_HOME": str(home),
        "CROSS_LORA_GROUP_BYTES": str(2**17),
        "CROSS_LORA_WORKERS": "2",
    }
    for name in ("plain", "wide"):
        request = MigrationRequest(
            source=str(fleet.source), targets=[str(fleet.target)], adapters=[fleet.adapter(name)], rank=12
        )
        file = tmp_path / f"{name}.json"
        file.write_text(request.model_dump_json())
        command = [sys.executable, "-m", "tests.support.counted_migration", str(file), str(counts)]
        processes.append(start(command, tmp_path / f"{name}.log", env=environment))
    ended = [process.wait(timeout=300) for process in processes]
    assert ended == [0, 0], [path.read_text()[-2000:] for path in tmp_path.glob("*.log")]
    lines = [line.split() for line in counts.read_text().splitlines()]
    computed = Counter(name for _, name in lines)
    with Catalog.open(load_settings().catalog_url).begin() as work:
        stored = [one for base in work.bases() for one in work.factor_sets_of(base.digest)]
    assert len(stored) == computed["factorize_layers"] > 2
    assert computed["align_landings"] == len(list((home / "store" / "alignments").rglob("*.safetensors")))
    assert all(one.seconds is not None for one in stored)
    assert len({process for process, _ in lines}) == 2, "they did not run at once: this proves nothing"
