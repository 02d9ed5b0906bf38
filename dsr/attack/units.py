r"""A part of the first layer's units, on which half of the images are active.

`first_layer` tells an image's row of the change by its zeros: an image switches
off half of the units of a random layer. After training on natural images a unit
answers to fewer of them, and many to none, so that rows are sparser than the
search expects (27 % of the units are active on an image after training on 1,000
MNIST digits). But any part of the units is a first layer too: its change has
the same span and the same images. So those are kept that are active most often
at random points of the span, scaled like images.

Axes: N images, W units, B points.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
import numpy as np

from dsr import checks
from dsr.attack.release import Released
from dsr.attack.span import span

_POINTS = 512


def most_active(
    key: Key[Array, ''], released: Released, share: float = 0.5) -> Released:
  """`released` with the `share` of its first layer that is active most often.

  The network has fewer units then and computes something else: it is meant for
  attacks that read the change of the first layer alone.

  Args:
    key: of the points.
    released: theta_0 and theta_T of an MLP.
    share: in (0, 1].

  Raises:
    ValueError: see `span`; or `share` is out of range, or leaves N units or
      fewer.
  """
  checks.positive('share', share)
  checks.within('share', share, 0, 1)
  factors = span(released)
  num, width = factors.codes.shape
  count = int(share * width)
  if count <= num:
    raise ValueError(f'`share` must leave more than {num} of {width} units, '
                     f'got {share}.')
  # As `first_layer` starts: a spectrum like that of the change, half an image
  # long, about the least point whose last entry is 1.
  keys = jax.random.split(key)
  power = np.asarray(jax.random.uniform(keys[0], (_POINTS, 1), minval=0.5))
  normal = np.asarray(jax.random.normal(keys[1], (_POINTS, num)))
  shape = (factors.size / factors.size[0]) ** power
  extent = np.broadcast_to(released.high - released.low, released.input_shape)
  length = 0.25 * np.linalg.norm(extent) / np.linalg.norm(shape, axis=1)
  points = shape * normal * length[:, None]
  if factors.biased:
    points += factors.basis[-1]
  level = np.maximum(*(points @ ends for ends in factors.maps))
  often = np.mean(level > 0, axis=0)
  keep = np.sort(np.argsort(-often, kind='stable')[:count])
  module = released.module
  behind = 'hidden_1' if len(module.widths) > 1 else 'readout'

  def cut(theta):
    first = {name: jnp.asarray(a)[..., keep]
             for name, a in theta['hidden_0'].items()}
    later = theta[behind] | {
        'kernel': jnp.asarray(theta[behind]['kernel'])[keep]}
    return theta | {'hidden_0': first, behind: later}

  return released._replace(
      module=module.clone(widths=(count, *module.widths[1:])),
      theta_0=cut(released.theta_0), theta_T=cut(released.theta_T))
