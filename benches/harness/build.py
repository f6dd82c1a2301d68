"""Builds and installs all that is measured, and what it is measured with."""

import shutil
import subprocess
import sys
from pathlib import Path

from .catalogue import ASYNCIO, GO_PEER, NODE_PEER, RUST_PEER, UVLOOP
from .places import BENCHES, CARGO_TARGET, CLIP, FLOORS, GO, GO_PROGRAM, NODE, PROGRAMS, ROOT, VENV

CLIP_SECONDS = 60
CARGO = ["cargo", "build", "--release", "--target-dir", CARGO_TARGET]


def load_and_ours():
    must(["cargo", "build", "--release", "--package", "sidetone-cli"], cwd=ROOT)
    must(CARGO, cwd=BENCHES / "ours")
    must([PROGRAMS / "make_clip", CLIP, CLIP_SECONDS])


def floors():
    FLOORS.mkdir(parents=True, exist_ok=True)
    for source in sorted((BENCHES / "floors").glob("*.c")):
        must(["gcc", "-O2", "-Wall", "-Wextra", "-std=gnu17", "-o", FLOORS / source.stem, source])


def peers():
    """The reasons why some are missing, by name."""
    missing = {}
    sources = BENCHES / "peers"
    if problem := may(CARGO, cwd=sources / "rust-audiosocket"):
        missing[RUST_PEER] = problem
    if problem := may([sys.executable, "-m", "venv", VENV]):
        missing[ASYNCIO] = missing[UVLOOP] = problem
    elif problem := may([VENV / "bin" / "pip", "install", "--quiet", "uvloop"]):
        missing[UVLOOP] = problem
    shutil.copytree(sources / "node", NODE, dirs_exist_ok=True)
    if problem := may(["npm", "install", "--silent", "--no-audit"], cwd=NODE):
        missing[NODE_PEER] = problem
    shutil.copytree(sources / "go-audiosocket", GO, dirs_exist_ok=True)
    if problem := may(["go", "build", "-mod=mod", "-o", GO_PROGRAM, "."], cwd=GO):
        missing[GO_PEER] = problem
    return missing


def must(words, **options):
    print("building:", *(Path(str(word)).name for word in words), file=sys.stderr)
    subprocess.run([str(word) for word in words], check=True, **options)


def may(words, **options):
    """Why it failed, if it did."""
    program = str(words[0])
    if not shutil.which(program):
        return f"`{Path(program).name}` is not installed"
    try:
        must(words, stdout=subprocess.DEVNULL, **options)
    except subprocess.CalledProcessError:
        return f"`{Path(program).name} {words[1]}` failed"
    return None
