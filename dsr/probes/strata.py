r"""Groups of examples, and how a resample draws from them.

A resample takes networks, and n_g test points of each group of n_g, all with
replacement and independently of each other (the two-way, "pigeonhole"
bootstrap: Owen, Ann. Appl. Stat. 1 (2007) 386-411). It takes R - 1 networks of
R, unless there is but one: the variance of their mean is s^2 / R then, with R
of them it would be (R - 1) / R of that. Points that all networks treat alike
are drawn together, by one multinomial a group.
"""
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int, Key
import numpy as np

_TILE = 2**22  # Entries of a block of resamples: 32 MB.


class Groups(NamedTuple):
  """A partition of N examples.

  Attributes:
    names: of the G groups, Python integers or strings.
    index: (N,) the group of each example, in [0, G).
    sizes: (G,) examples of each group, none zero.
  """

  names: tuple
  index: Int[np.ndarray, 'N']
  sizes: Int[np.ndarray, 'G']


def partition(
    groups: Any, *, rows: int, names: Sequence | None = None,
    argument: str = 'groups', fewest: int = 1) -> Groups:
  """The groups of an attribute, and whether they can be measured.

  Args:
    groups: (N,) integers or strings.
    rows: N.
    names: values that `groups` may take, each of which must occur; None
      takes those that do, sorted.
    argument: what messages call `groups`.
    fewest: examples that each group needs.

  Raises:
    ValueError: wrong shape or dtype, a value that is not in `names`, or a
      group with less than `fewest` examples.
  """
  groups = np.asarray(groups)
  if groups.dtype == object and all(isinstance(g, str) for g in groups.flat):
    groups = groups.astype(str)
  if groups.shape != (rows,) or groups.dtype.kind not in 'biuU':
    raise ValueError(
        f'`{argument}` must be ({rows},) integers or strings, got '
        f'{groups.dtype} {groups.shape}.')
  found, index = np.unique(groups, return_inverse=True)
  if names is not None:
    place = {name: i for i, name in enumerate(names)}
    if len(place) < len(names):
      raise ValueError(f'`group_names` must differ, got {tuple(names)}.')
    strange = [g for g in found.tolist() if g not in place]
    if strange:
      raise ValueError(f'`{argument}` must be among {tuple(names)}, got '
                       f'{strange[0]!r}.')
    index = np.array([place[g] for g in found.tolist()])[index]
  names = tuple(found.tolist() if names is None else names)
  sizes = np.bincount(index, minlength=len(names))
  if len(sizes) and sizes.min() < fewest:
    raise ValueError(
        f'`{argument}` must hold at least {fewest} examples of each group, '
        f'got {sizes.min()} of {names[sizes.argmin()]!r}.')
  return Groups(names, index, sizes)


def generator(key: Key[Array, '']) -> np.random.Generator:
  """NumPy's generator, seeded by all bits of `key`."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def seed_shares(
    rng: np.random.Generator, num_seeds: int, num_resamples: int
) -> Float[np.ndarray, 'B R']:
  """The share of each of R networks in each of B resamples; rows sum to 1."""
  size = max(1, num_seeds - 1)
  return rng.multinomial(
      size, np.full(num_seeds, 1 / num_seeds), num_resamples) / size


def resample_points(
    rng: np.random.Generator, codes: Int[np.ndarray, 'N K'], groups: Groups,
    num_resamples: int, visit: Callable) -> Iterator[tuple]:
  """What `visit` makes of the resampled points, a group at a time.

  Args:
    rng: advanced by the draws.
    codes: (N, K) all that `visit` reads of a point; equal rows are merged.
    groups: resampled apart, each keeping its size.
    num_resamples: B.
    visit: (weight (B', P), rows (P, K), block) -> tuple of arrays (B', ...),
      with weight the times that a distinct row was drawn, and block the slice
      of the B resamples that they are.

  Yields:
    For each group, the arrays of `visit` for all B resamples.
  """
  for g in range(len(groups.names)):
    rows, counts = np.unique(
        codes[groups.index == g], axis=0, return_counts=True)
    tile = max(1, _TILE // len(rows))
    parts = []
    for done in range(0, num_resamples, tile):
      block = slice(done, min(done + tile, num_resamples))
      weight = rng.multinomial(
          counts.sum(), counts / counts.sum(), block.stop - done)
      parts.append(visit(weight.astype(float), rows, block))
    yield tuple(np.concatenate(p) for p in zip(*parts))


def sampling_variance(
    right: Float[np.ndarray, 'R N'], groups: Groups) -> float:
  r"""What chance adds to the variance between the groups' accuracies.

  The population variance over groups of \bar c_g, the mean of (R, n_g) values
  c_ri, exceeds that of the expected accuracies by B on average, where
  B = S + (1 - 1/G) mean_g (P_g - I_g) is estimated without bias, with
  P_g = var_i(mean_r c_ri) / n_g, the points' part; I_g = MS_I / (R n_g), the
  part of the residual c_ri - c_r. - c_.i + c_.. with (R - 1)(n_g - 1) degrees
  of freedom, which P_g and S both hold; and S = mean_g var_r(c_rg - mean_g
  c_rg) / R, that of networks, which all groups share. One network leaves
  P_g = a_g (1 - a_g) / (n_g - 1), the binomial variance, and no S and I.

  Args:
    right: (R, N) values, 1 where network r is right on example i.
    groups: of at least 2 examples each.
  """
  num_seeds, num_groups = len(right), len(groups.names)
  by_seed, points = [], []
  for g in range(num_groups):
    c = right[:, groups.index == g]
    n = c.shape[1]
    of_seed = c.mean(1, keepdims=True)
    of_point = c.mean(0, keepdims=True)
    part = of_point.var(ddof=1) / n
    if num_seeds > 1:
      rest = c - of_seed - of_point + c.mean()
      freedom = (num_seeds - 1) * (n - 1)
      part -= np.sum(rest**2) / freedom / (num_seeds * n)
    points.append(part)
    by_seed.append(of_seed[:, 0])
  chance = (1 - 1 / num_groups) * np.mean(points)
  if num_seeds > 1:
    apart = by_seed - np.mean(by_seed, 0, keepdims=True)
    chance += np.mean(np.var(apart, axis=1, ddof=1)) / num_seeds
  return float(max(chance, 0.0))
