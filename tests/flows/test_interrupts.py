"""Control-C gets through, whoever swallows it."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest
from prefect import flow

from flows.interrupts import noticing_interrupts


@pytest.fixture(autouse=True)
def _heeded():
    """An interrupt as at a terminal: whoever runs the suite as a script's background job has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_was_swallowed_is_raised_at_the_end():
    before, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), noticing_interrupts():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_raised_where_it_comes():
    with pytest.raises(KeyboardInterrupt), noticing_interrupts():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("not interrupted")


def test_without_one_nothing_is_raised_and_an_ignored_one_stays_ignored():
    with noticing_interrupts():
        pass
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noticing_interrupts():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_prefect_drops_one_that_comes_while_it_closes_a_run():
    """If this fails without the block around it, Prefect has mended that, and the block may go."""

    @flow(on_completion=[lambda *_: signal.raise_signal(signal.SIGINT)])
    def done() -> int:
        return 1

    assert done() == 1
    with pytest.raises(KeyboardInterrupt), noticing_interrupts():
        done()
