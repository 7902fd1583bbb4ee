"""What a worker starts for a flow run, with the journal: `python -m tests.survival.flow_run`."""

from __future__ import annotations

import runpy

from tests.survival import journal

if __name__ == "__main__":
    journal.install()
    runpy.run_module("prefect.engine", run_name="__main__")
