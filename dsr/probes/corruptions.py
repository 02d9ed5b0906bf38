r"""Common corruptions of images, (key, x, severity) -> x, and accuracy on them.

Eight of the corruptions of Hendrycks & Dietterich (arXiv:1903.12261), the
"visual noise" that distilled sets are studied under (arXiv:2305.03355), with
the parameters of CIFAR-10-C, which are those for small images. Pixels are in
[0, 1] before and after, and not rounded to 8 bits as in the published sets.
Blurs repeat the pixels of the border. Every image draws its own noise; what is
drawn does not depend on x64. Severities may be traced; they are checked where
they are known.
"""
from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

from dsr import checks
from dsr.probes import intervals, robust_metrics
from dsr.types import PredictFn

SEVERITIES = (1, 2, 3, 4, 5)

# By severity; `make_cifar_c.py` of github.com/hendrycks/robustness.
PARAMETERS = {
    'gaussian_noise': (0.04, 0.06, 0.08, 0.09, 0.10),  # Standard deviation.
    'shot_noise': (500.0, 250.0, 100.0, 75.0, 50.0),  # Photons at pixel 1.
    'impulse_noise': (0.01, 0.02, 0.03, 0.05, 0.07),  # Share of entries.
    'gaussian_blur': (0.4, 0.6, 0.7, 0.8, 1.0),  # Deviation in pixels.
    'motion_blur': (1.0, 1.5, 2.0, 2.0, 2.5),  # Deviation in pixels.
    'contrast': (0.75, 0.5, 0.4, 0.3, 0.15),  # Factor.
    'brightness': (0.05, 0.1, 0.15, 0.2, 0.3),  # Added to the value of HSV.
    'pixelate': (0.95, 0.9, 0.85, 0.75, 0.65),  # Side, as a share of H and W.
}
_MOTION_TAPS = (13, 13, 13, 17, 19)  # 2 radius + 1, radius 6, 6, 6, 8, 9.
_BLUR_RADIUS = 4  # 4 deviations at severity 5, more at the others.

Images = Float[Array, 'N H W C']


