"""What three kinds of users notice of a path while something is done to it: a transfer, questions, new connections.

All of it goes from the left to the right over real sockets; the kernels at both ends are the judges of every checksum.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, NamedTuple, Self

from fixer.lab.net import End

STREAM_PORT, QUESTION_PORT, VISIT_PORT = 7101, 7102, 7103
CHUNK, CHUNK_SECONDS = 16 << 10, 0.02
QUESTION_SECONDS, VISIT_SECONDS = 0.01, 0.05
PATIENCE_SECONDS = 40.0
"""What a connection may take before it counts as lost: a SYN is sent again after 1, 3, 7, 15 and 31 s."""
CLOSE_SECONDS = 0.1
"""What asyncio takes to close what it was told to close."""
LATE_SECONDS = 1.0
"""How long the last answer may be under way."""


class Visit(NamedTuple):
    """A connection of its own: opened, a line there and back, closed."""

    began: float
    seconds: float
    failure: str


class Noticed(NamedTuple):
    """What was noticed of a fault. Seconds are the longest that nothing came back after something had been sent."""

    asked: int
    unanswered: int
    pause: float
    """Of the questions: how long the path was closed."""
    visits: int
    lost: int
    """Connections, the transfer's included: refused, reset, timed out or with other bytes than were sent."""
    failures: str
    stall: float
    """Of the transfer, whose sender waits longer and longer before it tries again."""
    wait: float
    """The longest that a new connection took, whose first retransmission comes after a second."""
    size: int


def longest_wait(sent: Sequence[float], came: Sequence[float], until: float) -> float:
    """The most that passed between something that was sent and the next sign of life; both in order."""
    longest = 0.0
    for when in sent:
        at = bisect_left(came, when)
        longest = max(longest, (came[at] if at < len(came) else until) - when)
    return longest


