"""Bridge to neural-tangents 0.6.5: any of its architectures as a `KernelFn`.

neural-tangents is archived (its last commit is of 2024) and its import fails
on jax >= 0.6, which removed five names that it takes from `jax.core`, the
module `jax.util` and one primitive. `load` lends it these names while it is
imported, and takes them back: what neural-tangents imported it has bound to
names of its own, so jax is left as it was found. Its TensorFlow part is kept
out, so TensorFlow is neither needed nor loaded.

Not repaired is what reads jax's internals at run time: the structured
derivatives of `nt.empirical_ntk_fn(implementation=3)`, and `AUTO`, which tries
them; both raise a ValueError that says so. `dsr.kernels.empirical` has our own,
and chooses by itself. Values are neural-tangents' own as well: in float32 its
k(x, x) is off by up to 3e-4, where `dsr.kernels.layers` is exact to 1e-5.
Paper: arXiv:1912.02803.
"""
from collections.abc import Callable
import contextlib
import functools
import importlib
import importlib.util
import math
import sys
import types

import jax
import jax.core
import jax.extend.core
import jax.interpreters.ad
from jaxtyping import Array, Float

from dsr import checks
from dsr.types import KernelFn

_PACKAGE = 'neural_tangents'
_CORE_NAMES = ('Jaxpr', 'JaxprEqn', 'Literal', 'Primitive', 'Var')
# Floats that a chunk of `diag` may hold: pooling keeps (H W)^2 of each image.
_CHUNK_SIZE = 2**24


@functools.cache
def load() -> types.ModuleType:
  """Imports neural-tangents on the installed jax, once.

  The first call must not race with imports of jax in other threads.

  Returns:
    The module `neural_tangents`, with `stax`, `predict`, `batch`, `Kernel`,
    ..., but without `experimental` (its TensorFlow part).

  Raises:
    ImportError: neural-tangents is not installed; the message names the extra
      that has it.
  """
  if importlib.util.find_spec(_PACKAGE) is None:
    raise ImportError(
        'The stax bridge needs neural-tangents, which the extra `stax` has: '
        "pip install -e '.[stax]'.")
  with _removed_names_of_jax(), _without_tensorflow():
    module = importlib.import_module(_PACKAGE)
  _refuse_what_is_broken()
  return module


def kernel(
    nt_kernel_fn: Callable, *, get: str = 'ntk', name: str = 'stax'
) -> KernelFn:
  """An infinite-width kernel of neural-tangents for all our solvers.

  Inputs are (N, D) or (N, H, W, C), whichever the architecture takes:

    nt = stax.load()
    _, _, kernel_fn = nt.stax.serial(nt.stax.Flatten(), nt.stax.Dense(1))
    kernel_fn = stax.kernel(kernel_fn)

  Args:
    nt_kernel_fn: third element of what `stax.serial` and its kin return.
    get: which of the kernels, 'ntk' or 'nngp'.
    name: how records and messages call the kernel.

  Returns:
    `KernelFn`; `diag` runs over single examples, a chunk at a time.

  Raises:
    ValueError: unknown `get`; when called, inputs of unequal shape or dtype.
  """
  checks.one_of('get', get, ('ntk', 'nngp'))

  def symmetric(x: Float[Array, 'N ...']) -> Float[Array, 'N N']:
    checks.inputs('x', x)
    return nt_kernel_fn(x, None, get)

  def cross(
      x1: Float[Array, 'N ...'], x2: Float[Array, 'M ...']
  ) -> Float[Array, 'N M']:
    checks.inputs('x1', x1)
    checks.inputs('x2', x2, like=x1)
    return nt_kernel_fn(x1, x2, get)

  def diag(x: Float[Array, 'N ...']) -> Float[Array, 'N']:
    checks.inputs('x', x)
    pixels = math.prod(x.shape[1:-1])
    one = lambda example: nt_kernel_fn(example[None], None, get)[0, 0]
    chunk = min(max(_CHUNK_SIZE // pixels**2, 1), x.shape[0], 256)
    return jax.lax.map(one, x, batch_size=chunk)

  return KernelFn(cross, symmetric, diag, name)


def _refuse_what_is_broken():
  """Implementations of the empirical NTK that today's jax cannot run."""
  empirical = importlib.import_module(f'{_PACKAGE}._src.empirical')
  kinds = empirical.NtkImplementation

  def refuse(*args, **kwargs):
    raise ValueError(
        '`implementation` must be JACOBIAN_CONTRACTION (1) or '
        'NTK_VECTOR_PRODUCTS (2): AUTO (0) and STRUCTURED_DERIVATIVES (3) of '
        "neural-tangents read internals that today's jax does not have. "
        '`dsr.kernels.empirical.ntk` has both.')

  for kind in (kinds.AUTO, kinds.STRUCTURED_DERIVATIVES):
    empirical._implementation_to_ntk_fn[kind] = refuse


@contextlib.contextmanager
def _removed_names_of_jax():
  """Names that jax had when neural-tangents was written, while they last."""
  lent = []

  def lend(module, name, value):
    if name not in vars(module):
      setattr(module, name, value)
      lent.append((module, name))

  util = types.ModuleType('jax.util')
  util.safe_map = lambda f, *xs: [f(*x) for x in zip(*xs, strict=True)]
  util.safe_zip = lambda *xs: list(zip(*xs, strict=True))
  util_lent = sys.modules.setdefault(util.__name__, util) is util
  try:
    for name in _CORE_NAMES:
      lend(jax.core, name, getattr(jax.extend.core, name))
    # A key of a table of rules: no jaxpr of today holds this primitive.
    lend(jax.interpreters.ad, 'zeros_like_p',
         jax.extend.core.Primitive('zeros_like'))
    yield
  finally:
    for module, name in lent:
      delattr(module, name)
    if util_lent:
      del sys.modules[util.__name__]


@contextlib.contextmanager
def _without_tensorflow():
  """An empty `neural_tangents.experimental`, the only reader of TensorFlow."""
  name = f'{_PACKAGE}.experimental'
  empty = types.ModuleType(name)
  put = sys.modules.setdefault(name, empty) is empty
  try:
    yield
  finally:
    if put:
      del sys.modules[name]
      package = sys.modules.get(_PACKAGE)
      if getattr(package, 'experimental', None) is empty:
        del package.experimental
