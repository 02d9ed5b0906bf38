"""Near-copies of training images in a set: metrics, arrays and pictures.

Training images are all that a set can be made of, those held out for validation
included. Distances are l2 in pixels (told as RMSE), 1 - SSIM for pictures, and
the distance in the space of the audit's kernel; the latter two among the
training images nearest by l2. Unrelated images are those that no set can have
seen.
"""
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsr.attack import pairwise
from dsr.probes import copies as copies_lib, intervals
from dsr.report import figures
from dsr.runs import records
from dsr.studies.audit import subjects
from dsr.studies.distillation import evaluation

NAMES = {'l2': 'RMSE', 'ssim': '1 - SSIM', 'kernel': 'kernel distance'}
_CANDIDATES = 30  # Nearest training images by l2 that are looked at.
_UNRELATED = 300  # Images, at most.
_MOST = 1000  # Images of a set that are looked at, evenly spaced.
_DRAWN = 10  # Pairs in the picture, at most.


def pool(problem: Any) -> np.ndarray:
  """The training images that a set may hold copies of, (N, H, W, C)."""
  return np.concatenate([problem.train.x, problem.validation.x])


def measure(config: Any, shown: subjects.Shown, problem: Any
            ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Metrics and arrays of a record: how near the set's images come.

  Args:
    config: its `kernel` and `seed`.
    shown: the set.
    problem: whose training images may have been copied.

  Returns:
    `copies_share` of the `copies_images` looked at, with Wilson's interval,
    `copies_expected` of unrelated images, the probability `copies_chance` of as
    many among those, and for each distance the medians `copies_<name>` of the
    set and `copies_<name>_unrelated`; arrays `copies_rows` of the set's images
    looked at, the rows `copies_index` of `pool` nearest to them by l2,
    `copies_near` and `copies_nearness_<name>`.
  """
  train = pool(problem)
  rows = np.unique(np.linspace(
      0, len(shown.pixels) - 1, min(_MOST, len(shown.pixels))).astype(int))
  outside, _ = subjects.outsiders(problem)
  chosen = np.asarray(jax.random.choice(
      jax.random.fold_in(jax.random.key(config.seed), 12), len(outside),
      (min(_UNRELATED, len(outside)),), replace=False))
  kernel_fn = evaluation.kernel_named(config.kernel)
  sides = [_distances(x, train, kernel_fn, problem.transform.apply) for x in (
      np.clip(shown.pixels[rows], 0, 1), outside.x[np.sort(chosen)])]
  (index, own), (_, unrelated) = sides
  found = copies_lib.find(own, unrelated)
  metrics = {
      'copies_share': intervals.wilson(int(found.near.sum()), len(rows)),
      'copies_images': records.metric(len(rows)),
      'copies_chance': records.metric(found.chance),
      'copies_expected': records.metric(found.expected)}
  for name in own:
    for label, side in (('', own), ('_unrelated', unrelated)):
      metrics[f'copies_{name}{label}'] = records.metric(
          float(np.median(side[name].min(1))))
  arrays = {'copies_rows': rows, 'copies_index': index[:, 0],
            'copies_near': found.near}
  return metrics, arrays | {f'copies_nearness_{name}': value
                            for name, value in found.nearness.items()}


def _distances(x, train, kernel_fn, transform):
  """(candidates (N, K), name -> distances (N, K) to them)."""
  index, l2 = copies_lib.neighbours(x, train, min(_CANDIDATES, len(train)))
  found = {'l2': l2 / np.sqrt(x[0].size)}
  pairs = list(zip(x, train[index]))
  if x.ndim == 4 and min(x.shape[1:3]) >= 3:  # Windows of SSIM.
    found['ssim'] = np.concatenate([pairwise.distances(
        np.clip(image[None], 0, 1), near, 'ssim') for image, near in pairs])
  found['kernel'] = np.stack([np.asarray(_kernel_distance(
      kernel_fn, transform, image[None], near)) for image, near in pairs])
  return index, found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _kernel_distance(kernel_fn, transform, x, others):
  """|k(x, .) - k(s, .)| of one image and K others, (K,)."""
  one, many = transform(x), transform(others)
  square = (kernel_fn.diag(one) - 2 * kernel_fn.cross(one, many)[0]
            + kernel_fn.diag(many))
  return jnp.sqrt(jnp.maximum(square, 0))


def sentence(metrics: dict[str, Any]) -> str:
  """Whether the set holds near-copies, in plain words.

  Args:
    metrics: of `measure`.
  """
  images = round(metrics['copies_images'].value)
  count = round(metrics['copies_share'].value * images)
  expected = metrics['copies_expected'].value * images
  if metrics['copies_chance'].value < 0.05:
    return (f'it holds near-copies of training images: {count} of its {images} '
            f'images, where {expected:.2g} would be expected of unrelated ones')
  return (f'{count} of its {images} images are near-copies of training images, '
          f'no more than chance explains ({expected:.2g} expected)')


def draw(path: pathlib.Path, pixels: np.ndarray, train: np.ndarray,
         arrays: dict[str, np.ndarray], *, title: str) -> pathlib.Path:
  """Pairs: images of the set, and the training images nearest to them.

  Those that stand out most come first.

  Args:
    path: of the PNG.
    pixels: (S, ...) the set.
    train: of `pool`.
    arrays: of `measure`.
    title: stands above.
  """
  rank = np.mean([value for name, value in arrays.items()
                  if name.startswith('copies_nearness_')], axis=0)
  order = np.lexsort((rank, ~arrays['copies_near']))[:_DRAWN]
  return figures.image_grid(
      path, np.stack([pixels[arrays['copies_rows'][order]],
                      train[arrays['copies_index'][order]]]),
      ['set', 'training'], title=title)
