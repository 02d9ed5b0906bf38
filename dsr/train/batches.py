"""Random batches, and what data a network can be trained on."""
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key
import numpy as np

from dsr import checks
from dsr.types import Examples

LOSSES = ('mse', 'cross_entropy')


def first_order(num: int, batch_size: int | None) -> Int[Array, 'N'] | None:
  """What `next_rows` starts from; None if all rows are one batch."""
  if batch_size is None or batch_size >= num:
    return None
  return jnp.arange(num, dtype=jnp.int32)


def next_rows(
    key: Key[Array, ''], step: Int[Array, ''], order: Int[Array, 'N'],
    batch_size: int) -> tuple[Int[Array, 'B'], Int[Array, 'N']]:
  """The rows of one step, and the order of this epoch.

  Every epoch visits a new random order in ceil(N / B) batches of B; the last
  one is filled up from the start of the order.
  """
  place = step % math.ceil(order.size / batch_size)
  epoch_key = jax.random.fold_in(key, step)
  order = jax.lax.cond(
      place == 0, lambda: jax.random.permutation(epoch_key, order),
      lambda: order)
  rows = (place * batch_size + jnp.arange(batch_size)) % order.size
  return order[rows], order


def checked_examples(
    module: nn.Module, data: Examples, loss: str, *, logistic: bool = False
) -> Examples:
  """`data` as device arrays, once its shapes and values are seen to be fine.

  Args:
    module: whose outputs must have the shape of the targets.
    data: x (N, ...), y (N, C).
    loss: one of `LOSSES`.
    logistic: whether 'cross_entropy' on one output, with targets +-1, is known.

  Raises:
    ValueError: shapes that do not fit, values that are not finite, or targets
      that are no probabilities under 'cross_entropy'.
  """
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.finite('data.x', data.x)
  checks.finite('data.y', data.y)
  checks.one_of('loss', loss, LOSSES)
  y = np.asarray(data.y)
  if loss == 'cross_entropy' and logistic and y.shape[1] == 1:
    if not np.isin(y, (-1, 1)).all():
      raise ValueError(
          "`data.y` must hold -1 and 1 under loss 'cross_entropy' with one "
          f'output, got values from {y.min():.3g} to {y.max():.3g}.')
  elif loss == 'cross_entropy' and (
      y.shape[1] < 2 or y.min() < 0 or np.abs(y.sum(axis=1) - 1).max() > 1e-3):
    raise ValueError(
        "`data.y` must hold probabilities (N, C) under loss 'cross_entropy', "
        f'got values from {y.min():.3g} to {y.max():.3g} in {y.shape[1]} '
        "columns; encode labels as 'one_hot', or use loss 'mse'.")
  out = jax.eval_shape(
      lambda k, x: module.init_with_output(k, x)[0], jax.random.key(0), data.x)
  if out.shape != data.y.shape:
    raise ValueError(
        f'`module` has outputs of shape {out.shape}, expected '
        f'{tuple(data.y.shape)} as in `data.y`.')
  return Examples(jnp.asarray(data.x), jnp.asarray(data.y, data.x.dtype))