class Load:
    """The traffic, from the beginning of the context until ``finish``."""

    def __init__(self, left: End, right: End) -> None:
        self._left = left
        self._right = right
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._chunks_sent: list[float] = []
        self._chunks_came: list[float] = []
        self._asked: list[float] = []
        self._answered: dict[int, float] = {}
        self._visits: list[Visit] = []
        self._another = threading.Event()
        self._broken: list[str] = []
        self._finished = 0.0
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        listening = threading.Event()
        self._served = threading.Event()
        self._start(self._right, lambda: self._serve(listening))
        assert listening.wait(10), self._failure
        self._start(self._left, self._use)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._served.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def goes_on(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Return once there was another answer, another chunk and another visit; an assertion fails if there is not."""
        began = time.monotonic()
        while not (
            any(visit.began >= began for visit in self._visits[-5:] if not visit.failure)
            and self._chunks_came[-1:] > [began]
            and max(list(self._answered.values())[-1:], default=0) > began
        ):
            assert self._failure is None, self._failure
            assert time.monotonic() < began + seconds, "the traffic does not go on"
            time.sleep(0.02)

    def another_transfer(self) -> None:
        """End the one that is under way, which is judged as the last one is, and begin another."""
        self._another.set()

    def finish(self) -> None:
        """Let all end that has begun."""
        self._over.set()
        self._threads[-1].join()
        assert self._failure is None, self._failure
        self._finished = time.monotonic()

    def noticed(self, since: float, until: float = float("inf")) -> Noticed:
        """Of what was sent from one moment (monotonic) to the other; once it has finished."""
        questions = [number for number, when in enumerate(self._asked) if since <= when < until]
        answers = sorted(self._answered.values())
        visits = [visit for visit in self._visits if since <= visit.began < until]
        failures = [visit.failure for visit in visits if visit.failure] + self._broken
        # What was sent last is not waited for: nothing is sent after it.
        last = self._asked[-1] - 4 * QUESTION_SECONDS
        return Noticed(
            asked=len(questions),
            unanswered=sum(number not in self._answered for number in questions),
            pause=longest_wait([self._asked[each] for each in questions if self._asked[each] < last], answers, last),
            visits=len(visits),
            lost=len(failures),
            failures="; ".join(sorted(set(failures))),
            stall=longest_wait(
                [each for each in self._chunks_sent if each >= since], self._chunks_came, self._finished
            ),
            wait=max((visit.seconds for visit in visits), default=0.0),
            size=len(self._chunks_sent) * CHUNK,
        )

    def figures(self) -> tuple[int, int, int]:
        """Questions, answers, and visits that failed, so far."""
        return len(self._asked), len(self._answered), sum(visit.failure != "" for visit in list(self._visits))

    def forget(self) -> None:
        """What went well so far, that a long run needs no memory for it."""
        for at in range(len(self._visits) - 100, -1, -1):
            if not self._visits[at].failure:
                del self._visits[at]
        for times in (self._chunks_sent, self._chunks_came):
            del times[:-100]

    def _start(self, here: End, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def run() -> None:
            try:
                here.host.enter_netns(here.name)
                asyncio.run(main())
            except BaseException as failure:
                self._failure = failure

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    # --- on the right ---

    async def _serve(self, listening: threading.Event) -> None:
        class Echo(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, address: Any) -> None:
                self.transport.sendto(data, address)

        loop = asyncio.get_running_loop()
        echo, _ = await loop.create_datagram_endpoint(Echo, (self._right.overlay4, QUESTION_PORT))
        streams = await asyncio.start_server(self._take, self._right.overlay4, STREAM_PORT)
        visits = await asyncio.start_server(self._answer, self._right.overlay4, VISIT_PORT, backlog=1024)
        listening.set()
        while not self._served.is_set():
            await asyncio.sleep(0.05)
        streams.close()
        visits.close()
        echo.close()
        await asyncio.sleep(CLOSE_SECONDS)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        try:
            while data := await reader.read(1 << 16):
                digest.update(data)
                self._chunks_came.append(time.monotonic())
            writer.write(digest.hexdigest().encode())
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await reader.readline())
            await writer.drain()
        except OSError:
            pass  # who asked has counted it as lost
        finally:
            writer.close()

    # --- on the left ---

    async def _use(self) -> None:
        await asyncio.gather(self._stream(), self._ask(), self._visit_all())
        await asyncio.sleep(CLOSE_SECONDS)

    async def _stream(self) -> None:
        while not self._over.is_set():
            self._another.clear()
            failure = await self._transfer()
            self._broken += [f"the transfer: {failure}"] * bool(failure)

    async def _transfer(self) -> str:
        """One, until it is to end; why it failed, if it did."""
        noise, digest, writer = Random(16), hashlib.sha256(), None
        try:
            reader, writer = await asyncio.open_connection(self._right.overlay4, STREAM_PORT)
            while not (self._over.is_set() or self._another.is_set()):
                if writer.transport.get_write_buffer_size() <= CHUNK:
                    chunk = noise.randbytes(CHUNK)
                    digest.update(chunk)
                    self._chunks_sent.append(time.monotonic())
                    writer.write(chunk)
                await asyncio.sleep(CHUNK_SECONDS)
            writer.write_eof()
            said = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
            return "" if said.decode() == digest.hexdigest() else "another sha256 arrived"
        except OSError as error:  # TimeoutError is one
            return str(error) or type(error).__name__
        finally:
            if writer:
                writer.close()

    async def _ask(self) -> None:
        answered = self._answered

        class Answers(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _address: Any) -> None:
                answered.setdefault(int(data), time.monotonic())

        loop = asyncio.get_running_loop()
        socket, _ = await loop.create_datagram_endpoint(Answers, remote_addr=(self._right.overlay4, QUESTION_PORT))
        due = time.monotonic()
        while not self._over.is_set():
            self._asked.append(time.monotonic())
            socket.sendto(b"%d" % (len(self._asked) - 1))
            due = max(due + QUESTION_SECONDS, time.monotonic() - QUESTION_SECONDS)
            await asyncio.sleep(due - time.monotonic())
        await asyncio.sleep(LATE_SECONDS)
        socket.close()

    async def _visit_all(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._over.is_set():
            visit = asyncio.create_task(self._visit())
            under_way.add(visit)
            visit.add_done_callback(under_way.discard)
            due = max(due + VISIT_SECONDS, time.monotonic() - VISIT_SECONDS)
            await asyncio.sleep(due - time.monotonic())
        await asyncio.gather(*under_way)

    async def _visit(self) -> None:
        began, failure = time.monotonic(), ""
        line = b"%f\n" % began
        writer = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await asyncio.open_connection(self._right.overlay4, VISIT_PORT)
                writer.write(line)
                if await reader.readline() != line:
                    failure = "another line came back"
        except OSError as error:  # TimeoutError is one
            failure = str(error) or "timed out"
        finally:
            if writer:
                writer.close()
        self._visits.append(Visit(began, time.monotonic() - began, failure))
