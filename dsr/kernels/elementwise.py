r"""Any nonlinearity, by its Hermite series; notation as in `nonlinearities`.

With the normalised Hermite polynomials He_n / sqrt(n!) = e_n of a Gaussian z,

  h_n(r) = E[f(r z) e_n(z)],   k' = sum_n h_n(r1) h_n(r2) c^n,

so that what depends on f is computed for each input, and a pair costs a
polynomial in c = cos theta. Small angles keep their digits:

  (q1' + q2') / 2 - k' = sum_n (h_n(r1) - h_n(r2))^2 / 2
                       + sum_n h_n(r1) h_n(r2) (1 - c^n),

where 1 - c^n = (1 - c) (1 + c + ... + c^(n-1)). \Theta' is \Theta times the
same sum for the derivative of f. Refs: Daniely et al., arXiv:1602.05897.
"""
from collections.abc import Callable, Sequence
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dsr import checks, numerics
from dsr.kernels.layers import Layer, gap_after, nonlinear

# The trapezoidal rule in z, whose error vanishes exponentially for smooth f:
# the weight at the ends is below float64's rounding.
_END, _STEP = 12.0, 0.05
_MOST_TERMS = 256


def Elementwise(fn: Callable, *, tolerance: float = 1e-6,
                largest: float = 2.0, name: str = '') -> Layer:
  """Any smooth function of each activation, such as `jnp.tanh`.

  A function with a kink has a slow series: use `ABRelu` and its kin where they
  do. Cost: some 10 operations a term and pair; a gradient keeps as many
  matrices as there are terms.

  Args:
    fn: of arrays, elementwise; JAX differentiates it.
    tolerance: of k', relative to sqrt(q1' q2'), which decides the number of
      terms; also of the derivative's kernel.
    largest: standard deviation of the activations up to which that holds,
      above which the kernel is NaN; tanh takes 83 terms for 1.5 and 145 for 2.
    name: for messages and records.

  Raises:
    ValueError: 256 terms do not reach the tolerance, or `fn` is not finite.
  """
  checks.positive('tolerance', tolerance)
  checks.positive('largest', largest)
  slope = jax.vmap(jax.grad(lambda x: jnp.sum(fn(x))))
  z = np.arange(-_END, _END + _STEP / 2, _STEP)
  functions = _hermite_functions(z)
  tables = (functions * np.exp(-z * z / 4)[:, None] * _STEP
            / (2 * math.pi) ** 0.5)  # (nodes, terms)

  def tails(f):
    """Share of the variance in the terms from n on, of each deviation."""
    scales = largest * np.array([0.25, 0.5, 1.0])
    values = np.asarray(f(jnp.asarray(np.outer(scales, z).ravel())), float)
    checks.finite('fn', values)
    square = (values.reshape(3, -1) @ tables) ** 2
    # Of all the variance, not only that of the terms which are there.
    whole = (values.reshape(3, -1) ** 2) @ tables[:, :1]
    before = np.cumsum(square, axis=1)
    return np.abs(whole - before) / np.maximum(whole, 1e-300)

  left = np.maximum(tails(fn), tails(slope)).max(0)
  enough = left <= tolerance
  if not enough.any():
    raise ValueError(
        f'`tolerance` {tolerance:g} is not reached by {_MOST_TERMS} terms, '
        f'which leave {left[-1]:.1e}: `fn` is not smooth enough, or `largest` '
        'too large.')
  tables = tables[:, :int(np.argmax(enough)) + 1]
  most = largest * (1 + 1e-6)  # Rounding is no error of the user.

  def series(f):
    def coefficients(root):
      x = root[..., None] * z.astype(root.dtype)
      values = f(x.ravel()).reshape(x.shape)
      out = numerics.matmul(values, tables.astype(root.dtype))
      return jnp.where((root <= most)[..., None], out, jnp.nan)
    return coefficients

  return _series(name or getattr(fn, '__name__', 'Elementwise'),
                 series(fn), series(slope))


