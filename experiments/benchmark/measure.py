"""Measures rivals side by side: time in rounds, peak memory, machine load.

Seconds of one call are worth little on a shared machine: other jobs may double
them. Rivals that take turns (A B C A B C ...) share that noise, so each round
gives one ratio, and the quartiles of the ratios say how far to trust them.
"""
from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import os
import pathlib
import re
import time
from typing import Any

import jax
import numpy as np

from dsr.runs import records

_LEAST_ROUNDS = 3  # However long they take.
_M_MMAP_THRESHOLD = -3  # Of glibc's malloc.h.
_CLEAR_REFS = pathlib.Path('/proc/self/clear_refs')

Call = Callable[[], Any]


def race(calls: Mapping[str, Call], *, repeats: int, seconds: float
         ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What each call returns, and its seconds in every round.

  Args:
    calls: the rivals, called in turn after one round that compiles.
    repeats: rounds, at most.
    seconds: after which no round begins, once there were three.
  """
  values = {side: jax.block_until_ready(call())
            for side, call in calls.items()}
  rounds = []
  began = time.perf_counter()
  while len(rounds) < repeats and (
      len(rounds) < _LEAST_ROUNDS
      or time.perf_counter() - began < seconds):
    rounds.append([_seconds(call) for call in calls.values()])
  return values, dict(zip(calls, np.transpose(rounds), strict=True))


@contextlib.contextmanager
def alone() -> Iterator[None]:
  """Within it no other process of this benchmark uses the device.

  As far as they keep to it: what they compile they may compile meanwhile. The
  file that is locked is in the variable DSR_BENCHMARK_LOCK; without it, or on
  systems that lack `fcntl`, nothing happens.
  """
  path = os.environ.get('DSR_BENCHMARK_LOCK')
  try:
    import fcntl
  except ImportError:
    path = None
  if not path:
    yield
    return
  with open(path, 'a') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _seconds(call: Call) -> float:
  began = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - began


def cpu_seconds(call: Call, repeats: int = 3) -> float:
  """Least CPU time of a call, over all threads, after one that compiles."""
  jax.block_until_ready(call())
  found = []
  for _ in range(repeats):
    began = time.process_time()
    jax.block_until_ready(call())
    found.append(time.process_time() - began)
  return min(found)


def quartiles(samples: np.ndarray) -> records.Metric:
  """The median, between the quartiles."""
  low, value, high = np.quantile(samples, (0.25, 0.5, 0.75))
  return records.metric(value, low, high)


def peak_mb(build: Callable[..., Mapping[str, Call]], args: tuple, side: str
            ) -> float | None:
  """Peak memory of one call beside its inputs, in a fresh process.

  Args:
    build: importable by name; makes the inputs and the calls on them.
    args: of `build`.
    side: which of the calls.

  Returns:
    MB (1e6 bytes) of the call `build(*args)[side]` with x64 off, compilation
    left out; None where the system does not say.
  """
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
    peak = pool.submit(_peak_of_call, build, args, side).result()
  return None if peak is None else peak / 1e6


def _peak_of_call(build, args: tuple, side: str) -> int | None:
  """In bytes. The first call compiles, which takes memory of its own."""
  # The parent may hold the rest of the accelerator's memory.
  os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  with jax.enable_x64(False):
    call = build(*args)[side]
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
      before = stats['bytes_in_use']
      jax.block_until_ready(call())
      return device.memory_stats()['peak_bytes_in_use'] - before
    libc = ctypes.CDLL(None)
    if not (_CLEAR_REFS.exists() and hasattr(libc, 'mallopt')):
      return None
    # Give back each buffer that is freed: else it is reused, and not counted.
    libc.mallopt(_M_MMAP_THRESHOLD, 2**16)
    jax.block_until_ready(call())
    time.sleep(0.5)  # Buffers go a moment after the result is ready.
    libc.malloc_trim(0)
    _CLEAR_REFS.write_text('5')  # Linux: the peak starts anew from here.
    before = _resident('VmRSS')
    result = jax.block_until_ready(call())
    return max(_resident('VmHWM') - before, result.nbytes)


def _resident(field: str) -> int:
  """Of this process, in bytes; unlike ru_maxrss not inherited from a parent."""
  status = pathlib.Path('/proc/self/status').read_text('ascii')
  return 1024 * int(re.search(rf'{field}:\s+(\d+) kB', status)[1])
