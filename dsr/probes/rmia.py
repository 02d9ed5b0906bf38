r"""RMIA, the robust membership attack from few shadows (arXiv:2312.03262).

The target model's probability p(x) of an example's true class is held against
what it is on average over models that may or may not have seen the example,
and that ratio against the ratios of a population that no model has seen:

  r(x) = p(x | target) / p(x),
  score(x) = share of z in the population with r(x) >= \gamma r(z).

With shadows on either side p(x) is the mean of their means,
(m^{in}(x) + m^{out}(x)) / 2 (online). Without those trained with x, the paper
takes a m^{out} + 1 - a for m^{in}, hence (offline)

  p(x) = ((1 + a) m^{out}(x) + 1 - a) / 2,

and p(z) the same, as no shadow has seen the population. Only means are
estimated, no variances: hence it needs fewer shadows than LiRA (`lira.py`).

For one target the score is a growing function of r(x), so its ROC curve is
that of r(x) but for ties: the population puts the scores of several targets on
one scale, on which a threshold means the same for all of them.

Axes: S shadows; T targets; N examples; Z of the population.
"""
from jaxtyping import Array, Bool, Float
import numpy as np
from scipy import special

from dsr import checks

_GRID = np.linspace(0, 1, 11)  # Of a, where `offline_scale` looks.


def rmia(
    log_p: Float[Array | np.ndarray, 'S N'],
    member: Bool[Array | np.ndarray, 'S N'],
    target: Float[Array | np.ndarray, '*T N'],
    population: Float[Array | np.ndarray, 'S Z'],
    target_population: Float[Array | np.ndarray, '*T Z'], *,
    online: bool = True, a: float = 1.0, gamma: float = 2.0,
    break_ties: bool = True) -> Float[np.ndarray, '*T N']:
  r"""Share of the population whose ratio an example's exceeds by \gamma.

  Args:
    log_p: (S, N) log probability of each example's true class under every
      shadow, at most 0: `scores.negative_loss`, or `gaussian_log_p`.
    member: (S, N) whether shadow s was trained on example i.
    target: (N,) the same under the attacked model, or (T, N) of T models.
    population: (S, Z) of examples that no shadow and no target has seen.
    target_population: (Z,) or (T, Z), as `target`.
    online: use the shadows trained with an example too, not only the others.
    a: in [0, 1], how much of m^{out} is left in m^{in}; of p(z) in both cases
      and of p(x) offline. `offline_scale` picks it from the shadows alone.
    gamma: \gamma > 0. It changes ranks of one target by ties only.
    break_ties: among examples that exceed equally much of the population, rank
      by r(x). Scores then lie within 1 / (Z + 1) of the paper's.

  Returns:
    As `target`: in [0, 1], larger where membership is more likely.

  Raises:
    ValueError: wrong shapes, log probabilities above 0 or not finite, an
      option out of range, or an example without a shadow on a side.
  """
  log_p, member = _checked(log_p, member, online)
  population = _log_probs('population', population)
  checks.same_rows(log_p=log_p, population=population)
  targets = []
  for name, value, like in (('target', target, log_p), (
      'target_population', target_population, population)):
    value = _log_probs(name, value)
    if value.ndim not in (1, 2) or value.shape[-1] != like.shape[1]:
      raise ValueError(f'`{name}` must have shape ({like.shape[1]},) or '
                       f'(T, {like.shape[1]}), got {value.shape}.')
    targets.append(value)
  if targets[0].shape[:-1] != targets[1].shape[:-1]:
    raise ValueError(
        '`target_population` must have the models of `target`, got shapes '
        f'{targets[1].shape} and {targets[0].shape}.')
  checks.within('a', a, 0, 1)
  checks.positive('gamma', gamma)
  ratio_x = targets[0] - (_both(log_p, member) if online else
                          _raised(_log_mean(log_p, ~member), a))
  ratio_z = targets[1] - _raised(
      _log_mean(population, np.ones(population.shape, bool)), a)
  rows = zip(np.atleast_2d(ratio_x), np.atleast_2d(ratio_z))
  shares = np.stack([_share(x, z, np.log(gamma)) for x, z in rows])
  if break_ties:
    shares = _without_ties(shares, np.atleast_2d(ratio_x), ratio_z.shape[-1])
  return shares.reshape(ratio_x.shape)


