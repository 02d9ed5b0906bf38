"""Groups of test points: what all numbers across them share."""
import numpy as np

from dsr import checks
from dsr.probes import strata
from dsr.probes.intervals import Interval


def checked(labels, groups, group_names, level, **predictions):
  """The partition, labels (N,), and predictions as a list of (R, N)."""
  checks.within('level', level, 0, 1)
  named = groups is None and group_names is not None

  def check(name, classes):
    checks.class_indices(name, classes)
    most = len(group_names) if named else 1 + int(classes.max(initial=0))
    checks.labels(name, classes, most)

  labels = np.asarray(labels)
  check('labels', labels)
  both = []
  for name, said in predictions.items():
    said = np.atleast_2d(np.asarray(said))
    if said.ndim != 2 or said.shape[1] != len(labels) or not len(said):
      raise ValueError(f'`{name}` must have shape (R, {len(labels)}) or '
                       f'({len(labels)},), got {said.shape}.')
    check(name, said.ravel())
    both.append(said)
  argument, names = 'groups', group_names
  if groups is None:
    argument, groups = 'labels', labels
    names = range(len(group_names)) if named else None
  parts = strata.partition(
      groups, rows=len(labels), names=names, argument=argument, fewest=2)
  if group_names is not None:
    parts = parts._replace(names=tuple(group_names))
  if len(parts.names) < 2:
    raise ValueError(f'`{argument}` must hold at least 2 groups, got '
                     f'{parts.names}.')
  return parts, labels, both


def between(right, parts, point, drawn):
  """`between`, and its resamples (B,): noise of both kinds taken off."""
  chance = strata.sampling_variance(right.astype(float), parts)
  measured, resampled = point.accuracy.var(), drawn.accuracy.var(-1)
  again = resampled.mean() - measured  # What resampling adds.
  return (np.sqrt(max(measured - chance, 0)),
          np.sqrt(np.maximum(resampled - again - chance, 0)))


def percentiles(values, draws, level):
  """Values (K,) with percentiles of their resamples (B, K)."""
  ends = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
  return tuple(Interval(*map(float, row)) for row in np.c_[values, ends.T])
