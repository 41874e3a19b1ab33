"""Output of a durable process at 1 MB/s, followed over the API: what is lost, and how late it comes.

A process inside prints a record of 10,000 bytes every 10 ms: its number, the time, and filling. Just
before, it sends number and time over a raw socket that we have opened into the sandbox: that is the
floor. By how much later a record is whole at a reader of the API than its number at that socket is the
added latency. Both are noted by one clock, so it does not matter how the clock inside differs from it.
The whole latency does depend on that: the difference is bounded by asking for the time over the raw
socket, hundreds of times.

A terminal's echo is a key's way to the terminal inside and back, over a WebSocket, beside an exec in turns.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import closing

from websockets.sync.client import connect as open_websocket

from bench.crowd import born
from bench.floor import connect
from bench.section import Bench
from bench.table import Row, Series, at_least, at_most, at_most_floor_plus, row
from runtools.platform.kit.config import load
from runtools.sdk import shapes
from runtools.sdk.settings import resolve
from runtools.sdk.shapes.processes import TERMINAL_PROTOCOL
from runtools.sdk.sync.sandbox import Sandbox
from runtools.sdk.sync.transport import Transport

RECORD = 10_000
EVERY_SECONDS = 0.01
READERS = 20
PINGS = 300
PORT = 7001
PRINTER = """
import socket, sys, time
count, size, every, port = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
import os
with socket.create_server(("0.0.0.0", port)) as listener:
    os.write(1, b"ready\\n")
    raw = listener.accept()[0]
raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def tell():
    while raw.recv(1) == b"t":
        raw.sendall(b"%020.6f" % time.time())
tell()
began = time.monotonic()
for n in range(count):
    time.sleep(max(0, began + n * every - time.monotonic()))
    head = b"%012d %020.6f " % (n, time.time())
    raw.sendall(head)
    data = head.ljust(size, b".")
    while data:
        data = data[os.write(1, data):]