def offline_scale(
    log_p: Float[Array | np.ndarray, 'S N'],
    member: Bool[Array | np.ndarray, 'S N']) -> float:
  """The a of `rmia` that finds members of shadows best, from the others.

  Each shadow is attacked offline in turn by the others; of 0, 0.1, ..., 1 the
  value of the largest mean AUC is taken, the largest a among equals. The
  attacker knows all of this: no target is looked at.

  Args:
    log_p: (S, N) as of `rmia`, S at least 2.
    member: (S, N), with members and others in each shadow.

  Raises:
    ValueError: as `rmia`; shadows that leave nothing to attack give 1.
  """
  from scipy import stats

  log_p, member = _checked(log_p, member, False)
  found = np.zeros(len(_GRID))
  for s in range(len(log_p)):
    rest = np.arange(len(log_p)) != s
    known = (~member[rest]).any(0)
    inside, outside = known & member[s], known & ~member[s]
    if not inside.any() or not outside.any():
      continue
    mean = _log_mean(log_p[rest][:, known], ~member[rest][:, known])
    both = member[s, known]
    for i, a in enumerate(_GRID):
      ratio = log_p[s, known] - _raised(mean, a)
      ranks = stats.rankdata(ratio)[both].sum()
      pairs = both.sum() * (~both).sum()
      found[i] += (ranks - both.sum() * (both.sum() + 1) / 2) / pairs
  return float(_GRID[len(_GRID) - 1 - int(np.argmax(found[::-1]))])


def gaussian_log_p(
    squared_error: Float[Array | np.ndarray, '*S N'],
    variance: float) -> Float[np.ndarray, '*S N']:
  r"""-e / (2 \sigma^2): the log likelihood of a regression, 0 at best.

  Regression has no probability of a class. Targets that are normal around the
  outputs have this one, but for a constant that the ratios of `rmia` cancel.

  Args:
    squared_error: e, summed over outputs, at least 0.
    variance: \sigma^2 > 0, such as the mean of e over shadows that were not
      trained on the example.

  Raises:
    ValueError: an error below 0 or not finite, or a variance that is not above
      0.
  """
  checks.positive('variance', variance)
  checks.inputs('squared_error', squared_error)
  checks.finite('squared_error', squared_error)
  error = np.asarray(squared_error, float)
  if error.min() < 0:
    raise ValueError('`squared_error` must be at least 0, got '
                     f'{error.min():.4g}.')
  return -error / (2 * variance)


def _log_probs(name, values):
  checks.finite(name, values)
  values = np.asarray(values, float)
  if values.size and values.max() > 0:
    raise ValueError(f'`{name}` must be logarithms of probabilities, at most '
                     f'0, got {values.max():.4g}.')
  return values


def _checked(log_p, member, online):
  checks.features('log_p', log_p)
  checks.flags('member', member, shape=log_p.shape)
  log_p, member = _log_probs('log_p', log_p), np.asarray(member)
  sides = {'in': member, 'out': ~member} if online else {'out': ~member}
  for name, side in sides.items():
    if not side.any(0).all():
      raise ValueError(
          f'`member` must give each example at least 1 "{name}" shadow, got '
          f'none for example {side.sum(0).argmin()}.')
  return log_p, member


def _log_mean(log_p, side):
  """log of the mean over the rows of `side`, by column."""
  total = special.logsumexp(np.where(side, log_p, -np.inf), axis=0)
  return total - np.log(side.sum(0))


def _both(log_p, member):
  """log of (m_in + m_out) / 2."""
  return np.logaddexp(
      _log_mean(log_p, member), _log_mean(log_p, ~member)) - np.log(2)


def _raised(log_mean, a):
  """log of ((1 + a) m_out + 1 - a) / 2."""
  own = log_mean + np.log((1 + a) / 2)
  return own if a == 1 else np.logaddexp(own, np.log((1 - a) / 2))


def _share(ratio_x, ratio_z, log_gamma):
  """Share of z with r(x) >= gamma r(z), for each x: (N,)."""
  below = np.searchsorted(np.sort(ratio_z), ratio_x - log_gamma, side='right')
  return below / len(ratio_z)


def _without_ties(shares, ratio, num):
  """Shares (T, N), ordered by `ratio` within steps of 1 / num, in [0, 1]."""
  ranks = np.stack([np.searchsorted(np.sort(row), row) for row in ratio])
  return (shares * num + ranks / ratio.shape[1]) / (num + 1)
