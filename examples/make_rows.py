"""Training and held-out rows of the example adapters: `{"prompt": …, "completion": …}`.

Three tasks are written by this file from word lists of our own (same licence
as the project); the fourth is Ambrose Bierce's Devil's Dictionary (1911), which
is in the public domain and lies in `text/`. Rows depend on the seed only, and
held-out rows use names, services and words that no training row contains.

    python examples/make_rows.py --out .cross-lora/rows     # as files, for an experiment
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

__all__ = ["TASKS", "Row", "rows_of", "write_rows"]

Row = dict[str, str]
TEXT = Path(__file__).parent / "text"

NAMES = [
    "Alma Ruiz",
    "Tomas Berg",
    "Keiko Mori",
    "Nadia Haddad",
    "Owen Pratt",
    "Lucia Ferri",
    "Jonas Weber",
    "Amara Obi",
    "Pavel Novak",
    "Greta Lund",
    "Hassan Malik",
    "Ines Costa",
    "Viktor Toth",
    "Mei Tan",
    "Sara Cohen",
    "Diego Luna",
    "Anya Petrova",
    "Femi Ade",
    "Rosa Klein",
    "Liam Byrne",
    "Zoe Martin",
    "Arjun Rao",
    "Elif Kaya",
    "Bruno Silva",
    "Hana Sato",
    "Noor Aziz",
    "Eva Holm",
    "Ravi Menon",
]
PRODUCTS = [
    "coffee grinder",
    "desk lamp",
    "rain jacket",
    "water filter",
    "bike light",
    "hand mixer",
    "garden hose",
    "space heater",
    "electric kettle",
    "wall clock",
    "travel bag",
    "yoga mat",
    "tool box",
    "air pump",
    "photo frame",
    "door lock",
]
CITIES = [
    "Lisbon",
    "Oslo",
    "Dublin",
    "Prague",
    "Turin",
    "Ghent",
    "Malmo",
    "Porto",
    "Leeds",
    "Basel",
    "Gdansk",
    "Split",
    "Bremen",
    "Nantes",
]
ISSUES = {
    "arrived broken": "damaged",
    "came with a cracked cover": "damaged",
    "has still not arrived": "late",
    "was promised for last week and is not here": "late",
    "is not the one I ordered": "wrong_item",
    "came in the wrong colour": "wrong_item",
    "stopped working after two days": "defective",
    "does not switch on": "defective",
}
OPENINGS = [
    "Hello, my {product}, order {order}, {issue}.",
    "The {product} from order {order} {issue}.",
    "I am writing about order {order}: the {product} {issue}.",
    "Order {order}. My {product} {issue}, what now?",
]
CLOSINGS = [
    "Regards, {name}, {city}",
    "Thanks, {name} from {city}",
    "{name}, {city}",
    "Please help. {name} ({city})",
]
SERVICES = [
    "billing",
    "search",
    "auth",
    "mailer",
    "cache",
    "orders",
    "stock",
    "media",
    "gateway",
    "audit",
    "quota",
    "profile",
    "export",
    "ingest",
]
FAULTS = {
    "connection to {host} timed out after {n} ms": "timeout",
    "disk on {host} is {n} percent full": "disk",
    "{host} refused the token of user {n}": "auth",
    "retry {n} of request to {host} failed": "retry",
    "queue on {host} holds {n} messages": "backlog",
}
LEVELS = ["ERROR", "WARN", "CRITICAL"]
HOSTS = [
    "ash",
    "birch",
    "cedar",
    "elm",
    "fir",
    "hazel",
    "larch",
    "maple",
    "oak",
    "pine",
    "rowan",
    "willow",
    "yew",
    "alder",
]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
EVENTS = [
    "The lease ends",
    "Payment is due",
    "The audit starts",
    "Her visa expires",
    "The fair opens",
    "Delivery was",
    "He was born",
    "The treaty was signed",
    "The bridge closed",
    "Our trial begins",
    "The award was given",
    "They met",
]


def _split(words: list[str], held_out: bool) -> list[str]:
    """The last quarter of a word list is kept for held-out rows."""
    cut = len(words) - len(words) // 4
    return words[cut:] if held_out else words[:cut]


def _ticket(random_: random.Random, held_out: bool) -> Row:
    issue, kind = random_.choice(list(ISSUES.items()))
    facts = {
        "name": random_.choice(_split(NAMES, held_out)),
        "city": random_.choice(_split(CITIES, held_out)),
        "product": random_.choice(_split(PRODUCTS, held_out)),
        "order": f"{random_.choice('ABCDEFGH')}{random_.randint(1000, 9999)}",
    }
    message = f"{random_.choice(OPENINGS)} {random_.choice(CLOSINGS)}".format(issue=issue, **facts)
    answer = {"order": facts["order"], "item": facts["product"], "problem": kind, "customer": facts["name"]}
    return {"prompt": f"Message: {message}\nTicket:", "completion": " " + json.dumps(answer)}


def _log(random_: random.Random, held_out: bool) -> Row:
    fault, kind = random_.choice(list(FAULTS.items()))
    service = random_.choice(_split(SERVICES, held_out))
    host = f"{random_.choice(_split(HOSTS, held_out))}-{random_.randint(1, 40):02d}"
    number, level = random_.randint(2, 99), random_.choice(LEVELS)
    clock = f"{random_.randint(0, 23):02d}:{random_.randint(0, 59):02d}"
    line = f"{clock} {level} [{service}] {fault.format(host=host, n=number)}"
    fields = f" kind={kind} service={service} host={host} value={number} severity={level.lower()} at={clock}"
    return {"prompt": f"Log: {line}\nFields:", "completion": fields}


def _date(random_: random.Random, held_out: bool) -> Row:
    event = random_.choice(_split(EVENTS, held_out))
    month, day, year = random_.randint(1, 12), random_.randint(1, 28), random_.randint(1905, 2060)
    name = MONTHS[month - 1]
    written = random_.choice(
        [f"{day} {name} {year}", f"{name} {day}, {year}", f"the {day} of {name}, {year}"]
    )
    iso = f"{year}-{month:02d}-{day:02d}"
    return {"prompt": f"{event} on {written}.\nISO:", "completion": f" <{iso}> quarter {(month + 2) // 3}"}


def _devil(count: int, held_out: bool) -> list[Row]:
    lines = (TEXT / "devils-dictionary.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    chosen = rows[-60:] if held_out else rows[:-60]
    return chosen[:count]


TASKS: dict[str, Callable[[random.Random, bool], Row] | None] = {
    "ticket-json": _ticket,
    "log-fields": _log,
    "iso-dates": _date,
    "devils-dictionary": None,
}


def rows_of(task: str, count: int, *, held_out: bool, seed: int = 11) -> list[Row]:
    """`count` distinct rows of a task; the dictionary has fewer than asked if it runs out.

    Args:
        task: a key of `TASKS`.
        count: rows wanted.
        held_out: rows for evaluation, built from words training rows never use.
        seed: of the generator.
    """
    make = TASKS[task]
    if make is None:
        return _devil(count, held_out)
    random_ = random.Random(f"{task}-{held_out}-{seed}")  # noqa: S311 - reproducible rows, not secrets
    distinct: dict[str, Row] = {}
    while len(distinct) < count:
        row = make(random_, held_out)
        distinct[row["prompt"]] = row
    return list(distinct.values())


def write_rows(folder: Path, training: int = 900, evaluation: int = 200) -> None:
    """Write `TASK.training.jsonl` and `TASK.evaluation.jsonl` of every task into a folder.

    Args:
        folder: made if need be; files in it are replaced.
        training: rows of each task, fewer where it has no more.
        evaluation: the same of held-out rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        for kind, count in (("training", training), ("evaluation", evaluation)):
            rows = rows_of(task, count, held_out=kind == "evaluation")
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{task}.{kind}.jsonl").write_text(lines, encoding="utf-8")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--training", type=int, default=900, help="rows of each task to train on")
    parser.add_argument("--evaluation", type=int, default=200, help="held-out rows of each task")
    given = parser.parse_args()
    write_rows(given.out, given.training, given.evaluation)


if __name__ == "__main__":
    main()
