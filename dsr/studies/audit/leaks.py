"""What came back of a set, and of the training images that it was made from.

A candidate counts for the set as it is. For training images it is first clipped
to [0, 1], which brings it nearer to all of them: an attacker would do so.
"""
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.spatial import distance

from dsr.attack import match, pairwise
from dsr.probes import intervals, membership, nearest as nearest_lib
from dsr.report import figures
from dsr.runs import records
from dsr.studies.reconstruction import scoring, victims

LEVEL = '0.05'  # RMSE below which the sentence counts an image.
_FRESH = 1000  # Real images that were not trained on, at most.
_GREY = 1e-6  # Length of what rounding leaves of an image of one grey.
_DRAWN = 20  # Images of the set in the picture, at most.
_QUANTILES = {'q25': 0.25, 'median': 0.5, 'q75': 0.75}


class Near(NamedTuple):
  """How near some images are to training images, the nearest of each.

  Attributes:
    rmse: (N,) to the nearest by RMSE.
    ssim: (N,) with the most similar.
    corr: (N,) correlation of pixels with the most correlated, which brightness
      and contrast do not change; 0 for an image of one grey.
    index: (N,) the nearest by RMSE.
  """

  rmse: np.ndarray
  ssim: np.ndarray
  corr: np.ndarray
  index: np.ndarray


class Leak(NamedTuple):
  """An attack on a network that learned S images, made of N training images.

  Attributes:
    pixels: (M, ...) candidates, the surest first; not clipped.
    own: (S,) RMSE of the set's images to their candidates, one to one.
    place: (S,) these candidates; -1 for none.
    train: (N,) the same of the training images.
    others: (N,) of the training images to M other real images.
    given: (N,) of the training images to the images of the set themselves.
    near: name to `Near`: of the `set`, of the S surest candidates (`rebuilt`),
      of real images that were not trained on (`fresh`), and of the `means` of
      their classes, which are blurred and so near to much.
  """

  pixels: np.ndarray
  own: np.ndarray
  place: np.ndarray
  train: np.ndarray
  others: np.ndarray
  given: np.ndarray
  near: dict[str, Near]


def score(seed: int, task: victims.Task, train: np.ndarray,
          pixels: np.ndarray) -> Leak:
  """Compares candidates with the set and with the training images.

  Args:
    seed: of the choice of other real images, from the test set.
    task: the set, as data of the victim.
    train: (N, ...) training images, in [0, 1].
    pixels: (M, ...) candidates, the surest first.
  """
  own, test = task.train.x, task.test
  order = np.asarray(jax.random.permutation(
      jax.random.fold_in(jax.random.key(seed), 2), len(test)))
  fresh = test.x[order[:_FRESH]]
  means = np.stack([test.x[test.y == c].mean(axis=0)
                    for c in np.unique(test.y)])
  clipped, given = (np.clip(x, 0, 1) for x in (pixels, own))
  found = match.assign(_rmse(own, pixels))
  images = {'set': given, 'rebuilt': clipped[:len(own)], 'fresh': fresh,
            'means': means}
  return Leak(
      pixels, found.distance, found.candidate,
      match.assign(_rmse(train, clipped)).distance,
      match.assign(_rmse(train, fresh[:len(pixels)])).distance,
      match.assign(_rmse(train, given)).distance,
      {name: _near(x, train) for name, x in images.items()})


def _rmse(x, z):
  # As `pairwise.distances`, which wants x to lie in [0, 1].
  gaps = distance.cdist(*(a.reshape(len(a), -1) for a in (x, z)))
  return gaps / np.sqrt(x[0].size)


def _near(x, train) -> Near:
  by_rmse = nearest_lib.nearest(x, train)
  by_ssim = nearest_lib.nearest(
      x, train, metric=lambda a, b: pairwise.distances(a, b, 'ssim'))
  by_corr = nearest_lib.nearest(x, train, metric=_uncorrelated)
  return Near(by_rmse.distance / np.sqrt(train[0].size), 1 - by_ssim.distance,
              1 - by_corr.distance, by_rmse.index)


def _uncorrelated(x, z):
  """1 - correlation of all pairs."""
  flat = [a.reshape(len(a), -1).astype(float) for a in (x, z)]
  centred = [a - a.mean(axis=1, keepdims=True) for a in flat]
  scaled = [a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), _GREY)
            for a in centred]
  return 1 - np.clip(scaled[0] @ scaled[1].T, -1, 1)


def metrics(seed: int, leak: Leak) -> dict[str, Any]:
  """Of a record.

  Shares, with Wilson intervals, of the set (`own_`), of the training images by
  the attack (`train_`), by other real images (`others_`) and by the set itself
  (`given_`). Distributions of RMSE, SSIM and correlation with the nearest
  training image. And how often the set, or what was rebuilt, is nearer to one
  than a fresh real image is: `set_nearer`, and by correlation `set_more_alike`,
  1/2 by chance, with bootstrap intervals.
  """
  out = {}
  for name in ('own', 'train', 'others', 'given'):
    out |= scoring.shares(f'{name}_', getattr(leak, name))
  for name, near in leak.near.items():
    for measure in ('rmse', 'ssim', 'corr'):
      out |= _distribution(f'{name}_nearest_{measure}', getattr(near, measure))
  fresh = leak.near['fresh']
  for name in ('set', 'rebuilt', 'means'):
    near = leak.near[name]
    out[f'{name}_nearer'] = _auc(seed, -near.rmse, -fresh.rmse)
    out[f'{name}_more_alike'] = _auc(seed, near.corr, fresh.corr)
  return out


