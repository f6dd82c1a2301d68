"""Measures one server under one load."""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from .catalogue import BLOCKED, LOOPS, OURS
from .places import CLIP, LOAD

# Our media threads ask for this priority. Where they get it, everybody else has it from the beginning: who goes
# first on a busy CPU is not what is compared.
EQUAL = ["nice", "-n", "-11"] if os.geteuid() == 0 else []

# The load measures for so long before and after the time in which a server's allocations are counted.
MARGIN = 1.0
# What a load may need beyond the times that it was told, in seconds: connecting, waiting for lost frames.
PATIENCE = 60


def measure(server, scenario, cpu, warm_up, seconds):
    """The load's report, or what went wrong. `cpu` is the load's."""
    server_cpu = cpu if scenario.shared else 1 - cpu
    counted = scenario.allocations and server.role == OURS
    measured = seconds + 2 * MARGIN if counted else seconds
    with busy_loops(server_cpu, LOOPS if scenario.task == "block" else 0):
        pipe = subprocess.PIPE if counted else subprocess.DEVNULL
        with serving(server.does[scenario.task], scenario.task, server_cpu, pipe) as (process, port):
            if port is None:
                return {"failed": "the server did not begin to listen"}
            times = ["--warm-up", warm_up, "--seconds", measured]
            load = start_load(port, process.pid, cpu, [*times, *scenario.load])
            try:
                # Calls are connected one after the other; most of the margin is left then.
                allocated = count_allocations(process, warm_up + MARGIN, seconds) if counted else None
                report, errors = load.communicate(timeout=warm_up + measured + PATIENCE)
            except subprocess.TimeoutExpired:
                return {"failed": "the load did not end"}
            finally:
                end(load)
    # 1 says that something is wrong with the server's frames; what, is in the report.
    if load.returncode > 1:
        return {"failed": errors.strip()}
    report = json.loads(report)
    if counted:
        report["server"]["allocations"] = allocated
    return report


@contextlib.contextmanager
def serving(command, task, cpu, pipe=subprocess.DEVNULL):
    """A server's process and its port, which is None if it did not begin to listen."""
    port = free_port()
    more = {"play": [CLIP], "block": [CLIP, BLOCKED]}.get(task, [])
    allow_descriptors()
    words = pinned(cpu, [*command, port, *more])
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    try:
        yield process, port if listening(port, process) else None
    finally:
        end(process)


def start_load(port, pid, cpu, words):
    words = [LOAD, "load", f"127.0.0.1:{port}", "--json", "--pid", pid, *words]
    return subprocess.Popen(pinned(cpu, words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def count_allocations(process, before, seconds):
    """What a server allocates in so many seconds, after so many before."""
    time.sleep(before)
    earlier = allocations(process)
    time.sleep(seconds)
    return allocations(process) - earlier


def allocations(process):
    """Our servers answer each line with how often the process has allocated until then."""
    process.stdin.write(b"\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@contextlib.contextmanager
def busy_loops(cpu, count):
    words = pinned(cpu, [sys.executable, "-c", "while True: pass"])[len(EQUAL) :]
    loops = [subprocess.Popen(words) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            end(loop)


def end(process):
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def pinned(cpu, words):
    return [*EQUAL, "taskset", "--cpu-list", str(cpu), *(str(word) for word in words)]


def allow_descriptors():
    """Not every peer raises its limit itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port, server):
    """Looked up, not tried, for some servers take every connection for a call."""
    for _ in range(200):
        listens = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        if any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in listens):
            return True
        if server.poll() is not None:
            return False
        time.sleep(0.05)
    return False


def cpu_ticks():
    """All CPUs' time by its use."""
    return [int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]


def stolen(before, after):
    """What the host kept for itself or gave to others, in per cent of all CPUs' time."""
    spent = [late - early for early, late in zip(before, after)]
    return round(100 * spent[7] / max(1, sum(spent)), 2)
