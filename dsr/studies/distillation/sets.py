"""Sets of images as their readers see them: all of the data, or from a file."""
import os
import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dsr import checks
from dsr.data import classes as classes_lib, files, released
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
    notes: what its reader saw or decided, a phrase each.
  """

  pixels: np.ndarray
  labels: np.ndarray
  examples: Examples
  init_rows: np.ndarray | None
  init: str
  name: str
  student_rate: float | None = None
  notes: tuple[str, ...] = ()


def whole(problem: Problem) -> Shown:
  """The whole training set, as it is."""
  return Shown(problem.train.x, problem.train.y,
               problem.examples(problem.train), None, '', ALL)


def from_file(
    path: str | os.PathLike, problem: Problem) -> Shown:
  """A set that the user brings, in a file or folder of `released.read_set`.

  It has `images` (S, H, W, C) or (S, H, W), uint8 or near [0, 1], and `labels`,
  classes (S,) or probabilities of the classes (S, C), whose largest is the
  class; perhaps `targets` (S, K), learned labels in the encoding of
  `problem.encoded`; perhaps `rows` of the training set that it started from,
  and `student_rate`, a number, the rate of SGD that was learned with it.

  Labels are what the data call their classes. A file that has `classes`, names,
  has numbers of these as labels, in its own order.

  Raises:
    ValueError: names what is wrong with the file.
  """
  arrays, notes = released.read_set('set', path)
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
  if pixels.ndim == 4 and (pixels.min() < 0 or pixels.max() > 1):
    if np.abs(pixels - 0.5).max() > _FAR:
      raise ValueError('`images` must be near [0, 1], got values from '
                       f'{pixels.min():.4g} to {pixels.max():.4g}.')
    notes += (_range(pixels),)
  checks.same_rows(images=pixels, labels=labels)
  labels, soft = _labels(arrays, problem.train)
  own = Dataset(pixels, labels, problem.train.num_classes, os.fspath(path))
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
               pathlib.Path(path).stem, rate_of(arrays), notes)


def _range(pixels) -> str:
  outside = ((pixels < 0) | (pixels > 1)).mean()
  return (f'its pixels go from {pixels.min():.2f} to {pixels.max():.2f}, '
          f'{outside:.0%} of them outside [0, 1], and are used as they are (if '
          'they were standardised, dsr.data.released.convert undoes it)')


def _labels(arrays, train) -> tuple[np.ndarray, np.ndarray | None]:
  """Classes (S,) of the data, and their probabilities (S, C), if given."""
  labels, number, names = arrays['labels'], train.num_classes, train.classes
  order = np.arange(number)
  if 'classes' in arrays:
    own = arrays['classes']
    order = classes_lib.look_up(
        'classes', own, names or tuple(map(str, range(number))))
    names = ()
    if labels.dtype.kind in 'SU':
      labels = classes_lib.look_up('labels', labels, tuple(map(str, own)))
  if labels.ndim == 2:
    soft = np.zeros((len(labels), number))
    soft[:, order] = _probabilities(labels, len(order))
    return soft.argmax(1).astype(np.int32), soft
  if labels.dtype.kind in 'SU' or any(n.lstrip('-').isdecimal()
                                      for n in names):
    return classes_lib.look_up(
        'labels', labels, names or tuple(map(str, range(number)))), None
  checks.labels('labels', labels, len(order))
  return order[labels].astype(np.int32), None


def rate_of(arrays: dict[str, np.ndarray]) -> float | None:
  """The number `student_rate` of SGD, if it is there.

  Raises:
    ValueError: it is not positive.
  """
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


