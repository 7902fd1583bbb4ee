"""What a step costs: time, and the peak of this process since the meter was made."""

from __future__ import annotations

import re
import sys
import time

import pytest
import torch

from cross_lora_core.experiments import Meter, machine

SIZE = 200 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a peak begin anew")
def test_the_peak_is_that_since_the_meter_was_made():
    before = Meter().read().peak_bytes
    meter = Meter()
    block = torch.ones(SIZE // 4)
    assert float(block.sum()) == SIZE // 4
    assert meter.read().peak_bytes > before + SIZE // 2
    del block
    assert meter.read().peak_bytes > before + SIZE // 2
    assert Meter().read().peak_bytes < before + SIZE // 2


def test_time():
    meter = Meter()
    time.sleep(0.02)
    assert 0.02 <= meter.read().seconds < 10


def test_the_machine_says_what_a_time_depends_on():
    told = machine(torch.device("cpu"))
    version = torch.__version__.split("+")[0]
    assert re.match(rf"cpu \w+, \d+ threads?, torch {re.escape(version)}", told)
    assert f"python {sys.version_info.major}.{sys.version_info.minor}" in told
    assert "cores" in told
