"""Products that carry kernels, or what training changed, are exact."""
from collections.abc import Callable
import contextlib

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import kernels, krr, linalg, nets, numerics, train
from dsr.attack import (
    finite,
    first_layer,
    kkt,
    ntk_limit,
    published,
    release,
    simulate,
)
from dsr.distill import distances, dm, kip, label_solve, rkip, support, targets
from dsr.kernels import distance, empirical
from dsr.types import Examples
from tests import precision
from tests.attack import problem

RNG = np.random.default_rng(0)
VECTORS = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(3, 8, 8, 2)), jnp.float32)
LABELS = np.arange(6) % 2
Y = jnp.asarray(np.eye(2)[LABELS] - 0.5, jnp.float32)
FCN = kernels.fcn(2)
both_devices = pytest.mark.parametrize('device', ['cpu', 'accelerator'])


def _on(device):
  """Programs for that device, whatever runs them."""
  return (numerics.pretend_accelerator() if device == 'accelerator'
          else contextlib.nullcontext())


class Vague(nn.Module):
  """A network whose layers do not say their precision."""

  activation: Callable = jax.nn.relu

  @nn.compact
  def __call__(self, x, *, features=False):
    x = nn.Conv(3, (3, 3))(x) if x.ndim == 4 else x
    x = nn.Dense(4)(x.reshape(x.shape[0], -1))
    x = self.activation(x)
    return x if features else nn.Dense(2)(x)


def _kernels(x, name):
  """Kernel functions (x1, x2 or None) of that name."""
  made = {
      'fcn2': kernels.fcn(2), 'erf': kernels.fcn(1, nonlinearity='erf'),
      'convnet2': kernels.convnet(2),
      'convnet2_nopool': kernels.convnet(2, pooling=False),
      'myrtle5': kernels.myrtle(5)}
  if name in made:
    return [made[name]]
  module = Vague()
  params = module.init(jax.random.key(0), x)
  return [maker(module.apply, params, method=method)
          for maker in (empirical.ntk, empirical.full)
          for method in ('jacobian', 'structured', 'ntvp')]


@both_devices
@pytest.mark.parametrize(('name', 'x'), [
    ('fcn2', VECTORS), ('erf', VECTORS), ('network', VECTORS),
    pytest.param('convnet2', IMAGES, marks=pytest.mark.slow),
    ('convnet2_nopool', IMAGES),
    pytest.param('myrtle5', IMAGES, marks=pytest.mark.slow),
    ('network', IMAGES)], ids=lambda a: a if isinstance(a, str) else '')
def test_kernels_and_their_gradients(device, name, x):
  with _on(device):
    for kernel_fn in _kernels(x, name):
      fewest = 1 if name in ('fcn2', 'erf', 'network') else 0
      symmetric = lambda a: kernel_fn(a).sum()  # noqa: B023
      cross = lambda a, b: kernel_fn(a, b).sum()  # noqa: B023
      for fn, args in ((symmetric, (x,)), (cross, (x, x[:2]))):
        both = tuple(range(len(args)))
        precision.check_program(fn, *args, fewest=fewest)
        precision.check_program(jax.grad(fn, both), *args, fewest=fewest)
      if hasattr(kernel_fn, 'diag'):
        precision.check_program(kernel_fn.diag, x, fewest=0)


@pytest.mark.parametrize('method', ['cholesky', 'eigh'])
def test_solves_and_regression(method):
  data = Examples(VECTORS, Y)

  def fitted(x, y):
    return krr.fit(FCN, Examples(x, y), method=method)(VECTORS[:2] + 1).sum()

  def likelihood(x):
    factor = linalg.factorise(FCN(x), method=method)
    return linalg.log_det(factor) + linalg.diag_inverse(factor).sum()

  for fn, args in ((fitted, data), (likelihood, data[:1])):
    precision.check_program(fn, *args)
    precision.check_program(jax.grad(fn), *args)
    precision.check_program(jax.hessian(fn), *args)
  precision.check_program(
      lambda x, y: krr.leave_one_out(FCN, Examples(x, y)), *data)
  precision.check_program(lambda k: krr.in_out(k, Y), FCN(VECTORS))
  precision.check_program(lambda k: krr.shadows(
      jax.random.key(0), k, Y, num_shadows=4).outputs, FCN(VECTORS))


@pytest.mark.slow
def test_iterative_solves_and_dynamics(key):
  data = Examples(VECTORS, Y)
  with precision.checked_run(fewest=5):
    for low_rank in (krr.pivoted_cholesky(FCN, VECTORS, rank=3),
                     krr.nystrom(key, FCN, VECTORS, rank=3)):
      krr.fit_by_cg(FCN, data, low_rank=low_rank, tile=2)(VECTORS)
    krr.gradient_flow(FCN, data)(VECTORS + 1, 1.0)
    krr.predict_in_tiles(krr.fit(FCN, data), VECTORS, tile=2)


