"""A process that has imported everything and forks one real command-line process per order.

Usage: python -m tests.survival.forking, orders on stdin, answers on stdout, one JSON document a line:
`{"program": name, "arguments": […], "environment": {…}, "output": file, "errors": file}` answers `{"pid": n}`;
`{"wait": n}` answers `{"code": n}`, negative for a signal.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from cross_lora_core.settings import load_settings
from flows.embedded import configure_prefect

configure_prefect(load_settings(), verbose=True)  # Prefect reads its settings when it is imported

import peft  # noqa: E402, F401  # the slow ones, before the first fork
import prefect.cli  # noqa: E402
import transformers.models.auto.modeling_auto  # noqa: E402, F401

import flows.cli  # noqa: E402
import flows.commands.terminal  # noqa: E402
import flows.migrate_fleet  # noqa: E402
import flows.zombies  # noqa: E402
from tests.survival import journal  # noqa: E402

SILENCE_SECONDS = 3.0


def free_dead_runs() -> None:
    """What the deployment resume-dead-runs does, without the minutes of silence it waits for."""
    freed = flows.zombies.free_dead_runs(silent_seconds=SILENCE_SECONDS, attempts=3)
    print(json.dumps([asdict(one) for one in freed]), flush=True)


PROGRAMS = {"cross-lora": flows.cli.main, "prefect": prefect.cli.app, "free-dead-runs": free_dead_runs}


def answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def run(order: dict[str, Any]) -> None:
    """In the child: become the command line, at the head of a session of its own."""
    os.setsid()
    for descriptor, path in ((0, os.devnull), (1, order["output"]), (2, order["errors"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
    os.environ.update(order["environment"])
    if journal.VARIABLE in order["environment"]:
        journal.install()
    sys.argv = [order["program"], *order["arguments"]]
    PROGRAMS[order["program"]]()
    sys.exit(0)


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer({"code": os.waitstatus_to_exitcode(status)})
            continue
        pid = os.fork()
        if pid == 0:
            run(order)
        answer({"pid": pid})


if __name__ == "__main__":
    serve()
