"""What a reconstruction is worth: numbers, pictures and rows of a table."""
from collections.abc import Callable
import math
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from dsr import data as data_lib
from dsr.attack import baselines, match, outliers
from dsr.attack.result import Reconstruction
from dsr.probes import intervals
from dsr.report import figures, tables
from dsr.runs import records
from dsr.studies.reconstruction import victims
from dsr.studies.reconstruction.attacks import AttackConfig
from dsr.studies.reconstruction.cases import Case

_POOL = 10_000  # Other real images that baselines see, at most.
CLAIMED_RMSE = 0.05  # Below it a claim is true.
_LINE_UP = 1000  # Of these, for the rank of the true image.
_SIMILAR = 0.4  # SSIM of images that are counted as similar.

# arXiv:2302.01428, from the figure in its released notebook: L2 of the i-th
# best pair by greedy matching; 200 images, standard training at width 2048.
_INDEX = (0, 10, 25, 50, 75, 100, 125, 140, 145, 150, 175, 199)
PUBLISHED = {
    'mnist_odd_even': (
        0.50, 0.73, 0.80, 1.03, 1.21, 1.45, 1.79, 2.4, 4.6, 5.9, 7.0, 9.5),
    'cifar10_animal_vehicle': (
        2.8, 3.4, 4.0, 4.5, 4.8, 5.3, 6.0, 6.9, 7.4, 8.1, 12.9, 18.8),
}

COLUMNS = (
    'who',
    *(tables.Column(f'recovered_rmse_{t:g}', title=f'RMSE < {t:g}',
                    percent=True) for t in match.THRESHOLDS),
    tables.Column('median_rmse', title='median RMSE'))


class Scored(NamedTuple):
  """A reconstruction beside the truth and beside guesses without an attack.

  Attributes:
    pixels: (M, ...) candidates.
    score: of the attack.
    others: of as many other real images.
    num_others: how many these are: M, or all there are.
    means: (N,) RMSE to the mean of other images of the class.
    means_ssim: (N,) SSIM with it; None without images.
    ranks: of the true images in line-ups, seen from their candidates; None
      where there are too few other images.
    chance_ranks: the same, from the other real images.
    table: what sets images apart; None without true duals, or if N < 3.
    correlation: rank correlation of |dual| and error; also None if either is
      the same for all images.
  """

  pixels: np.ndarray
  score: match.Score
  others: match.Score
  num_others: int
  means: np.ndarray
  means_ssim: np.ndarray | None
  ranks: baselines.Ranks | None
  chance_ranks: baselines.Ranks | None
  table: outliers.Table | None
  correlation: outliers.Correlation | None


def to_pixels(case: Case, candidates: np.ndarray) -> np.ndarray:
  """Candidates in the units of the dataset, [0, 1]; not clipped.

  An attack that found nothing is taken to guess the mean, 0 after transforms.
  """
  if not len(candidates):
    candidates = np.zeros_like(case.task.examples.x[:1])
  return data_lib.map_host(case.task.transform.invert, np.asarray(candidates))


def rmse(case: Case, candidates: np.ndarray) -> np.ndarray:
  """(N,) RMSE of candidates assigned one to one; inf for none."""
  gaps = match.distances(case.task.train.x, to_pixels(case, candidates))
  return match.assign(gaps).distance


def score(config: AttackConfig, case: Case, candidates: np.ndarray) -> Scored:
  """Compares `candidates`, (M, ...) in transformed space, with the truth."""
  key_pool, key_resample = jax.random.split(
      jax.random.fold_in(jax.random.key(config.seed), 2))
  truth, pixels = case.task.train.x, to_pixels(case, candidates)
  found = match.score(truth, pixels)
  pool = _others(key_pool, config, case)
  num = min(len(pixels), len(pool))
  guesses, line_up = pool.x[:num], pool.x[num:num + _LINE_UP]  # Random rows.
  others = match.score(truth, guesses)
  to_means = lambda metric: baselines.class_means(
      truth, pool.x, case.task.train.y, pool.y, metric=metric).distance
  means_ssim = None if found.ssim is None else 1 - to_means('ssim')
  ranks = chance = table = correlation = None
  if len(line_up):
    ranks = baselines.expected_rank(truth, pixels, found.assigned, line_up)
    chance = baselines.expected_rank(truth, guesses, others.assigned, line_up)
  if case.duals is not None and len(truth) > 2:
    table = outliers.per_image(
        truth, found.rmse, duals=case.duals, kernel=case.kernel)
    if np.ptp(table.dual) and (found.rmse != found.rmse[0]).any():
      correlation = outliers.rank_correlation(
          key_resample, table.dual, table.error)
  return Scored(pixels, found, others, num,
                to_means('rmse'), means_ssim, ranks, chance, table, correlation)