def gaussian_noise(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  """x + c n, n standard normal in every entry."""
  c = _parameter('gaussian_noise', x, severity)
  return _cut(x + c * jax.random.normal(key, x.shape, jnp.float32), x)


def shot_noise(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  """Poisson(c x) / c in every entry: mean x, variance x / c."""
  c = _parameter('shot_noise', x, severity)
  rate = (c * x).astype(jnp.float32)
  return _cut(jax.random.poisson(key, rate, dtype=jnp.int32) / c, x)


def impulse_noise(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  """Salt and pepper: a share c of the entries becomes 0 or 1, as is likely."""
  c = _parameter('impulse_noise', x, severity)
  draw = jax.random.uniform(key, x.shape, jnp.float32)
  return jnp.where(draw < c, (draw < c / 2).astype(x.dtype), x)


def gaussian_blur(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  """Mean of the neighbours under a normal law of deviation c; draws nothing."""
  import dm_pix

  del key
  c = _parameter('gaussian_blur', x, severity)
  r = _BLUR_RADIUS
  wide = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)), mode='edge')
  return _cut(
      dm_pix.gaussian_blur(wide, c, 2 * r + 1, padding='VALID'), x)


def motion_blur(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  r"""Mean along a trail in a direction a, uniform in [-45, 45] degrees.

  \sum_i w_i x(p + round(i (\sin a, \cos a))), w_i \propto \exp(-i^2 / 2 c^2),
  i from 0 to 2 radius: one-sided, at whole pixels, as ImageMagick has it.
  """
  c = _parameter('motion_blur', x, severity)
  taps = jnp.asarray(_MOTION_TAPS)[jnp.asarray(severity) - 1]
  step = jnp.arange(max(_MOTION_TAPS))
  weight = jnp.where(step < taps, jnp.exp(-((step / c) ** 2) / 2), 0)
  weight = (weight / weight.sum()).astype(x.dtype)
  angle = jax.random.uniform(
      key, (len(x),), jnp.float32, -np.pi / 4, np.pi / 4)
  height, width = x.shape[1:3]

  def blur(image, a):

    def add(total, tap):
      i, w = tap
      down, right = (jnp.ceil(i * f(a) - 0.5).astype(int)
                     for f in (jnp.sin, jnp.cos))
      row = jnp.clip(jnp.arange(height) + down, 0, height - 1)
      column = jnp.clip(jnp.arange(width) + right, 0, width - 1)
      return total + w * image[row][:, column], None

    return jax.lax.scan(add, jnp.zeros_like(image), (step, weight))[0]

  return _cut(jax.vmap(blur)(x, angle), x)


def contrast(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  """c (x - m) + m, m the mean of each image's channel; draws nothing."""
  import dm_pix

  del key
  c = _parameter('contrast', x, severity)
  return _cut(dm_pix.adjust_contrast(x, c), x)


def brightness(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  """HSV's value v, the largest channel, becomes min(v + c, 1); draws nothing.

  Hue and saturation stay, so x is multiplied by min(v + c, 1) / v.
  """
  del key
  c = _parameter('brightness', x, severity)
  v = jnp.max(x, axis=-1, keepdims=True)
  bright = jnp.minimum(v + c, 1)
  return _cut(jnp.where(v > 0, x * bright / jnp.where(v > 0, v, 1), bright), x)


def pixelate(key: Key[Array, ''], x: Images, severity: Any) -> Images:
  """To floor(c H) x floor(c W) pixels and back, by box filters; draws nothing.

  A small pixel is the mean of those with their centres in it, at least one.
  """
  del key
  _check_severity(severity)
  index = jnp.asarray(severity) - 1
  down, across = (
      jnp.asarray(np.stack([_there_and_back(n, c) for c in
                            PARAMETERS['pixelate']]), x.dtype)[index]
      for n in x.shape[1:3])
  return _cut(jnp.einsum(
      'hi,nijc,wj->nhwc', down, x, across, precision='highest'), x)


CORRUPTIONS = {f.__name__: f for f in (
    gaussian_noise, shot_noise, impulse_noise, gaussian_blur, motion_blur,
    contrast, brightness, pixelate)}


def apply(
    key: Key[Array, ''], name: str, x: Any, *, severity: int) -> Images:
  """The corruption called `name`, compiled once for all severities.

  Args:
    key: of the noise or the direction.
    name: one of `CORRUPTIONS`.
    x: (N, H, W, C) floating pixels in [0, 1].
    severity: 1 to 5.

  Raises:
    ValueError: an argument of wrong shape, dtype or range.
  """
  checks.one_of('name', name, CORRUPTIONS)
  checks.images('x', x)
  checks.finite('x', x)
  low, high = float(np.min(x)), float(np.max(x))
  if low < 0 or high > 1:
    raise ValueError(f'`x` must be in [0, 1], got [{low:g}, {high:g}].')
  _check_severity(severity)
  return _compiled(key, jnp.asarray(x), severity, name=name)


def accuracy(
    key: Key[Array, ''], predict_fn: PredictFn, x: Any, labels: Any, *,
    names: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES, level: float = 0.95
) -> dict[Any, intervals.Interval]:
  """Accuracy on corrupted examples.

  Args:
    key: folded with name and severity, so that a corruption is the same
      whichever others are asked for.
    predict_fn: x (N, H, W, C) -> logits (N, C); with C = 1 the sign is the
      class.
    x: (N, H, W, C) floating pixels in [0, 1], N at least 2.
    labels: (N,) integers in [0, C).
    names: of `CORRUPTIONS`.
    severities: 1 to 5.
    level: coverage of the intervals over examples, in (0, 1).

  Returns:
    (name, severity) -> Wilson's interval, and 'mean' -> the mean over all,
    with Student's t interval of the examples' means: examples are independent,
    corruptions of one example are not.

  Raises:
    ValueError: as `apply`, logits that do not fit, or nothing to measure.
  """
  if not len(names) or not len(severities):
    raise ValueError('`names` and `severities` must not be empty, got '
                     f'{tuple(names)} and {tuple(severities)}.')
  found, right = {}, []
  for name in names:
    checks.one_of('name', name, CORRUPTIONS)
    of_name = jax.random.fold_in(key, list(CORRUPTIONS).index(name))
    for severity in severities:
      corrupted = apply(jax.random.fold_in(of_name, severity), name, x,
                        severity=severity)
      right.append(robust_metrics.right(predict_fn, corrupted, labels))
      found[name, severity] = intervals.wilson(
          int(right[-1].sum()), len(x), level=level)
  mean, low, high = intervals.mean_t(np.mean(right, axis=0), level=level)
  return found | {'mean': intervals.Interval(mean, max(low, 0), min(high, 1))}


@functools.partial(jax.jit, static_argnames='name')
def _compiled(key, x, severity, *, name):
  return CORRUPTIONS[name](key, x, severity)


def _check_severity(severity):
  if not isinstance(severity, jax.core.Tracer):
    checks.one_of('severity', severity, SEVERITIES)


def _parameter(name, x, severity):
  _check_severity(severity)
  table = jnp.asarray(PARAMETERS[name], x.dtype)
  return table[jnp.asarray(severity) - 1]


def _cut(y, x):
  return jnp.clip(y, 0, 1).astype(x.dtype)


def _there_and_back(n: int, share: float):
  """Box filter from n to floor(share n) samples, and nearest ones back."""
  small = max(1, int(n * share))
  edges = np.arange(small + 1) * n / small
  centres = np.arange(n) + 0.5
  held = (centres > edges[:-1, None]) & (centres <= edges[1:, None])
  down = held / held.sum(1, keepdims=True)
  return down[(centres * small / n).astype(int)]