def Polynomial(coefs: Sequence[float]) -> Layer:
  """sum_i coefs[i] x^i, exactly; see `Elementwise`.

  Raises:
    ValueError: no coefficient, one that is not finite, or all 0.
  """
  for value in coefs:
    checks.number('coefs', value)
  if not any(coefs):
    raise ValueError('`coefs` must hold a number that is not 0.')
  slopes = [i * c for i, c in enumerate(coefs)][1:] or [0.0]
  return _series(f'Polynomial({len(coefs) - 1})', _exactly(coefs),
                 _exactly(slopes))


def Hermite(degree: int) -> Layer:
  """He_n / sqrt(n!), whose square has a mean of 1; see `Polynomial`.

  Pre-activations of variance 1 give k' = k^n; other variances are right, too.

  Raises:
    ValueError: `degree` is not a positive integer.
  """
  checks.at_least('degree', degree, 1)
  coefs = np.polynomial.hermite_e.herme2poly([0] * degree + [1])
  return Polynomial([float(c) for c in coefs / math.sqrt(
      math.factorial(degree))])._replace(name=f'Hermite({degree})')


def _exactly(coefs):
  """r -> h_n(r) of a polynomial: E[z^i e_n] is known."""
  table = np.zeros((len(coefs), len(coefs)))
  for i, value in enumerate(coefs):
    for n in range(i % 2, i + 1, 2):
      half = (i - n) // 2
      table[i, n] = value * (math.factorial(i) / math.factorial(half)
                             / 2**half / math.sqrt(math.factorial(n)))

  def coefficients(root):
    powers = [jnp.ones_like(root)]
    for _ in coefs[1:]:
      powers.append(powers[-1] * root)
    return numerics.matmul(jnp.stack(powers, -1), table.astype(root.dtype))

  return coefficients


def _series(name, of_fn, of_slope):

  def moments(q):
    root = numerics.safe_sqrt(q)
    h = of_fn(root)
    out = jnp.sum(h**2, axis=-1)
    return out, (numerics.safe_divide(jnp.ones_like(root), root), h,
                 of_slope(root), numerics.safe_sqrt(out))

  def rule(one, two, gap, ntk):
    root1, (inv1, h1, g1, out1) = one
    root2, (inv2, h2, g2, out2) = two
    lost = jnp.minimum(gap * inv1 * inv2, 2)  # 1 - c, 0 of a zero vector.
    c = 1 - lost

    def term(carry, ends):
      total, opened = carry
      left, right = ends
      total = total + left * right
      return (total, opened * c + total), None

    def polynomial(carry, ends):
      left, right = ends
      return carry * c + left * right, None

    def sums(step, start, left, right):
      """Over the terms, the last one first."""
      first = lambda a: jnp.moveaxis(a, -1, 0)
      return lax.scan(step, start, (first(left), first(right)), reverse=True,
                      unroll=4)[0]

    zero = jnp.zeros_like(gap)
    _, opened = sums(term, (zero, zero), h1[..., 1:], h2[..., 1:])
    nngp = sums(polynomial, zero, h1, h2)
    half_distance = (0.5 * jnp.sum((h1 - h2) ** 2, axis=-1) + lost * opened)
    slope = sums(polynomial, zero, g1, g2)
    # The term in k itself, which roots cannot differentiate at a zero vector.
    nngp += jnp.where(inv1 * inv2 == 0, slope * (root1 * root2 - gap), 0)
    return (gap_after(half_distance, out1, out2, nngp), nngp,
            None if ntk is None else ntk * slope)

  return nonlinear(name, moments, rule)


def _hermite_functions(z):
  """e_n(z) exp(-z^2 / 4) for n below `_MOST_TERMS`, by their recursion."""
  out = [np.exp(-z * z / 4), z * np.exp(-z * z / 4)]
  for n in range(1, _MOST_TERMS - 1):
    out.append((z * out[n] - math.sqrt(n) * out[n - 1]) / math.sqrt(n + 1))
  return np.stack(out, axis=1)
