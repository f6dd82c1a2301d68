"""Where a server's CPU time goes, from the chains of calls that perf caught it in."""

import re
import subprocess
from collections import Counter

from .measure import pinned

# The first of these that any function of a chain matches takes the sample. What a send delivers at once to the other
# side of the loopback is in its own chain, and so is whatever wakes that side.
KERNEL = [
    ("TCP: delivery to the other side, billed to the sender", re.compile("net_rx_action")),
    ("TCP: sending", re.compile("sock_sendmsg|__sys_send")),
    ("TCP: receiving", re.compile("sock_recvmsg|__sys_recv|sock_read_iter")),
    ("changes of thread: futexes, being put aside", re.compile("futex|exit_to_user_mode_loop|ret_from_fork|sched_yield")),
    ("io_uring or epoll, waiting included", re.compile("io_uring|io_cqring|epoll|^ep_")),
]
REST_OF_KERNEL = "kernel: entering it, interrupts, the rest"
COPIES = "libc: copying"
MEDIA, WORKER, OTHER = "media thread", "worker thread", "other threads"
# Names of threads, of which the kernel keeps 15 letters.
THREADS = {"sidetone-media-": MEDIA, "sidetone-callba": WORKER}
# Modules with less than this share everywhere are not told apart.
LEAST = 0.01

FRAME = re.compile(r"^\s+[0-9a-f]+ (?P<function>.*) \((?P<object>.*)\)$")
# The module of a function's or a type's path.
MODULE = re.compile(r"sidetone\w*(::[a-z_0-9]+)*(?=::)")


def record(pid, seconds, file, cpu):
    """With a clock, for most virtual machines hide the hardware's counters. perf has a CPU of its own and the
    priority of all others, or it comes too late to take all samples."""
    words = ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", 1999, "-g", "--pid", pid]
    subprocess.run(pinned(cpu, [*words, "--output", file, "--", "sleep", seconds]), check=True)


def samples(file):
    """How many there are of each kind."""
    words = ["perf", "script", "--input", file, "--fields", "comm,ip,sym,dso"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as script:
        counts, thread, chain = Counter(), None, []
        for line in script.stdout:
            if found := FRAME.match(line):
                chain.append((found["function"], found["object"]))
            elif line.strip():
                thread = line.strip()
            elif chain:
                counts[kind(thread, chain)] += 1
                chain = []
    return counts


def kind(thread, chain):
    function, file = chain[0]
    if file == "[kernel.kallsyms]":
        kernel = [function for function, file in chain if file == "[kernel.kallsyms]"]
        return next((name for name, pattern in KERNEL if any(map(pattern.search, kernel))), REST_OF_KERNEL)
    if "libc" in file and "mem" in function:
        return COPIES
    thread = THREADS.get(thread, OTHER)
    module = MODULE.search(function)
    return f"{thread}: `{module[0]}`" if module else f"{thread}: the rest"


def by_part(all_counts):
    """The same counts, with the modules that are small in all of them put together."""
    names = {name for counts in all_counts for name in counts}
    small = {name for name in names if "`" in name and all(counts[name] < LEAST * counts.total() for counts in all_counts)}
    return [put_together(counts, small) for counts in all_counts]


def put_together(counts, small):
    together = Counter()
    for name, count in counts.items():
        together[f"{name.split(':')[0]}: the rest" if name in small else name] += count
    return together


def in_order(names):
    """The kernel's, in the order above; then copies; then ours, thread by thread."""
    first = [*(name for name, _ in KERNEL), REST_OF_KERNEL, COPIES]
    threads = [MEDIA, WORKER, OTHER]

    def place(name):
        if name in first:
            return (first.index(name),)
        return len(first), threads.index(name.split(":")[0]), name.endswith("the rest"), name

    return sorted(names, key=place)
