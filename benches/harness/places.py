"""Where everything is."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BENCHES = ROOT / "benches"
RESULTS = BENCHES / "results"
DOCUMENT = ROOT / "BENCHMARKS.md"

# All that is built or installed for the measurements.
TARGET = ROOT / "target" / "bench"
CARGO_TARGET = TARGET / "cargo"
PROGRAMS = CARGO_TARGET / "release"
FLOORS = TARGET / "floors"
VENV = TARGET / "venv"
NODE = TARGET / "node"
GO = TARGET / "go"
GO_PROGRAM = TARGET / "go-audiosocket"
CLIP = TARGET / "clip.sln"

# The binary that is measured with.
LOAD = ROOT / "target" / "release" / "sidetone"