@pytest.mark.parametrize('loss', ['mse', 'cross_entropy'])
@pytest.mark.slow
def test_distillation_by_kernels(key, loss):
  start = support.support(VECTORS[:2] + 0.1, Y[:2])
  known = targets.targets(VECTORS, Y, LABELS)
  optimizer = optax.adam(0.1)
  solver = kip.kip(FCN, optimizer, learn_labels=True, loss=loss,
                   min_distance=0.1, distance_weight=1.0)
  precision.check_program(solver.step, solver.init(key, start), known,
                          fewest=4)
  with precision.checked_run(fewest=4):
    solver = rkip.rkip(FCN, optimizer, learn_labels=True)
    data = rkip.interpolant(FCN, Examples(VECTORS, Y))
    solver.step(solver.init(key, start), data)
    label_solve.label_solve(FCN, start.x, Examples(VECTORS, Y))
    distances.pairwise(np.asarray(VECTORS))


@both_devices
def test_distribution_matching(key, device):
  x = jnp.repeat(IMAGES, 2, axis=0)
  known = targets.targets(x, Y, LABELS)
  solver = dm.dm(nets.ConvNet(2, depth=1, width=3), optax.sgd(0.1))
  with _on(device):
    state = solver.init(key, support.support(x[:2], Y[:2]), known)
    precision.check_program(solver.step, state, known, fewest=3)


@pytest.fixture(scope='module')
def victims():
  """Releases of a plain and a linearised victim, made exactly."""
  found = {}
  data = problem.digits(10)
  with precision.checked_run(fewest=10):
    for linearised in (False, True):
      found[linearised], _ = problem.network(
          data, nets.MLP(1, (48,), use_bias=False), linearised=linearised)
  return found


@pytest.mark.slow
def test_attack_in_the_limit(key):
  released, _, _ = problem.limit(problem.digits(4), problem.fcn2())
  config = ntk_limit.Config(steps=4, restart_every=2)
  with precision.checked_run(fewest=4):
    ntk_limit.reconstruct(key, released, config, kernel_fn=problem.fcn2(),
                          progress=False)


@pytest.mark.parametrize('linearised', [False, True])
@pytest.mark.slow
def test_attacks_on_networks(key, victims, linearised):
  released = victims[linearised]
  with precision.checked_run(fewest=20):
    first_layer.reconstruct(
        key, released, first_layer.Config(num_starts=8, max_rounds=2),
        progress=False)
    finite.reconstruct(key, released, finite.Config(steps=2), progress=False)
    published.reconstruct(
        key, released, published.Config(steps=2), progress=False)


@pytest.mark.parametrize('form', kkt.FORMS)
@pytest.mark.parametrize('eliminate', [False, True])
def test_attack_on_the_end_of_training(key, victims, form, eliminate):
  with precision.checked_run(fewest=8):
    kkt.reconstruct(key, victims[False], kkt.Config(
        form=form, eliminate=eliminate, steps=2, vertices=2), progress=False)


@pytest.mark.slow
def test_victims_of_vague_networks_and_attacks_on_them(key):
  """All of training, which a difference of parameters shows in each digit."""
  data = problem.digits(4)
  x, y = jnp.asarray(data.x), jnp.asarray(data.y)
  y = jnp.concatenate([y, -y], axis=1)
  with precision.checked_run(fewest=20):
    recipes = {'plain': {}, 'linearised': {'linearised': True},
               'private': {'recipe': train.Recipe(clip=1.0, noise=0.1)}}
    made = {name: train.fit_victim(
        key, Vague(), Examples(x, y), max_steps=2, progress=False, **options)
        for name, options in recipes.items()}
    victim = made['plain']
    train.outputs(victim, x)
    train.solve_linearised(Vague(), victim.theta_0, Examples(x, y))
    distance.kernel_change(Vague(), victim.theta_0, victim.theta_T, x)
    released = release.parameters(
        victim.module, victim.theta_0, victim.theta_T, num_train=4,
        input_shape=(8, 8, 1), num_outputs=2, low=data.low, high=data.high,
        linearised=False)
    finite.reconstruct(key, released, finite.Config(steps=2), progress=False)
    simulate.reconstruct(
        key, released, simulate.Config(steps=2, start='noise', path_steps=4),
        progress=False)
    published.reconstruct(
        key, released, published.Config(steps=2), progress=False)
    kkt.reconstruct(key, released, kkt.Config(
        form='decay', steps=2, vertices=0), progress=False)
