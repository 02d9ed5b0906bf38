r"""Labels as regression targets: the one place where that is decided.

With C classes, a label y becomes
  'centred'  e_y - 1/C: (N, C), rows sum to zero; what distillation uses;
  'one_hot'  e_y:       (N, C);
  'sign'     2y - 1:    (N, 1), two classes only; class 1 is +1.
"""
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from dsr import checks

STYLES = ('centred', 'one_hot', 'sign')


def encode(
    y, num_classes: int, *, style: str = 'centred', dtype=jnp.float32
) -> Float[Array, 'N C']:
  """Targets of integer labels.

  Args:
    y: (N,) integers in [0, num_classes), on the host: their values are checked.
    num_classes: C, at least 2.
    style: one of `STYLES`, see the module's text.
    dtype: of the result; float32 goes with float32 pixels.

  Raises:
    ValueError: labels out of range or not integers, an unknown style, or
      'sign' with more than two classes.
  """
  checks.at_least('num_classes', num_classes, 2)
  checks.one_of('style', style, STYLES)
  checks.labels('y', y, num_classes)
  y = np.asarray(y)
  if style == 'sign':
    if num_classes != 2:
      raise ValueError(
          f"`style` 'sign' needs `num_classes` = 2, got {num_classes}.")
    return jnp.asarray(2 * y[:, None] - 1, dtype)
  one_hot = np.equal(y[:, None], np.arange(num_classes)).astype(dtype)
  if style == 'centred':
    one_hot -= 1 / num_classes
  return jnp.asarray(one_hot, dtype)


def decode(outputs: Float[Array, 'N C']) -> Int[Array, 'N']:
  """Classes of outputs, of any style: the sign if C = 1, else the argmax.

  Safe under `jit`. An output of exactly 0 is class 0, ties go to the first.
  """
  if outputs.ndim != 2 or outputs.shape[1] < 1:
    raise ValueError(
        f'`outputs` must have shape (N, C), got {tuple(outputs.shape)}.')
  if outputs.shape[1] == 1:
    return (outputs[:, 0] > 0).astype(jnp.int32)
  return jnp.argmax(outputs, axis=1).astype(jnp.int32)
