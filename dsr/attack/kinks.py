r"""Which candidates are training images, told by the kinks of the predictor.

The neural tangent kernel of a ReLU network has a kink where its arguments
meet, K(x, x') = K(x, x) - c |x - x'| + ..., and is smooth elsewhere. So f =
f_T - f_0 = sum_j a_j K(., x_j) has a kink at each training image, of the size
of its dual, and nowhere else. Differences across x^ that cancel curvature,

  B f(u) = 4 (f(x^ + u / 2) + f(x^ - u / 2)) - f(x^ + u) - f(x^ - u) - 6 f(x^),

are -2 c a_j |u| at a training image, and of order |u|^4 elsewhere. Over random
directions u of two lengths they are held against those of K(., x^): with the
best dual a^,

  confidence = 1 - min_a |B f - a B K(., x^)| / |B f|.

It is near 1 at a training image only, whatever loss remains, whichever other
images are missing and however many candidates are wrong; values of f suffice.
Where the kernel is not the one of the training, images have kinks as well.

Axes: M candidates, C outputs, Q probes of a candidate.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import numerics
from dsr.types import KernelFn

SCALE = 0.05  # Of u, in units of a pixel: far below the distance of two images.
_DIRECTIONS = 8
_SMOOTH = 2**2.5  # Twice as far a kink's B is twice as large, others' 16 times.


@numerics.exact
def confidence(
    key: Key[Array, ''], query: Callable, kernel_fn: KernelFn,
    x: Float[Array, 'M ...']) -> Float[Array, 'M']:
  """How sure it is that candidates are training images; see the module's text.

  All zeros if the kernel has no kink (another nonlinearity than ReLU) or is
  1-homogeneous (no biases), for which a candidate's length is not determined.

  Args:
    key: of the directions.
    query: (Q, ...) -> (Q, C), the released f.
    kernel_fn: of the architecture.
    x: the candidates.

  Returns:
    (M,) in [0, 1]: above 0.95 for candidates that are less than 0.04 `SCALE`
    away, in units of a pixel; 0.6 where f is smooth, 0 where it is rounding.
  """
  u = SCALE * jax.random.normal(key, (_DIRECTIONS, *x.shape[1:]), x.dtype)
  u = jnp.concatenate([u, u / 2])
  steps = jnp.concatenate([u / 2, -u / 2, u, -u, 0 * u[:1]])

  def across(values):
    out = values[:-1].reshape(4, len(u), -1)
    return 4 * (out[0] + out[1]) - out[2] - out[3] - 6 * values[-1:]

  def one(x):
    places = x[None] + steps
    of_f, of_k = across(query(places)), across(kernel_fn(places, x[None]))
    both = kernel_fn(jnp.stack([x, 2 * x]), x[None])[:, 0]
    energy = jnp.sum(of_k**2)
    dual = numerics.matmul(of_k.T, of_f) / jnp.where(energy > 0, energy, 1)
    left = jnp.sum((of_f - numerics.matmul(of_k, dual))**2)
    whole = jnp.sum(of_f**2)
    far, near = jnp.sum(of_k.reshape(2, -1)**2, axis=1)
    return (jnp.where(whole > 0, 1 - jnp.sqrt(left / whole), 0),
            far / near, both[1] / both[0])

  sure, growth, doubled = jax.lax.map(one, x)
  kinked = jnp.median(growth) < _SMOOTH**2
  determined = jnp.max(jnp.abs(doubled - 2)) > 1e-4
  return jnp.where(kinked & determined, sure, 0)