def _auc(seed, own, others) -> intervals.Interval:
  """How often one of `own` is above one of `others`."""
  both = np.r_[own, others]
  return membership.evaluate(
      jax.random.key(seed), both, np.arange(len(both)) < len(own)).auc


def _distribution(name, values) -> dict[str, Any]:
  mean = intervals.mean_t(values) if len(values) > 1 else records.metric(
      float(values.mean()))
  low = max(mean.low, 0.0) if values.min() >= 0 else mean.low
  out = {f'{name}_mean': records.metric(mean.value, low, mean.high)}
  numbers = {'min': values.min(), 'max': values.max()} | {
      label: np.quantile(values, q) for label, q in _QUANTILES.items()}
  return out | scoring.exact(
      {f'{name}_{label}': value for label, value in numbers.items()})


def arrays(leak: Leak) -> dict[str, np.ndarray]:
  """All of it, for an npz."""
  out = {name: value for name, value in leak._asdict().items()
         if name != 'near'}
  return out | {f'{name}_nearest_{field}': value
                for name, near in leak.near.items()
                for field, value in near._asdict().items()}


def draw(path: pathlib.Path, own: np.ndarray, train: np.ndarray, leak: Leak, *,
         title: str) -> pathlib.Path:
  """Images of the set, what was rebuilt, and the training image nearest to it.

  From the best rebuilt to the worst, evenly spaced by rank if they are many;
  white squares stand for what is missing.

  Args:
    path: of the PNG.
    own: (S, ...) images of the set.
    train: (N, ...) training images.
    leak: of `score`.
    title: stands above.
  """
  order = np.argsort(leak.own, kind='stable')
  order = order[np.linspace(
      0, len(own) - 1, min(len(own), _DRAWN)).round().astype(int)]
  rebuilt, near = np.ones_like(own[order]), np.ones_like(own[order])
  has = leak.place[order] >= 0
  if has.any():
    rebuilt[has] = leak.pixels[leak.place[order][has]]
    near[has] = train[nearest_lib.nearest(
        np.clip(rebuilt[has], 0, 1), train).index]
  middle = scoring.median(leak.own)
  return figures.image_grid(
      path, np.stack([own[order], rebuilt, near]),
      ['set', 'rebuilt', 'nearest'],
      title=f'{title}: median RMSE {middle:.2g}')


def nearest_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Of a table: how near each set and reconstruction is to training images.

  Args:
    rows: with `method`, `regime` and the `metrics` of an attack, all on sets
      made of the same training images.
  """
  out = {}
  for row in rows:
    for name, images in (('set', 'of the set'),
                         ('rebuilt', f'rebuilt, {row["regime"]}')):
      out.setdefault((row['method'], images), _nearest_row(row, name))
  out['', 'fresh real ones'] = _nearest_row(rows[0], 'fresh')
  out['', 'class means of these'] = _nearest_row(rows[0], 'means')
  return [{'method': method, 'images': images, 'metrics': found}
          for (method, images), found in out.items()]


def _nearest_row(row, name) -> dict[str, Any]:
  """`set_nearest_rmse_mean` as `rmse_mean`, and so on."""
  return {key.removeprefix(f'{name}_').removeprefix('nearest_'): metric
          for key, metric in row['metrics'].items()
          if key.startswith((f'{name}_near', f'{name}_more_alike'))}


def sentence(rows: list[dict[str, Any]], num_train: int) -> str:
  """What came back, in plain words: of T, of learned sets, of real ones.

  Args:
    rows: with `method`, `num_images` and the `metrics` of an attack.
    num_train: images of T.
  """
  share = lambda row, who: (
      row['metrics'][f'{who}_recovered_rmse_{LEVEL}'].value)
  count = lambda row: round(share(row, 'train') * num_train)
  held = lambda row: round(
      row['metrics']['given_recovered_rmse_0.01'].value * num_train)
  whole = [row for row in rows if row['method'] == 'all']
  real = [row for row in rows
          if row not in whole and held(row) == row['num_images']]
  learned = [row for row in rows if row not in whole and row not in real]
  parts = []
  if whole:
    parts.append(f'networks trained on all of T gave back '
                 f'{_span(whole, count)} of its {num_train} images')
  if learned:
    own = _span(learned, lambda row: round(100 * share(row, 'own')))
    parts.append(f'networks trained on learned images {_span(learned, count)} '
                 f'of them, but {own} % of the learned images')
  if real:
    parts.append(f'networks trained on {_span(real, held)} images of T '
                 f'{_span(real, count)}')
  return f'At RMSE < {LEVEL}, {"; ".join(parts)}.'


def _span(rows, count) -> str:
  """'3' or '2 to 5'."""
  counts = [count(row) for row in rows]
  low, high = min(counts), max(counts)
  return str(low) if low == high else f'{low} to {high}'
