r"""Shadow distillations: many small sets, each of its own part of the data.

What LiRA (arXiv:2112.03570) needs to attack a distilled set: the same method
run on many random halves of the training set, and the outputs of each result
on all of it. With X^r, Y^r the set distilled from the half r,

  f_r(x) = K(x, X^r) (K(X^r, X^r) + \lambda tr(K)/S I)^{-1} Y^r.

The method is a `Solver` such as `kip.kip` or `rkip.rkip`; a shadow starts from
a balanced random subset of its half, or from noise.

Axes: R shadows; N examples, H of them in a half; S support; C outputs.
"""
from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr import checks, krr, linalg, loop
from dsr.data import tasks
from dsr.distill import support as support_lib, targets
from dsr.train.shadows import member_rows
from dsr.types import Examples, KernelFn, Solver

INITS = ('real', 'noise')
_STEPS_PER_DISPATCH = 100  # Between two looks at Ctrl-C, at most.


class Shadows(NamedTuple):
  """R distilled sets, on the host.

  Attributes:
    x: (R, S, ...) images.
    y: (R, S, C) labels.
    start: (R, S) the examples that the sets started from, or took only the
      labels of, if they started from noise.
    loss: (R, steps) before each step.
    member: (R, N) the examples that they were made of.
  """

  x: Float[np.ndarray, 'R S ...']
  y: Float[np.ndarray, 'R S C']
  start: Int[np.ndarray, 'R S']
  loss: Float[np.ndarray, 'R steps']
  member: Bool[np.ndarray, 'R N']


