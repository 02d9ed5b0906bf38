r"""Layers in branches, and what joins branches again.

A residual block that adds its input is

  FanOut(2), parallel([Relu(), Conv()], Identity()), FanInSum()

`FanOut` makes branches of one stream, `parallel` gives each its layers, and
the FanIn layers join them. Branches have their own weights, so the covariance
of a sum is the sum of their covariances, which is why at most one branch may
have none. Refs: arXiv:1512.03385, residual networks; arXiv:1912.02803.
"""
from collections.abc import Sequence
import math

import jax

from dsr import checks, numerics
from dsr.kernels.layers import Layer, Pair, spread
from dsr.kernels.scaling import bent_by_bias

Branch = Layer | Sequence[Layer]


def parallel(*branches: Branch) -> Layer:
  """Branch i gets its own layers, one or several; see `FanOut`."""
  branches = tuple(
      (b,) if isinstance(b, Layer) else tuple(b) for b in branches)
  whole = [layer for branch in branches for layer in branch]

  def variance(qs, owns):
    return tuple(zip(*(_variance(branch, q, own) for branch, q, own in zip(
        branches, qs, owns, strict=True))))

  def pair(tapes1, tapes2, pairs, joint_out):
    return tuple(_pair(*args, joint_out) for args in zip(
        branches, tapes1, tapes2, pairs, strict=True))

  name = ' | '.join(_names(branch) or 'Identity' for branch in branches)
  return Layer(
      variance, pair, f'parallel({name})', branches=branches,
      pools=any(layer.pools for layer in whole))


def FanOut(num: int) -> Layer:
  """`num` branches of the same values.

  Raises:
    ValueError: `num` is not an integer of at least 2.
  """
  checks.at_least('num', num, 2)
  return Layer(lambda q, own: ((q,) * num, ()),
               lambda tape1, tape2, at, joint_out: (at,) * num,
               f'FanOut({num})', fans=num)


def FanInSum() -> Layer:
  r"""Sum of the branches: k' = sum of k, \Theta' = sum of \Theta.

  Without space, with R = sqrt(a^2 + b^2) of two branches' roots a, b, and
  g = R + a, t = b / g of each input,
  gap' = gap_a + gap_b + g1 g2 (t1 - t2)^2 / 2, a sum of what is not negative.
  """

  def variance(qs, owns):
    del owns
    steps, total = [], qs[0]
    for q in qs[1:]:
      a, b, total = *map(numerics.safe_sqrt, (total, q)), total + q
      g = numerics.safe_sqrt(total) + a
      steps.append((numerics.safe_sqrt(g), numerics.safe_divide(b, g)))
    return total, tuple(steps)

  def pair(steps1, steps2, pairs, joint_out):
    del joint_out
    gap = sum(at.gap for at in pairs)
    if pairs[0].share is None:
      gap += sum(bent_by_bias(*step1, *step2)
                 for step1, step2 in zip(steps1, steps2))
    return _joined(pairs, gap, sum(at.nngp for at in pairs),
                   [1.0] * len(pairs))

  return Layer(variance, pair, 'FanInSum', fans=-1)


def FanInConcat(*shares: float) -> Layer:
  r"""Channels side by side: k' = sum of shares k, \Theta' likewise.

  Args:
    *shares: of each branch in the width of all, positive; none given means
      branches of the same width. They are divided by their sum.
  """
  for share in shares:
    checks.positive('shares', share)
  add = FanInSum()

  def weights(num):
    given = shares or (1.0,) * num
    return [w / math.fsum(given) for _, w in zip(range(num), given,
                                                 strict=True)]

  def variance(qs, owns):
    return add.variance([w * q for w, q in zip(weights(len(qs)), qs)], owns)

  def pair(steps1, steps2, pairs, joint_out):
    scaled = [at._replace(gap=w * at.gap, nngp=w * at.nngp,
                          ntk=None if at.ntk is None else w * at.ntk,
                          width=None)
              for w, at in zip(weights(len(pairs)), pairs)]
    widths = [at.width for at in pairs]
    return add.pair(steps1, steps2, scaled, joint_out)._replace(
        width=None if None in widths else sum(widths))

  return Layer(variance, pair, 'FanInConcat', fans=-2)


def FanInProd() -> Layer:
  r"""Product of independent branches: k' = product of k.

  \Theta' = sum over branches of \Theta times the other branches' k. The gap of
  two is gap' = s_a gap_b + gap_a k_b (without space).
  """

  def variance(qs, owns):
    del owns
    return math.prod(qs), tuple((q, numerics.safe_sqrt(q)) for q in qs)

  def pair(tapes1, tapes2, pairs, joint_out):
    del joint_out
    first, share = pairs[0], pairs[0].share
    nngp = math.prod(at.nngp for at in pairs)
    others = [math.prod(at.nngp for j, at in enumerate(pairs) if j != i)
              for i in range(len(pairs))]
    tapes1, tapes2 = spread(tapes1, tapes2, first.gap)
    if share is None:
      gap, size = first.gap, 1.0
      for (_, root1), (_, root2), at in zip(tapes1, tapes2, pairs[1:]):
        size = size * (root1 * root2)  # Of the branches before this one.
        gap = size * at.gap + gap * at.nngp
    else:
      q1, q2 = (math.prod(q for q, _ in tapes) for tapes in (tapes1, tapes2))
      gap = share * (q1 + q2) - nngp
    return _joined(pairs, gap, nngp, others)

  return Layer(variance, pair, 'FanInProd', fans=-1)


def _joined(pairs, gap, nngp, factors):
  ntks = [f * at.ntk for f, at in zip(factors, pairs) if at.ntk is not None]
  widths = {at.width for at in pairs}
  if len(widths - {None}) > 1:
    raise ValueError('Branches that are joined as equals need one width, got '
                     + ', '.join(str(at.width) for at in pairs) + '.')
  return pairs[0]._replace(
      gap=gap, nngp=nngp, ntk=sum(ntks) if ntks else None,
      width=widths.pop() if len(widths) == 1 else None)


def _variance(layers, q, own):
  """All layers of one input: (q after them, their tapes)."""
  q, tapes, _ = alone(layers, q, own, True)
  return q, tapes


def _pair(layers, tapes1, tapes2, at, joint_out):
  for i, (layer, tape1, tape2) in enumerate(zip(layers, tapes1, tapes2)):
    at = layer.pair(tape1, tape2, at, _joint_after(layers, i, joint_out))
  return at


def alone(layers: Sequence[Layer], q, own: Pair, joint_out: bool):
  """One input through `layers`: (q after them, tapes, its pair with itself)."""
  tapes = []
  for i, layer in enumerate(layers):
    q, tape = layer.variance(q, _without_ntk(own))
    own = layer.pair(tape, tape, own, _joint_after(layers, i, joint_out))
    tapes.append(tape)
  return q, tuple(tapes), own


def along(layers: Sequence[Layer], tapes1, tapes2, at: Pair):
  """One pair of inputs through `layers`, from their tapes."""
  return _pair(layers, tapes1, tapes2, at, False)


def _joint_after(layers, i, joint_out):
  return joint_out or any(layer.pools for layer in layers[i + 1:])


def _without_ntk(own):
  return jax.tree.map(lambda at: at._replace(ntk=None), own,
                      is_leaf=lambda at: isinstance(at, Pair))


def _names(layers):
  return ', '.join(layer.name for layer in layers)