tell()
"""
READY = len(b"ready\n")
HEAD = 34


class Output:
    """A process in a sandbox, and its output from the API."""

    def __init__(self, path: str) -> None:
        self._path = path

    def pieces(self) -> Iterator[tuple[float, bytes]]:
        """Each piece, and when it came. Fails when one begins elsewhere than where the last ended."""
        at = READY
        with closing(Transport(resolve(), retry_seconds=10)) as transport:
            for event in transport.follow(f"{self._path}/follow", query=[("offset", at)]):
                came, item = time.time(), json.loads(event.data)
                if item["offset"] != at:
                    raise AssertionError(f"followed to {at}, then came {item['offset']}")
                if event.name == "end":
                    return
                data = base64.b64decode(item["data"])
                at += len(data)
                yield came, data

    def records(self) -> list[float]:
        """When each record was whole; fails when one is another than was printed."""
        rest, whole = b"", []
        for came, data in self.pieces():
            rest += data
            while len(rest) >= RECORD:
                record, rest = rest[:RECORD], rest[RECORD:]
                number, _, filling = record.split(b" ", 2)
                if int(number) != len(whole) or filling.strip(b"."):
                    raise AssertionError(f"record {len(whole)} is another")
                whole.append(came)
        return whole


class Raw:
    """A socket into the sandbox, past all of the platform."""

    def __init__(self, box: Sandbox) -> None:
        journal = load().host_home / "sandboxes" / box.id / "machine.json"
        namespace = json.loads(journal.read_text())["life"]["slot"]["namespace"]
        self._sock = connect(namespace, PORT)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def clock(self) -> tuple[float, float]:
        """The least and the most by which the clock inside can be ahead of ours."""
        low, high = float("-inf"), float("inf")
        for _ in range(PINGS):
            sent = time.time()
            self._sock.sendall(b"t")
            told = float(self._read(20))
            low, high = max(low, told - time.time()), min(high, told - sent)
        return low, high

    def go(self, count: int) -> list[tuple[float, float]]:
        """Have it print; when each number was sent by its clock, and came by ours."""
        self._sock.sendall(b"g")
        return [(float(self._read(HEAD)[13:33]), time.time()) for _ in range(count)]

    def close(self) -> None:
        """It need not tell the time any more."""
        self._sock.close()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._sock.recv(count - len(data))
            assert piece, "the process inside hung up"
            data += piece
        return data


def measure(bench: Bench) -> Iterator[Row]:
    """One reader, then many, then a terminal."""
    with born(bench.rt) as box:
        for readers in (1, READERS):
            yield from followed(box, 10 if bench.quick else 60, readers)
        yield echoed(box, bench.rounds * 20)


def followed(box: Sandbox, seconds: int, readers: int) -> Iterator[Row]:
    """So many readers of one process; each has every record in order, or is said to have lost bytes."""
    count = int(seconds / EVERY_SECONDS)
    words = [PRINTER, str(count), str(RECORD), str(EVERY_SECONDS), str(PORT)]
    process = box.processes.start(["python3", "-uc", *words], keep_output_bytes=1 << 28)
    assert next(process.follow()) == b"ready\n"
    output = Output(f"/sandboxes/{box.id}/processes/{process.id}")
    raw = Raw(box)
    before = raw.clock()
    # Readers elsewhere share no interpreter; here they share the processors, which is hard enough.
    spawned = multiprocessing.get_context("spawn")
    with spawned.Pool(readers) as pool:
        pool.map(_ready, range(readers), chunksize=1)
        reading = [pool.apply_async(output.records) for _ in range(readers)]
        began = time.time()
        sent = raw.go(count)
        after = raw.clock()
        raw.close()
        came = [one.get() for one in reading]
    who = "one reader" if readers == 1 else f"{readers} readers"
    ours, bare, added, lost, rates = (Series() for _ in range(5))
    low, high = (max(before[0], after[0]), min(before[1], after[1]))
    ahead = (low + high) / 2
    for whole in came:
        lost.values.append((count - len(whole)) * RECORD)
        rates.values.append(len(whole) * RECORD / 1e6 / (whole[-1] - began))
        for there, (printed, here) in zip(whole, sent, strict=False):
            ours.values.append((there - printed + ahead) * 1000)
            added.values.append((there - here) * 1000)
    bare.values = [(here - printed + ahead) * 1000 for printed, here in sent]
    yield row(f"clock inside known to ±, {who}", Series([abs(high - low) / 2 * 1000]))
    yield row(f"output at 1 MB/s, {who}: latency", ours, bare)
    bounds = [at_most(10)] if readers == 1 else []
    yield row(f"… latency added to a raw socket's, {who}", added, wanted=bounds)
    lost_in_all = Series([sum(lost.values)])
    yield row(f"… bytes lost, {who}", lost_in_all, unit="B", wanted=[at_most(0)])
    slowest = Series([min(rates.values)])
    printer = Series(
        [count * RECORD / 1e6 / (sent[-1][1] - began)]
    )  # on a busy machine less than 1
    bounds = [at_least(0.98 * RECORD / EVERY_SECONDS / 1e6)]
    yield row(f"… rate, the slowest of {who}", slowest, printer, unit="MB/s", wanted=bounds)


def _ready(_: int) -> None:
    time.sleep(0.1)  # long enough that none is given two


def echoed(box: Sandbox, rounds: int) -> Row:
    """A key and a command, in turns."""
    settings = resolve()
    process = box.processes.start(["sleep", "3600"], terminal=shapes.TerminalSize())
    path = f"/v1/sandboxes/{box.id}/processes/{process.id}/terminal"
    key = {"Authorization": f"Bearer {settings.api_key}"}
    keys, execs = Series(), Series()
    url = settings.url.replace("http", "ws", 1) + path
    with open_websocket(url, additional_headers=key, subprotocols=[TERMINAL_PROTOCOL]) as sock:
        assert json.loads(sock.recv())["type"] == "start"

        def press() -> None:
            sock.send(b"x")
            while not isinstance(said := sock.recv(), bytes):  # beside it comes that it was taken
                pass
            assert said == b"x"

        for _ in range(20):  # the emulator warms up
            press()
            box.exec("true")
        for _ in range(rounds):
            keys.time(press)
            execs.time(lambda: box.exec("true"))
    process.kill()
    return row(
        "a key echoed by a terminal, beside an exec", keys, execs, wanted=[at_most_floor_plus(5)]
    )