def stratified_halves(
    key: Key[Array, ''], labels: Int[Array | np.ndarray, 'N'],
    num_shadows: int) -> Bool[np.ndarray, 'R N']:
  """Masks of n_c // 2 random examples of each class c, in each shadow.

  Consecutive pairs do not overlap, so with `num_shadows` and all n_c even each
  example is in exactly half of them. Of an odd class, each pair leaves out one
  example. All masks have the same size.

  Args:
    key: of the draw.
    labels: (N,) class indices.
    num_shadows: R, best even.

  Raises:
    ValueError: labels that are not integers, a class of one example, or
      `num_shadows` below 1.
  """
  checks.class_indices('labels', labels)
  checks.at_least('num_shadows', num_shadows, 1)
  _, labels, counts = np.unique(
      np.asarray(labels), return_inverse=True, return_counts=True)
  if counts.min() < 2:
    raise ValueError('`labels` must have at least 2 examples of each class, '
                     f'got {counts.min()}.')
  keys = jax.random.split(key, (num_shadows + 1) // 2)
  draws = np.asarray(_bits(keys, len(labels)))
  starts = np.cumsum(counts) - counts
  first, last = counts // 2, counts - counts // 2
  masks = np.zeros((2 * len(draws), len(labels)), bool)
  for pair, draw in enumerate(draws):
    order = np.lexsort((draw, labels))
    rank = np.empty_like(order)  # Within the class.
    rank[order] = np.arange(len(order)) - starts[labels[order]]
    masks[2 * pair] = rank < first[labels]
    masks[2 * pair + 1] = rank >= last[labels]
  return masks[:num_shadows]


@functools.partial(jax.jit, static_argnames='num')
def _bits(keys, num):
  return jax.vmap(lambda k: jax.random.bits(k, (num,), jnp.uint32))(keys)


def distill_shadows(
    key: Key[Array, ''], solver: Solver, x: Float[Array | np.ndarray, 'N ...'],
    y: Float[Array | np.ndarray, 'N C'], labels: Int[Array | np.ndarray, 'N'],
    member: Bool[Array | np.ndarray, 'R N'], *, images_per_class: int,
    num_steps: int, init: str = 'real', parallel: int | None = None,
    data_fn: Callable[..., Any] = targets.targets,
    only: slice = slice(None)) -> Shadows:
  """Distils each of R parts of the examples by the same method.

  Shadow r is `num_steps` steps of `solver.step` on the examples of its part,
  in their order, from `solver.init(key_solver, start)` with the start of
  `shadow_start(key_start, ...)`, where key_start and key_solver are those that
  the r-th key of `jax.random.split(key, R)` is split into.

  Args:
    key: of starts and batches.
    solver: `init(key, support)` and `step(state, data)`; a state has a field
      `support`, an info `loss` and `finite`. The same object again, with the
      same shapes, compiles nothing anew.
    x: (N, ...) inputs.
    y: (N, C) encoded targets.
    labels: (N,) class indices from 0 on.
    member: (R, N) parts with equally many examples, and for 'kip' of each
      class, such as `stratified_halves`.
    images_per_class: of the start, S over the number of classes.
    num_steps: of each shadow.
    init: 'real' for examples of the part, 'noise' for N(0, 0.2^2) with their
      labels.
    parallel: shadows in one vmap; the others wait their turn. None is 1 on
      CPUs and elsewhere as many as memory allows, see `loop.pick_parallel`.
      Results differ by rounding only.
    data_fn: (x (H, ...), y (H, C), labels (H,)) -> the data of `solver.step`,
      on the host; for `rkip` an `rkip.interpolant`.
    only: which of the R to make; they are the same without the others.

  Raises:
    ValueError: misshapen arguments, parts of different sizes, a class with
      too few examples in some part, or an option out of range.
    FloatingPointError: the loss of a shadow is not finite.
  """
  checks.inputs('x', x)
  checks.targets('y', y, rows=x.shape[0])
  checks.class_indices('labels', labels)
  checks.same_rows(x=x, labels=labels)
  checks.at_least('num_steps', num_steps, 1)
  x, y, labels = np.asarray(x), np.asarray(y), np.asarray(labels)
  parts = member_rows(member, len(x))
  inner = math.gcd(num_steps, _STEPS_PER_DISPATCH)
  keys, done = jax.random.split(key, len(parts))[only], []
  parts, member = parts[only], np.asarray(member)[only]
  num = len(parts)
  begin = lambda r: _begin(keys[r], solver, x, y, labels, parts[r],
                           images_per_class, init, data_fn)
  parallel = loop.pick_parallel(parallel, num, solver.step, *begin(0)[:2])
  for first in range(0, num, parallel):
    group = range(first, min(first + parallel, num))
    begun = [begin(r) for r in group]
    # The last group is filled up, so that one program serves all.
    begun += begun[-1:] * (parallel - len(group))
    states, data, starts = jax.tree.map(lambda *a: jnp.stack(a), *begun)
    loss = []
    for dispatch in range(num_steps // inner):
      states, info = _advance(solver.step, states, data, parallel=parallel,
                              num_steps=inner)
      loss.append(np.asarray(info.loss))
      if not np.all(info.finite):
        raise FloatingPointError(
            f'The loss of a shadow from {first} to {group[-1]} is not finite '
            f'within {inner * (dispatch + 1)} steps: lower the learning rate '
            'or raise the ridge.')
    done.append([np.asarray(a)[:len(group)] for a in (
        *states.support.examples(), starts, np.concatenate(loss, 1))])
    if 10 * (group[-1] + 1) // num > 10 * first // num:
      logging.info('shadow %d of %d', group[-1] + 1, num)
  return Shadows(*map(np.concatenate, zip(*done)), member=member)


def shadow_start(
    key: Key[Array, ''], x: Float[Array | np.ndarray, 'H ...'],
    y: Float[Array | np.ndarray, 'H C'], labels: Int[Array | np.ndarray, 'H'],
    *, images_per_class: int, init: str = 'real'
) -> tuple[support_lib.Support, Int[np.ndarray, 'S']]:
  """A balanced random subset, or noise with its labels; and its rows.

  Args:
    key: of the draw.
    x: (H, ...) inputs.
    y: (H, C) encoded targets.
    labels: (H,) class indices from 0 on.
    images_per_class: at least 1.
    init: 'real' or 'noise'.

  Raises:
    ValueError: a class has too few examples, or an unknown `init`.
  """
  checks.one_of('init', init, INITS)
  key_rows, key_noise = jax.random.split(key)
  rows = tasks.balanced_rows(
      key_rows, labels, images_per_class, int(np.max(labels)) + 1)
  x, y = jnp.asarray(np.asarray(x)[rows]), jnp.asarray(np.asarray(y)[rows])
  if init == 'noise':
    x = support_lib.noise_like(key_noise, x)
  return support_lib.support(x, y), rows


def shadow_outputs(
    kernel_fn: KernelFn, supports: Examples,
    x: Float[Array | np.ndarray, 'N ...'], *, ridge: float = 1e-6,
    tile: int = 2048) -> Float[np.ndarray, 'R N C']:
  r"""Outputs of kernel ridge regression on each support, on the host.

  Args:
    kernel_fn: the kernel.
    supports: x (R, S, ...), y (R, S, C), such as of `Shadows`.
    x: (N, ...) where they are evaluated.
    ridge: \lambda >= 0, relative to tr(K_ss)/S.
    tile: rows of `x` at a time; bounds the memory by `tile` S kernel entries.

  Raises:
    ValueError: misshapen arguments or an option out of range.
    FloatingPointError: a solve failed.
  """
  checks.same_rows(**{'supports.x': supports.x, 'supports.y': supports.y})
  checks.inputs('x', x, like=supports.x[0])
  x, found = np.asarray(x), []
  for one in zip(*supports):
    predict_fn = _fit(kernel_fn, Examples(*map(jnp.asarray, one)), ridge=ridge)
    linalg.raise_if_failed(predict_fn.info, ridge=ridge)
    found.append(krr.predict_in_tiles(predict_fn, x, tile=tile))
  return np.stack(found)


_fit = jax.jit(krr.fit, static_argnums=0)  # One program for all shadows.


@functools.partial(
    jax.jit, static_argnames=('step_fn', 'parallel', 'num_steps'))
def _advance(step_fn, states, data, *, parallel, num_steps):
  """`num_steps` steps of stacked states on stacked data, `parallel` at once."""
  one = lambda pair: loop.run_chunk(step_fn, *pair, num_steps=num_steps)
  # Not a vmap of one, which would run both branches of any `cond`.
  return jax.lax.map(one, (states, data),
                     batch_size=None if parallel == 1 else parallel)


def _begin(key, solver, x, y, labels, rows, images_per_class, init, data_fn):
  """(state, data, examples it starts from) of the shadow of `rows`."""
  key_start, key_solver = jax.random.split(key)
  x, y, labels = x[rows], y[rows], labels[rows]
  start, chosen = shadow_start(
      key_start, x, y, labels, images_per_class=images_per_class, init=init)
  return (solver.init(key_solver, start), data_fn(x, y, labels), rows[chosen])
