"""Work done ahead in threads, so that decoding and reading hide behind the expert's arithmetic.

Threads, not processes: decoders, NumPy and PyTorch let other threads run, nothing is copied, and any notebook can start them.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Self, TypeVar

import torch
from threadpoolctl import threadpool_limits

In, Out = TypeVar("In"), TypeVar("Out")


def decode_threads(workers: int | None = None) -> int:
    """Threads that decode films: ``workers`` where it is given; else 8 beside a GPU, 1 on a CPU: its cores are the expert's."""
    if workers is None:
        return min(8, os.cpu_count() or 1) if torch.cuda.is_available() else 1
    if workers < 0:
        raise ValueError(f"workers={workers} must be 0 (no threads) or more")
    return workers


def few_cores(cores: int = 1) -> None:
    """How a thread begins that works beside others, on so many cores."""
    torch.get_num_threads()  # sets this thread's share of cores; only what is set after that lasts
    threadpool_limits(cores, user_api="openmp")  # films go side by side: one film on many cores would only get in the way


def ahead(function: Callable[[In], Out], items: Iterable[In], threads: int) -> Iterator[Out]:
    """``map(function, items)`` in order, computed by ``threads`` threads at most ``2 * threads`` items ahead; 0: no threads."""
    if threads == 0:
        yield from map(function, items)
        return
    pool, pending = ThreadPoolExecutor(threads, "medbridge-ahead", few_cores), deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prefetch(items: Iterable[Out]) -> Iterator[Out]:
    """The same items, taken two ahead by one thread on one core: the next batch is made while this one is computed."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "medbridge-prefetch", few_cores) as pool:
        pending = deque(pool.submit(next, iterator, end) for _ in range(2))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, iterator, end))
                yield item
        finally:
            for future in pending:
                future.cancel()
            if hasattr(iterator, "close"):
                pool.submit(iterator.close)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """The caller's arithmetic on so many cores, MKL's of all threads too; on one its last bits are those of every machine's."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_threads(device: torch.device) -> int:
    """Threads of arithmetic that the processor has for work on a device; a GPU's is led by one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


class SideBySide:
    """Runs pieces of arithmetic side by side, each on cores of its own; in a ``with`` block.

    How many cores there are changes the time and not the result, and nobody waits for another's threads after each small product,
    which takes very long on a machine that others use. With one thread, or one piece, each runs where it is called, on all cores.

    Args:
        pieces: most pieces that have something to do at once. threads: cores to share out, as many to each.
    """

    def __init__(self, pieces: int, threads: int) -> None:
        self.count = min(pieces, threads)
        self.cores = threads // self.count
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future] = deque()
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        if self.count > 1:
            self._exit.enter_context(on_cores(self.cores))
            self._pool = ThreadPoolExecutor(self.count, "medbridge-side", few_cores, (self.cores,))
            self._exit.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def start(self, piece: Callable[[], object]) -> None:
        """Begin a piece; its fault is raised by :meth:`wait`, or here where it runs here."""
        if self._pool:
            self._pending.append(self._pool.submit(piece))
        else:
            piece()

    def wait(self, left: int = 0) -> None:
        """Until at most ``left`` pieces are under way."""
        while len(self._pending) > left:
            self._pending.popleft().result()
