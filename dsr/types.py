r"""The few types that every room of the house shares.

Axis letters, used in all signatures and comments:
  N, M  examples on the left and on the right of a kernel
  S     support (distilled) examples;  T  target (training) examples
  B     batch;  D  features;  C  classes or outputs;  H W  image height, width
  P     parameters of a finite network;  R  random restarts or seeds
"""
from collections.abc import Callable
import dataclasses
import enum
from typing import NamedTuple

from jaxtyping import Array, Float
import numpy as np

PredictFn = Callable  # x (N, ...) -> outputs (N, C)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Labelled images on the host, as read from disk: NumPy, never traced.

  Attributes:
    x: (N, H, W, C) float32 pixels in [0, 1], or a table (N, D) of numbers.
    y: (N,) int32 class indices in [0, num_classes).
    num_classes: number of classes the labels may take (a subset keeps all).
    name: what `dsr.data.load` was asked for.
    classes: what the classes are called, in their order; () if just numbers.
    notes: what the reader of a file had to decide, a phrase each.
  """

  x: np.ndarray
  y: np.ndarray
  num_classes: int
  name: str
  classes: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()

  def __len__(self) -> int:
    return self.x.shape[0]

  def called(self, c: int) -> str:
    """The name of class `c`, or its number."""
    return self.classes[c] if self.classes else str(c)

  def take(self, rows) -> 'Dataset':
    """The examples at integer (or boolean) `rows`, in that order."""
    return dataclasses.replace(self, x=self.x[rows], y=self.y[rows])


class Examples(NamedTuple):
  """Inputs with encoded targets: the pytree that flows through solvers."""

  x: Float[Array, 'N ...']  # Pixels after `data.transforms`.
  y: Float[Array, 'N C']  # Targets, e.g. one-hot minus 1/C.


class KernelFn(NamedTuple):
  r"""A positive-definite kernel k(x, x'): one interface for every source.

  Analytic, empirical and bridged kernels are all values of this type, so any
  of them drives any solver. The fields are pure functions, safe under `jit`,
  `vmap` and `grad`; being a tuple of functions, a kernel is hashable and can
  be a static argument of `jax.jit`.

  Attributes:
    cross: (x1 (N, ...), x2 (M, ...)) -> (N, M).
    symmetric: x (N, ...) -> (N, N); exact on its diagonal.
    diag: x (N, ...) -> (N,), the values k(x_i, x_i), without the matrix.
    name: how records and messages call it.
  """

  cross: Callable
  symmetric: Callable
  diag: Callable
  name: str

  def __call__(self, x1, x2=None):
    """k(x1, x2) as (N, M); `x2=None` means x1 and is exact on the diagonal."""
    return self.symmetric(x1) if x2 is None else self.cross(x1, x2)


class Solver(NamedTuple):
  """An iterative method: a pair of pure functions.

  Attributes:
    init: (key, ...) -> state; its docstring names the further arguments.
    step: (state, data) -> (state, info); safe under `jit` and `scan`.
  """

  init: Callable
  step: Callable


class Status(enum.IntEnum):
  """How a run of `dsr.loop`, or a training, ended."""

  FINISHED = 0  # All steps were made.
  INTERRUPTED = 1  # Ctrl-C or SIGTERM: the state is that of the last chunk.
  NOT_FINITE = 2  # The loss became infinite or NaN.
  CONVERGED = 3  # The stopping rule held before the last step.
  PLATEAU = 4  # As CONVERGED, but by a loss that falls no more: `dsr.train`.
