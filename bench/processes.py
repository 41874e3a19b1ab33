"""Output of a durable process at 1 MB/s, followed over the API: what is lost, and how late it comes.

A process inside prints a record of 10,000 bytes every 10 ms: its number, the time, and filling. A reader
takes the time at which it has a record whole. How the clock inside differs from ours is found beforehand by
a process that tells the time whenever it is sent a line: it was told between the sending and the coming of
the answer, so each round bounds the difference. The row of that says how far the latencies may be wrong.
"""

from __future__ import annotations

import base64
import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpx

from bench.crowd import born
from bench.section import Bench
from bench.table import Row, Series, at_least, at_most, row
from runtools.sdk.settings import Settings, resolve
from runtools.sdk.sync.sandbox import Sandbox
from runtools.sdk.sync.transport import Transport

RECORD = 10_000
EVERY_SECONDS = 0.01
READERS = 20
ROUNDS = 50
PRINTER = """
import os, sys, time
count, size, every = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
sys.stdin.readline()
began = time.monotonic()
for n in range(count):
    time.sleep(max(0, began + n * every - time.monotonic()))
    data = (b"%012d %020.6f " % (n, time.time())).ljust(size, b".")
    while data:
        data = data[os.write(1, data):]
"""
TELLER = "import os, sys, time\nfor _ in sys.stdin: os.write(1, b'%.6f' % time.time())"


class Output:
    """A process in a sandbox, and its output from the API."""

    def __init__(self, sandbox: Sandbox, *argv: str) -> None:
        self._settings: Settings = resolve()
        self._path = f"/sandboxes/{sandbox.id}/processes"
        body = {"command": ["python3", "-uc", *argv], "keepOutputBytes": 1 << 28}
        with closing(self._transport()) as transport:
            self._path += f"/{transport.call('POST', self._path, body=body).data['id']}"

    def _transport(self) -> Transport:
        return Transport(self._settings, retry_seconds=10)

    def line(self) -> None:
        """Send it a line."""
        self._post("input", b"\n")

    def close(self) -> None:
        """The end of its input."""
        self._post("input/close", b"")

    def _post(self, what: str, content: bytes) -> None:
        headers = {
            "Authorization": f"Bearer {self._settings.api_key}",
            "Idempotency-Key": f"bench-{time.monotonic_ns()}",
        }
        url = f"{self._settings.url}/v1{self._path}/{what}"
        httpx.post(url, content=content, headers=headers, timeout=60).raise_for_status()

    def pieces(self) -> Iterator[tuple[float, bytes]]:
        """Each piece, and when it came. Fails when one begins elsewhere than where the last ended."""
        at = 0
        with closing(self._transport()) as transport:
            for event in transport.follow(f"{self._path}/follow"):
                came, item = time.time(), json.loads(event.data)
                if item["offset"] != at:
                    raise AssertionError(f"followed to {at}, then came {item['offset']}")
                if event.name == "end":
                    return
                data = base64.b64decode(item["data"])
                at += len(data)
                yield came, data


def measure(bench: Bench) -> Iterator[Row]:
    """One reader, then many."""
    with born(bench.rt) as box:
        ahead, error = clock_of(box)
        yield row("clock inside known to ±", series(error * 1000))
        for readers in (1, READERS):
            yield from followed(box, 10 if bench.quick else 60, readers, ahead)


def followed(box: Sandbox, seconds: int, readers: int, ahead: float) -> Iterator[Row]:
    """So many readers of one process; each has every record in order, or is said to have lost bytes."""
    count = int(seconds / EVERY_SECONDS)
    output = Output(box, PRINTER, str(count), str(RECORD), str(EVERY_SECONDS))
    late, lost, ended = Series(), Series(), Series()

    def read() -> None:
        rest, seen, first, came = b"", 0, 0.0, 0.0
        try:
            for came, data in output.pieces():
                first = first or came
                rest += data
                while len(rest) >= RECORD:
                    record, rest = rest[:RECORD], rest[RECORD:]
                    number, stamp, filling = record.split(b" ", 2)
                    if int(number) != seen or filling.strip(b"."):
                        raise AssertionError(f"record {seen} is another")
                    seen += 1
                    late.values.append((came - float(stamp) + ahead) * 1000)
        finally:
            lost.values.append((count - seen) * RECORD)
            ended.values.append(seen * RECORD / 1e6 / max(came - first, 1e-9))

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    output.line()
    for thread in threads:
        thread.join()
    who = "one reader" if readers == 1 else f"{readers} readers"
    rate = 0.98 / EVERY_SECONDS * RECORD / 1e6
    bounds = [at_most(10)] if readers == 1 else []
    yield row(f"output at 1 MB/s, {who}: latency", late, wanted=bounds)
    yield row(f"… bytes lost, {who}", series(sum(lost.values)), unit="B", wanted=[at_most(0)])
    yield row(f"… rate, {who}", ended, unit="MB/s", wanted=[at_least(rate)])


def clock_of(box: Sandbox) -> tuple[float, float]:
    """By how many seconds the clock inside is ahead of ours, and how wrong that may be."""
    output = Output(box, TELLER)
    told: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def listen() -> None:
        for piece in output.pieces():
            told.put(piece)

    listener = threading.Thread(target=listen)
    listener.start()
    low, high = float("-inf"), float("inf")
    for _ in range(ROUNDS):
        sent = time.time()
        output.line()
        came, data = told.get(timeout=60)
        low, high = max(low, float(data) - came), min(high, float(data) - sent)
    output.close()
    listener.join()
    return (low + high) / 2, (high - low) / 2


def series(*values: float) -> Series:
    return Series([*values])
