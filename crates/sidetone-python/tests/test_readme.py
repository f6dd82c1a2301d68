"""The programs in the READMEs are programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
READMES = [HERE / "README.md", HERE.parent.parent / "README.md"]
BLOCKS = [block for readme in READMES for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)]


@pytest.mark.parametrize("block", BLOCKS)
def test_it_compiles_and_uses_what_there_is(block: str) -> None:
    import audiosocket

    compile(block, "README.md", "exec")
    for name in re.findall(r"audiosocket\.([A-Za-z_]+)", block):
        assert hasattr(audiosocket, name)


def test_there_are_some() -> None:
    assert len(BLOCKS) >= 2
