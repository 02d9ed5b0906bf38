"""Small problems that the tests of all methods share."""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dsr import data as data_lib, kernels, krr
from dsr.distill import support as support_lib, targets
from dsr.types import Examples, KernelFn
from tests.reference import krr as oracle

FCN1 = kernels.fcn(1)
SCALE = 3.0


def _gaussian(x1, x2):
  square = ((x1[:, None] - x2[None]) ** 2).sum(-1)
  return 2 * jnp.exp(-square / (2 * SCALE**2))


# Compiles in a tenth of the time of a network's kernel.
GAUSSIAN = KernelFn(
    cross=_gaussian, symmetric=lambda x: _gaussian(x, x),
    diag=lambda x: 2 * jnp.ones(x.shape[0], x.dtype), name='gaussian')
RIDGE = 1e-3
DIM = 5


def blobs(classes=3, *, dtype='float64', seed=0):
  """`Targets` of 12, 9 and 7 examples around random centres; C = 1 for two."""
  rng = np.random.default_rng(seed)
  labels = np.repeat(np.arange(classes), [12, 9, 7][:classes])
  rng.shuffle(labels)
  centres = 2 * rng.normal(size=(classes, DIM))
  x = centres[labels] + rng.normal(size=(len(labels), DIM))
  y = np.eye(classes)[labels] - 1 / classes
  if classes == 2:
    y = 2.0 * labels[:, None] - 1
  return targets.targets(x.astype(dtype), y.astype(dtype), labels)


def start(data, per_class=2, *, seed=1, noise=0.3):
  """A support of noisy training examples, the first of each class."""
  rows = np.asarray(data.rows)[:, :per_class].ravel()
  x = np.asarray(data.x)[rows]
  x = x + noise * np.random.default_rng(seed).normal(size=x.shape)
  return support_lib.support(x.astype(data.x.dtype), data.y[rows])


def numpy_gaussian(x1, x2):
  """`GAUSSIAN` by the oracle."""
  return oracle.gaussian(x1, x2, SCALE)


def host(*arrays):
  """float64 NumPy copies, for the oracles."""
  return tuple(np.asarray(a, float) for a in arrays)


def assert_identical(a, b):
  """Two states, bit by bit."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    u, v = (jax.random.key_data(w) if jnp.issubdtype(
        jnp.result_type(w), jax.dtypes.prng_key) else w for w in (u, v))
    assert u.dtype == v.dtype
    np.testing.assert_array_equal(u, v)


@functools.cache
def digits():
  """(Targets, one random image a class, (kernel, set) -> test accuracy)."""
  splits = data_lib.load('digits', seed=0)
  apply = data_lib.transforms.by_name('standardise', splits.train.x).apply
  y = data_lib.encode(splits.train.y, 10)
  data = targets.targets(
      jnp.asarray(apply(splits.train.x)), y, splits.train.y)
  subset = data_lib.balanced_subset(jax.random.key(0), splits.train, 1)
  first = support_lib.support(
      jnp.asarray(apply(subset.x)), data_lib.encode(subset.y, 10))
  x_test = jnp.asarray(apply(splits.test.x))

  def accuracy(kernel_fn: KernelFn, examples: Examples) -> float:
    predict_fn = krr.fit(kernel_fn, examples, ridge=1e-6)
    return float(krr.accuracy(predict_fn(x_test), splits.test.y))

  return data, first, accuracy
