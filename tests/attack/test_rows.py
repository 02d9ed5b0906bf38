"""Inputs out of the rows of a change that is made up, by NumPy alone."""
import numpy as np
import pytest

from dsr.attack import release, rows as rows_lib
from dsr.attack.span import Span

_NUM, _WIDTH, _SIZE = 6, 512, 11


def _made_up(seed, close, weak):
  """(inputs, released, `Span`, true t): the first two images are similar.

  Their pre-activations and signals differ by `close`, and so do their masks;
  `weak` signals of the first image are small but not 0.
  """
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(_NUM, _SIZE))
  extended = np.concatenate([x, np.ones((_NUM, 1))], axis=1)
  level, signal = rng.normal(size=(2, _NUM, _WIDTH))
  for values in (level, signal):
    values[1] = values[0] + close * rng.normal(size=_WIDTH)
  rows = (level > 0) * signal
  rows[0, np.flatnonzero(rows[0])[:weak]] = 0.009
  change = extended.T @ rows
  change += 1e-7 * rng.normal(size=change.shape)
  basis, size, codes = np.linalg.svd(change, full_matrices=False)
  rounding = np.sqrt(np.mean(size[_NUM:]**2) / (_WIDTH - _NUM))
  theta = np.linalg.pinv(extended) @ level
  factors = Span(
      basis[:, :_NUM], size[:_NUM], codes[:_NUM],
      np.stack([basis[:, :_NUM].T @ theta] * 2), 0.0,
      rounding * _WIDTH**0.5 / size[:_NUM], True)
  t = rows @ factors.codes.T
  released = release.Released(
      _NUM, (_SIZE,), 1, np.asarray(-9.0), np.asarray(9.0))
  return x, released, factors, t / np.linalg.norm(t, axis=1, keepdims=True)


@pytest.mark.parametrize(('close', 'seed'), [
    *((0.1, seed) for seed in range(5)), (0.03, 3), (0.03, 12)])
@pytest.mark.parametrize('weak', [0, 2])
def test_similar_images_stay_two(weak, close, seed):
  """3 or 1 % of the units tell them apart, and two entries mislead."""
  x, released, factors, rows = _made_up(seed, close, weak)
  for refinements in (0, 8):
    found = rows_lib.read(released, factors, rows, refinements)
    np.testing.assert_allclose(found.x, x, atol=1e-5)
    assert found.agreement.min() > 0.95


def test_copies_are_one_row():
  x, released, factors, rows = _made_up(0, 0.1, 0)
  found = rows_lib.read(released, factors, np.concatenate([rows, -rows]), 0)
  np.testing.assert_allclose(found.x, x, atol=1e-5)


def test_a_row_that_is_a_little_off_is_read_exactly():
  x, released, factors, rows = _made_up(1, 1.0, 0)
  off = rows + 1e-3 * np.random.default_rng(0).normal(size=rows.shape)
  off /= np.linalg.norm(off, axis=1, keepdims=True)
  found = rows_lib.read(released, factors, off, 0)
  np.testing.assert_allclose(found.x, x, atol=1e-5)
