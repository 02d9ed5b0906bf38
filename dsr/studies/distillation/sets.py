"""Sets of images as their readers see them: all of the data, or from a file."""
import os
import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dsr import checks
from dsr.data import files
from dsr.studies.distillation.problem import Problem
from dsr.types import Dataset, Examples

ALL = 'all'  # The name of the whole training set.
_FAR = 8.0  # Distilled pixels leave [0, 1], but not by so much.


class Shown(NamedTuple):
  """A set as its readers see it.

  Attributes:
    pixels: (S, H, W, C), near [0, 1].
    labels: (S,) classes.
    examples: inputs and encoded targets, of which models are trained.
    init_rows: rows of the training set that the set consists of, started
      from, or (`init` is 'noise') would have started from; None if unknown.
    init: 'real', 'noise', 'chosen' (the rows are the set) or '' (unknown).
    name: of the method.
    student_rate: of SGD, if it was learned with the set; see
      `evaluation.protocol`.
  """

  pixels: np.ndarray
  labels: np.ndarray
  examples: Examples
  init_rows: np.ndarray | None
  init: str
  name: str
  student_rate: float | None = None


def whole(problem: Problem) -> Shown:
  """The whole training set, as it is."""
  return Shown(problem.train.x, problem.train.y,
               problem.examples(problem.train), None, '', ALL)


def from_file(
    path: str | os.PathLike, problem: Problem) -> Shown:
  """A set from elsewhere, as an .npz.

  It has `images` (S, H, W, C) or (S, H, W), uint8 or near [0, 1], and `labels`,
  classes (S,) or probabilities of the classes (S, C), whose largest is the
  class; perhaps `targets` (S, K), learned labels in the encoding of
  `problem.encoded`; perhaps `rows` of the training set that it started from,
  and `student_rate`, a number, the rate of SGD that was learned with it.

  Raises:
    ValueError: names what is wrong with the file.
  """
  path = pathlib.Path(path)
  arrays = files.read_npz('set', path)
  if missing := [n for n in ('images', 'labels') if n not in arrays]:
    raise ValueError(f'`set` must have the arrays images and labels, {path} '
                     f'lacks {", ".join(missing)}.')
  pixels, labels = arrays['images'], arrays['labels']
  if pixels.dtype == np.uint8:
    pixels = pixels / np.float32(255)
  if pixels.ndim == 3:
    pixels = pixels[..., None]
  files.channels_last('images', pixels)
  pixels = pixels.astype(np.float32) if pixels.dtype.kind == 'f' else pixels
  checks.inputs('images', pixels, like=problem.train.x)
  checks.finite('images', pixels)
  if pixels.ndim == 4 and np.abs(pixels - 0.5).max() > _FAR:
    raise ValueError('`images` must be near [0, 1], got values from '
                     f'{pixels.min():.4g} to {pixels.max():.4g}.')
  soft = None
  if labels.ndim == 2:
    soft = _probabilities(labels, problem.train.num_classes)
    labels = soft.argmax(1)
  checks.labels('labels', labels, problem.train.num_classes)
  labels = labels.astype(np.int32)  # Within its range, as was checked.
  checks.same_rows(images=pixels, labels=labels)
  own = Dataset(pixels, labels, problem.train.num_classes, path.name)
  examples = problem.examples(own)
  if soft is not None:
    # Of two classes the encoding is 2 p - 1, else p - 1/C.
    examples = examples._replace(y=jnp.asarray(
        2 * soft[:, 1:] - 1 if soft.shape[1] == 2 else soft - 1 / soft.shape[1],
        examples.y.dtype))
  if 'targets' in arrays:
    if soft is not None:
      raise ValueError('`labels` must be classes (S,) beside `targets`, got '
                       f'probabilities {soft.shape}: give one of the two.')
    checks.targets('targets', arrays['targets'], rows=len(pixels))
    checks.features('targets', arrays['targets'], dim=examples.y.shape[1])
    checks.finite('targets', arrays['targets'])
    examples = examples._replace(
        y=jnp.asarray(arrays['targets'], examples.y.dtype))
  rows = arrays.get('rows')
  if rows is not None:
    if int(arrays.get('num_train', len(problem.train))) != len(problem.train):
      raise ValueError(
          '`validation` and `max_train` must be those of the set, whose `rows` '
          f'are of {arrays["num_train"]} training images, got '
          f'{len(problem.train)}; selections hold none out, `--validation=0`.')
    checks.labels('rows', rows, len(problem.train))
    checks.same_rows(images=pixels, rows=rows)
    if len(np.unique(rows)) < len(rows):
      raise ValueError('`rows` must be different rows of the training set, '
                       f'got {len(rows) - len(np.unique(rows))} repeated.')
  return Shown(pixels, labels, examples, rows, '' if rows is None else 'real',
               path.stem, rate_of(arrays))


def rate_of(arrays: dict[str, np.ndarray]) -> float | None:
  """The number `student_rate` of a file, if it is there."""
  if 'student_rate' not in arrays:
    return None
  rate = arrays['student_rate'].tolist()
  checks.positive('student_rate', rate)
  return float(rate)


def _probabilities(labels, num_classes) -> np.ndarray:
  """Soft labels, (S, C) and each row a distribution."""
  if (labels.shape[1] != num_classes or labels.dtype.kind not in 'biuf'
      or not np.isfinite(labels).all() or labels.min() < 0
      or np.abs(labels.sum(1) - 1).max() > 1e-3):
    raise ValueError(
        '`labels` must be classes (S,), or soft labels as probabilities '
        f'(S, {num_classes}) whose rows sum to 1, got {labels.dtype} '
        f'{labels.shape}; learned targets that are no probabilities go into '
        'the array `targets`, in the encoding of the audit (one-hot less 1/C; '
        'with two classes one column from -1 to 1), beside classes in `labels`.'
    )
  return labels.astype(float)
