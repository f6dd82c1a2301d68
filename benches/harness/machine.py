"""What stands above all figures: when they were taken, of what, on what."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

from .places import ROOT


def machine():
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": said(["git", "describe", "--always", "--dirty"]),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "python": platform.python_version(),
        "node": said(["node", "--version"]),
        "rustc": said(["rustc", "--version"]),
    }


def cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def said(words):
    try:
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return None


def sentence(head):
    """The same for a reader."""
    return (
        f"on {head['cores']} cores of {head['cpu']}, Linux {head['kernel']}, {head['rustc']}, Python {head['python']}, "
        f"Node {head['node']}, TCP with {head['congestion_control']}"
    )