def _others(key, config, case):
  """Real images that were not trained on, in random order."""
  whole = data_lib.load(
      config.dataset, data_dir=config.data_dir, seed=config.seed).train
  rest = np.setdiff1d(np.arange(len(whole)), case.task.rows)
  order = np.asarray(jax.random.permutation(key, len(rest)))
  return whole.take(rest[order[:_POOL]])


def metrics(case: Case, scored: Scored) -> dict[str, Any]:
  """Of a record: shares with their Wilson intervals, and exact numbers.

  What is infinite, such as a mean error where an image has no candidate, is
  left out.
  """
  found, num = scored.score, len(scored.means)
  out = shares('', found.rmse)
  out |= shares('others_', scored.others.rmse)
  out |= shares('means_', scored.means)
  if found.ssim is not None:
    for prefix, ssim in (('', _greedy_ssim(found)),
                         ('others_', _greedy_ssim(scored.others)),
                         ('means_', scored.means_ssim)):
      out |= exact({f'{prefix}median_greedy_ssim': float(np.median(ssim))})
      out[f'{prefix}greedy_ssim_{_SIMILAR:g}'] = intervals.wilson(
          int(np.sum(ssim > _SIMILAR)), num)
  curve = found.greedy_curve
  numbers = {
      'mean_rmse': found.rmse.mean(), 'mean_ssim': found.mean_ssim,
      'greedy_l2_first': curve[0], 'greedy_l2_half': curve[num // 2],
      'greedy_l2_three_quarters': curve[3 * num // 4],
      'kernel_distance': case.distances.get('kernel'),
      'limit_distance': case.distances.get('limit')}
  numbers |= {f'unexplained_{name}': share
              for name, share in case.unexplained.items()}
  if scored.ranks is not None:
    numbers |= {'mean_rank': scored.ranks.mean,
                'others_mean_rank': scored.chance_ranks.mean,
                'chance_rank': scored.ranks.chance}
  out |= exact(numbers)
  if scored.correlation is not None:
    out['dual_error_correlation'] = records.metric(*scored.correlation)
  return out


def _greedy_ssim(found: match.Score) -> np.ndarray:
  """(N,) of pairs matched greedily by SSIM; 0 for images without one."""
  matched = found.greedy_ssim
  return np.where(matched.candidate >= 0, 1 - matched.distance, 0.0)


def exact(numbers: dict[str, float | None]) -> dict[str, records.Metric]:
  """Metrics without interval, of the numbers that are finite."""
  return {name: records.metric(float(value)) for name, value in numbers.items()
          if value is not None and math.isfinite(value)}


def shares(prefix: str, errors: np.ndarray) -> dict[str, Any]:
  """Shares below each threshold, and the median, of RMSEs (N,)."""
  out = {f'{prefix}recovered_rmse_{t:g}': intervals.wilson(count, len(errors))
         for t, count in match.recovered(errors).items()}
  return out | exact({f'{prefix}median_rmse': median(errors)})


def median(errors: np.ndarray) -> float:
  """Of numbers that may be infinite."""
  ranked = np.sort(errors)
  middle = ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]
  return float(sum(middle) / 2)  # np.median makes NaN of inf - inf.


def claimed(config: AttackConfig) -> dict[str, float]:
  """Published values of some metrics, if the case is the published one."""
  values = _published(config)
  if values is None:
    return {}
  at = dict(zip(_INDEX, values))
  return {'greedy_l2_first': at[0], 'greedy_l2_half': at[100],
          'greedy_l2_three_quarters': at[150]}


def _published(config):
  case = (config.regime, config.architecture, config.width, config.depth or 2,
          config.num_train)
  if case != ('standard', 'mlp', 2048, 2, 200):
    return None
  return PUBLISHED.get(config.dataset)


def claims(case: Case, found: Reconstruction) -> dict[str, records.Metric]:
  """`claimed`, how many candidates the attack itself holds for training images.

  With `claim_precision`, the share of them that are, up to `CLAIMED_RMSE`; not
  there if nothing is claimed.
  """
  claimed = found.candidates[found.claimed]
  out = exact({'claimed': float(len(claimed))})
  if len(claimed):
    gaps = match.distances(case.task.train.x, to_pixels(case, claimed))
    near = gaps.min(axis=0) < CLAIMED_RMSE
    out['claim_precision'] = intervals.wilson(int(near.sum()), len(claimed))
  return out


def arrays(case: Case, scored: Scored) -> dict[str, np.ndarray]:
  """What the figures show, and more, for an npz."""
  found = scored.score
  out = {
      'pixels': scored.pixels, 'truth': case.task.train.x,
      'labels': case.task.train.y, 'rows': case.task.rows,
      'assigned': found.assigned.candidate, 'rmse': found.rmse,
      'greedy_l2': found.greedy.distance, 'nearest_l2': found.nearest.distance,
      'others_rmse': scored.others.rmse, 'means_rmse': scored.means}
  if found.ssim is not None:
    out |= {'ssim': found.ssim, 'greedy_ssim': _greedy_ssim(found),
            'greedy_ssim_candidate': found.greedy_ssim.candidate,
            'others_greedy_ssim': _greedy_ssim(scored.others),
            'means_ssim': scored.means_ssim}
  if scored.ranks is not None:
    out['rank'] = scored.ranks.rank
  if scored.table is not None:
    out |= {f'outlier_{name}': column
            for name, column in scored.table._asdict().items()}
  if case.duals is not None:
    out['true_duals'] = case.duals
  return out


def rows(who: str, scored: Scored) -> list[dict[str, Any]]:
  """Of a table with `COLUMNS`: the attack, and the two baselines."""
  names = {who: scored.score.rmse,
           f'best of {scored.num_others} other images': scored.others.rmse,
           'class means': scored.means}
  return [{'who': name, 'metrics': shares('', errors)}
          for name, errors in names.items()]


def drawings(config: AttackConfig, case: Case, scored: Scored,
             folder: str = '') -> dict[str, Callable]:
  """`reconstructions.png`, `curve.png`, with duals `outliers.png`.

  Of a pre-trained network also `similar.png`, matched as its papers do.

  Returns:
    File, in `folder` if that is given -> function of the path that draws it,
    for `pictures.draw`.
  """
  truth, found = case.task.train.x, scored.score
  rebuilt = _of_images(scored, found.assigned)
  title = f'{config.dataset}, N = {len(truth)}, {config.regime}'
  todo = {'reconstructions.png': lambda path: figures.pairs(
      path, truth, rebuilt, found.rmse,
      title=f'{title}, {config.attack}: RMSE')}
  series = {config.attack: found.rmse,
            'other images': scored.others.rmse, 'class means': scored.means}
  if config.architecture == victims.PRETRAINED:
    todo['similar.png'] = lambda path: figures.pairs(
        path, truth, _of_images(scored, found.greedy_ssim),
        found.greedy_ssim.distance, title=f'{title}, {config.attack}: 1 - SSIM')
  side = math.sqrt(truth[0].size)
  published = {}
  if (values := _published(config)) is not None:
    published = {'published': (np.asarray(_INDEX), np.asarray(values) / side)}
    series[f'{config.attack}, greedy'] = found.greedy.distance / side
  todo['curve.png'] = lambda path: figures.reconstruction_curve(
      path, series, thresholds=match.THRESHOLDS, published=published,
      title=title)
  if scored.correlation is not None:
    low, value, high = (scored.correlation[i] for i in (1, 0, 2))
    todo['outliers.png'] = lambda path: figures.scatter(
        path, scored.table.dual, scored.table.error,
        xlabel='|dual|', ylabel='RMSE', log_x=True, log_y=True,
        title=f'rank correlation {value:.2f} [{low:.2f}, {high:.2f}]')
  return {os.path.join(folder, name): make for name, make in todo.items()}


def _of_images(scored, matched) -> np.ndarray:
  """(N, ...) the candidate of each image, black for none."""
  place = matched.candidate
  return np.where((place >= 0)[:, None, None, None],
                  scored.pixels[np.maximum(place, 0)], 0)
