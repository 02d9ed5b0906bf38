r"""Covariance rules of infinitely wide layers, carried as distances.

The rules are written for one pair of inputs; `network.serial` batches them.
A pair is described by

  q1, q2   variances k(x, x) and k(x', x') at the current depth,
  gap      how far k(x, x') is from what the variances allow, see below,
  nngp     k(x, x') itself, \Sigma on paper,
  ntk      \Theta(x, x'), None before the first weights.

Without space, gap = sqrt(q1 q2) - k, which is sqrt(q1 q2) (1 - cos theta). It
does not see the lengths, so x' = x and x' = 3 x both give 0, and inputs of a
norm of 1 and of 10,000 keep their digits. With space, sums over positions must
stay sums, so gap = share (q1 + q2) - k, with one `share` for the pair: 1/2,
half the squared distance, where the two images have norms of the same order,
which keeps the digits of near-duplicates; and 0 where they have not, since
half the larger variance would drown k. Nonlinearities see the first form: see
`nonlinear`, which goes there and back.

Shapes: without space q, gap and ntk are scalars. With space q is (H, W); gap
and ntk are (H, W) where both inputs are looked at in the same position
("diagonal"), or (H, W, H, W) where a later pooling layer mixes positions
("joint": position in x, then position in x').

NTK parameterisation: weights W_std w / sqrt(fan-in) and biases b_std b with
w, b ~ N(0, 1). Standard parameterisation: the weights and biases themselves
are trained, so the widths n stay in \Theta. Its limit: layers are s n wide,
the sum over inputs is divided by sqrt s, and s tends to infinity; at s = 1 it
is the network of widths n as Flax and PyTorch write it. Refs: arXiv:1806.07572;
arXiv:1904.11955 (convolutions); arXiv:2001.07301 (standard).
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsr import numerics
from dsr.kernels import scaling

Map = Float[Array, '...']
_UNLIKE = 16  # Ratio of the variances: norms of 4 to 1.


class Pair(NamedTuple):
  """What is known of two inputs at some depth; the module text has shapes.

  Attributes:
    gap: sqrt(q1 q2) - k without space, share (q1 + q2) - k with it.
    nngp: k(x, x').
    ntk: the NTK, None before the first weights.
    share: 0 or 1/2 for the whole pair; None without space.
    true: a True that the compiler cannot foresee, or None; see `nonlinear`.
    width: channels of a finite network here; None where no layer said so.
  """

  gap: Map
  nngp: Map
  ntk: Map | None = None
  share: Any = None
  true: Any = None
  width: int | None = None


class Layer(NamedTuple):
  """One layer's rules. To write your own, make a value of this type.

  A layer sees one pair of inputs. `variance` runs once for each input and may
  keep anything that `pair` needs of it, its tape; `pair` runs for each pair of
  inputs, so what depends on one of them alone belongs on the tape. Both are
  pure functions of arrays, and they close over no traced value. As an example,
  a layer that multiplies all activations by a constant c:

    Layer(variance=lambda q, own: (c**2 * q, ()),
          pair=lambda tape1, tape2, at, joint_out: at._replace(
              gap=c**2 * at.gap, nngp=c**2 * at.nngp,
              ntk=None if at.ntk is None else c**2 * at.ntk),
          name='Scale')

  Nonlinearities are made by `nonlinear`, from a rule for angles.

  Attributes:
    variance: (q, own) -> (q after the layer, tape). `own` is the `Pair` of the
      input with itself before the layer, without its ntk.
    pair: (tape1, tape2, pair, joint_out) -> pair after the layer. With space,
      `joint_out` says whether a later layer needs the joint map.
    name: for messages and records.
    pools: whether it mixes positions, and so needs a joint gap.
    spatial: whether it takes images; None where it takes both.
    flattens: whether its output has no space.
    weights: whether it has weights, after which outputs are Gaussian.
    nonlinear: whether outputs are not Gaussian any more.
    ndim: spatial axes of the data, 1 or 2; None where it takes both.
    branches: of `parallel`, the layers of each.
    fans: how many branches it makes; -1 if it joins them, as equals if they
      are Gaussian; -2 if it joins any.
    rule: what a fused program reads: ('conv', size, padding, W_std^2 / size^2,
      b_std^2), ('relu',), ('pool', window); empty for all others.
    width: of a layer with weights, its channels in a finite network, or None.
    standard: whether its weights have the standard parameterisation.
    centred: whether it needs Gaussian inputs, whose mean over channels is 0.
  """

  variance: Callable
  pair: Callable
  name: str
  pools: bool = False
  spatial: bool | None = None
  flattens: bool = False
  weights: bool = False
  nonlinear: bool = False
  ndim: int | None = None
  branches: tuple = ()
  fans: int = 0
  rule: tuple = ()
  width: int | None = None
  standard: bool = False
  centred: bool = False


def Dense(*, W_std: Any = 1.0, b_std: Any = None, width: int | None = None,
          parameterisation: str = 'ntk') -> Layer:
  r"""k' = W_std^2 k + b_std^2;  \Theta' = k' + W_std^2 \Theta.

  In the standard parameterisation \Theta' = n k + W_std^2 \Theta + 1, with n
  inputs and the 1 for a bias. A rate is then worth some n times as much.
  With r = sqrt q and g = sqrt(W_std^2 q + b_std^2) + W_std r of each input
  gap' = W_std^2 gap + b_std^2 (g1 - g2)^2 / (2 g1 g2), a sum of what is not
  negative. Cost: 8 operations a pair, 2 without a bias.

  Args:
    W_std: standard deviation of the weights times sqrt(fan-in); may be traced.
    b_std: standard deviation of the biases; may be traced. None is no bias;
      0 in the standard parameterisation a trained one that starts at 0.
    width: outputs in a finite network, which is the n of a next layer in the
      standard parameterisation. The limit does not depend on it otherwise.
    parameterisation: 'ntk' or 'standard', see the module text.

  Raises:
    ValueError: `W_std` is not positive, `b_std` negative, either infinite, or
      `width` no positive integer; in `serial`, a width that is missing.
  """
  scales = scaling.Scales(W_std, b_std, width, parameterisation)

  def variance(q, own):
    del own
    out, slack = scales.out(q), ()
    if scales.biased:
      reach = W_std * numerics.safe_sqrt(q)
      g = numerics.safe_sqrt(out) + reach
      # A traced bias may be 0, and then g may be.
      slack = (numerics.safe_sqrt(g),
               numerics.safe_divide(b_std * jnp.ones_like(g), g))
      if not scales.traced:
        slack += (jnp.arcsinh(reach / b_std),)
    return out, (slack, scales.tape())

  def pair(tape1, tape2, at, joint_out):
    del joint_out
    weight, bias = scales.squares(tape1[1])
    nngp, gap = weight * at.nngp + bias, weight * at.gap
    if scales.biased:
      gap += scaling.bent_by_bias(
          *tape1[0][:2], *tape2[0][:2]) if scales.traced else (
              scaling.bent_by_fixed_bias(*tape1[0], *tape2[0]))
    ntk = scales.inner(at, weight)
    ntk = scales.outer(None if ntk is None else weight * ntk, nngp)
    return at._replace(gap=gap, nngp=nngp, ntk=ntk, width=width)

  return Layer(variance, pair, f'Dense({scales})', spatial=False,
               **scales.fields())


def Flatten() -> Layer:
  """Mean over positions, the same position in both; vectors pass unchanged."""

  def variance(q, own):
    del own
    out = jnp.mean(q)
    return out, numerics.safe_sqrt(out)

  def pair(root1, root2, at, joint_out):
    del joint_out
    if at.share is None:
      return at
    return without_space(root1, root2, at._replace(
        gap=jnp.mean(at.gap), nngp=jnp.mean(at.nngp),
        ntk=None if at.ntk is None else jnp.mean(at.ntk),
        width=None if at.width is None else at.width * at.gap.size))

  return Layer(variance, pair, 'Flatten', flattens=True)


def Identity() -> Layer:
  """The input itself, as the shortcut of a residual network."""
  return Layer(lambda q, own: (q, ()), lambda tape1, tape2, at, joint_out: at,
               'Identity')


def nonlinear(name: str, moments: Callable, rule: Callable, *,
              gain: float | None = None, fused: tuple = ()) -> Layer:
  r"""A layer that acts on each activation by itself, from a rule for angles.

  Args:
    name: as in `Layer`.
    moments: q -> (q after the layer, own): what `rule` needs of one input, any
      pytree of maps shaped as q.
    rule: ((root1, own1), (root2, own2), gap, ntk) -> (gap, nngp, ntk) after the
      layer, entry by entry, with gap = sqrt(q1 q2) - k in both places and
      roots sqrt q before it. ntk is None or to be multiplied by dk' / dk.
    gain: q' / q, if it is a constant.
    fused: `Layer.rule`.
  """

  def variance(q, own):
    del own
    out, kept = moments(q)
    return out, (numerics.safe_sqrt(q), numerics.safe_sqrt(out), kept)

  def pair(tape1, tape2, at, joint_out):
    del joint_out

    def step(gap, ntk):
      (root1, out1, own1), (root2, out2, own2) = spread(tape1, tape2, gap)
      # Broadcast at once, so that a backward pass sums once.
      root1, root2 = (jnp.broadcast_to(a, gap.shape) for a in (root1, root2))
      own1, own2 = (root1, own1), (root2, own2)
      if at.share is None:
        return rule(own1, own2, gap, ntk)
      offset = _offset(at.share, root1, root2)
      gap, *rest = rule(own1, own2, gap + offset, ntk)
      return (gap - (_offset(at.share, out1, out2) if gain is None
                     else gain * offset), *rest)

    if at.true is None or at.gap.ndim == 0:
      out = step(at.gap, at.ntk)
    else:
      # XLA on CPU would fuse a nonlinearity into the windows that read it, and
      # compute it once for every reader and entry, not vectorised. A branch,
      # though always taken, keeps it apart: Myrtle-5 is 7 times faster for it.
      nothing = lambda *maps: jax.tree.map(
          lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(step, *maps))
      out = jax.lax.cond(at.true, step, nothing, at.gap, at.ntk)
    return at._replace(gap=out[0], nngp=out[1], ntk=out[2])

  return Layer(variance, pair, name, nonlinear=True, rule=fused)


def gap_after(half_distance: Map, root1: Map, root2: Map, nngp: Map) -> Map:
  """gap = sqrt(q1 q2) - k from half the squared distance, (q1 + q2) / 2 - k.

  Where one root is over twice the other, from k, which then has more digits.
  """
  alike = (root1 <= 2 * root2) & (root2 <= 2 * root1)
  return numerics.not_negative(jnp.where(
      alike, half_distance - 0.5 * (root1 - root2) ** 2,
      root1 * root2 - nngp))


def spread(tape1: PyTree, tape2: PyTree, gap: Map) -> tuple[PyTree, PyTree]:
  """The two inputs' maps, shaped to broadcast against gap."""
  if gap.ndim < 4:
    return tape1, tape2
  return (jax.tree.map(lambda a: a[:, :, None, None], tape1),
          jax.tree.map(lambda a: a[None, None, :, :], tape2))


def unlike(size1: Map, size2: Map) -> Map:
  """Whether gaps of images of these mean variances have a share of 0."""
  return (size1 > _UNLIKE * size2) | (size2 > _UNLIKE * size1)


def without_space(root1: Map, root2: Map, at: Pair) -> Pair:
  """`at` in the form that pairs without space have; see the module text."""
  gap = at.gap + _offset(at.share, root1, root2)
  return at._replace(gap=gap, share=None)


def _offset(share, root1, root2):
  """What the angle's form of gap is more than the other one."""
  apart = share * (root1 - root2) ** 2
  if isinstance(share, float):  # 1/2, of an input with itself.
    return -apart
  return (1 - 2 * share) * (root1 * root2) - apart
