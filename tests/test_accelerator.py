"""What runs on accelerators gives what runs on CPUs: every branch, here.

`numerics.pretend_accelerator` makes the programs of the other device. A bound
of the memory below that of two jobs makes rounds of one, which must give the
same.
"""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import kernels, krr, nets, numerics, train
from dsr.attack import finite, ntk_limit
from dsr.distill import dm, kip, shadows, support, targets
from dsr.kernels import inputs, network
from dsr.nets import conv2d as conv2d_lib
from dsr.probes.attacks import pgd, threat, tiles
from dsr.train.shadows import fit_shadows
from dsr.types import Examples
from tests.attack import problem as attack_problem
from tests.distill import problem

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(5, 8, 8, 2)))
ADAM = optax.adam(0.02)


def _both(fn, *, rtol=1e-12, atol=1e-13):
  """`fn()` for both devices; raises unless they are the same."""
  want = fn()
  with numerics.pretend_accelerator():
    found = fn()
  flat = zip(jax.tree.leaves(want), jax.tree.leaves(found), strict=True)
  for a, b in flat:
    np.testing.assert_allclose(
        b, a, rtol=rtol, atol=atol * np.abs(a).max(initial=1e-300))
  return want


@pytest.fixture(params=['all at once', 'one by one'])
def memory(request, monkeypatch):
  """Room for everything, or for nothing beside one job."""
  if request.param == 'one by one':
    monkeypatch.setattr(numerics, 'working_memory', lambda: 1)


@pytest.mark.parametrize('name', [
    'convnet1', pytest.param('convnet1_nopool', marks=pytest.mark.slow),
    pytest.param('myrtle5', marks=pytest.mark.slow)])
@pytest.mark.slow
def test_kernels_of_images_and_their_gradients(name, monkeypatch):
  monkeypatch.setattr(network, '_WORK', 2 * 64)  # Several blocks on CPUs.
  monkeypatch.setattr(network, '_WORK_ACCELERATOR', 3 * 64**2)
  kernel_fn = kernels.by_name(name)
  weights = jnp.asarray(RNG.normal(size=(5, 5)))

  def run():
    symmetric = jax.value_and_grad(lambda x: jnp.sum(weights * kernel_fn(x)))
    cross = jax.value_and_grad(lambda x: jnp.sum(
        weights[:, :2] * kernel_fn(x, IMAGES[:2] + 0.1)))
    return symmetric(IMAGES), cross(IMAGES), kernel_fn.diag(IMAGES)

  _both(run)


@pytest.mark.parametrize('dtype', [
    'float32', pytest.param('float64', marks=pytest.mark.slow)])
@pytest.mark.parametrize('near', [
    pytest.param(0, marks=pytest.mark.slow), 3,
    pytest.param(30, marks=pytest.mark.slow)])
def test_kernels_of_vectors_and_their_gradients(dtype, near, monkeypatch):
  """With no, few and many close pairs, in one block and several."""
  monkeypatch.setattr(inputs, '_CACHE', 64 * 12)  # Blocks of rows on CPUs.
  x1 = RNG.normal(size=(24, 6))
  x2 = RNG.normal(size=(16, 6))
  x2[:near % 17] = x1[:len(x2[:near % 17])] * (1 + 1e-4)
  if near == 30:
    x2[:] = x1[:1] + 1e-5 * x2
  x1, x2 = jnp.asarray(x1, dtype), jnp.asarray(x2, dtype)
  kernel_fn = kernels.fcn(2)

  def run():
    total = lambda x1, x2: jnp.sum(jnp.sin(kernel_fn(x1, x2)))
    return (kernel_fn(x1, x2), kernel_fn(x1), kernel_fn.diag(x1),
            jax.grad(total, (0, 1))(x1, x2))

  exact = dtype == 'float64'
  _both(run, rtol=0, atol=1e-12 if exact else 2e-5)


@pytest.mark.parametrize('vmapped', [False, True])
def test_convolutions_and_their_gradients(vmapped, monkeypatch):
  monkeypatch.setattr(conv2d_lib, '_CACHE', 8 * 64 * 18 * 2)  # Two images.
  monkeypatch.setattr(conv2d_lib, '_SMALL', 1)
  kernel = jnp.asarray(RNG.normal(size=(3, 3, 3, 2, 4)))

  def run():
    def one(x, k):
      return jnp.sum(jnp.sin(conv2d_lib.conv2d(x, k)))
    grad = jax.value_and_grad(one, (0, 1))
    if vmapped:
      return jax.jit(jax.vmap(grad, (None, 0)))(IMAGES, kernel)
    return jax.jit(grad)(IMAGES, kernel[0])

  _both(run)


@pytest.mark.usefixtures('memory')
@pytest.mark.parametrize(('module', 'x'), [
    (nets.MLP(2, (6,)), IMAGES), (nets.ConvNet(2, depth=1, width=3), IMAGES),
    (nets.ConvNet(2, depth=1, width=3, norm='batch'), IMAGES)])
@pytest.mark.slow
def test_networks_side_by_side(key, module, x):
  y = jnp.eye(2)[np.arange(len(x)) % 2]

  def run():
    trained = train.fit_networks(
        key, module, Examples(x, y), optimizer=ADAM, num_steps=4,
        num_networks=3, batch_size=2)
    return trained.params, trained.curve, train.predict(trained, x)

  _both(run, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures('memory')
@pytest.mark.slow
def test_shadow_networks(key):
  y = jnp.eye(2)[np.arange(4) % 2]
  member = np.asarray(krr.random_halves(key, 4, 3))
  module = nets.ConvNet(2, depth=1, width=3)

  def run():
    found = fit_shadows(key, module, Examples(IMAGES[:4], y), member,
                        optimizer=ADAM, num_steps=4)
    return found.params, found.curve

  _both(run, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures('memory')
@pytest.mark.slow
def test_shadow_distillations(key):
  data = problem.blobs()
  labels = np.argmax(data.y, axis=1).astype(np.int32)
  member = shadows.stratified_halves(key, labels, 3)
  solver = kip.kip(kernels.fcn(1), ADAM, ridge=1e-3, batch_size=6)

  def run():
    found = shadows.distill_shadows(
        key, solver, np.asarray(data.x), np.asarray(data.y), labels, member,
        images_per_class=1, num_steps=6)
    return found.x, found.loss

  _both(run, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('most', [4096, 4])
def test_distribution_matching(key, most, monkeypatch):
  monkeypatch.setattr(dm, '_BLOCK', 2)
  monkeypatch.setattr(dm, '_BLOCK_ACCELERATOR', most)
  labels = np.arange(5) % 2
  data = targets.targets(IMAGES, np.eye(2)[labels], labels)
  solver = dm.dm(nets.ConvNet(2, depth=1, width=3), optax.sgd(0.1),
                 batch_size=3)
  start = support.support(IMAGES[:2], jnp.eye(2))

  def run():
    after, info = jax.jit(lambda s, d: solver.step(s, d))(
        solver.init(key, start, data), data)
    return after.support.x, info.loss

  _both(run, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('stop', [False, True])
def test_attacked_examples_go_at_once_as_memory_allows(key, stop, monkeypatch):
  module = nets.ConvNet(3, depth=1, width=3)
  x = jnp.asarray(RNG.uniform(size=(40, 8, 8, 1)))
  params = module.init(key, x[:1])
  predict = jax.tree_util.Partial(module.apply, params)
  labels = np.argmax(np.asarray(predict(x)), axis=1)

  def size():
    given = threat.build(predict, x, labels, epsilon=0.1, norm='linf')
    return tiles.pick_size(*given, None, stop)

  def run():
    return pgd.pgd(key, predict, x, labels, epsilon=0.05, norm='linf',
                   steps=8, stop=stop)

  _both(run, rtol=0, atol=1e-9)
  with numerics.pretend_accelerator():
    assert size() == (20 if stop else 40)  # Tiles of equal size.
    monkeypatch.setattr(numerics, 'working_memory', lambda: 2**17)
    assert 8 <= size() < 20
    if not stop:  # A later look for what is fooled may pick another start.
      few = run()
      monkeypatch.undo()
      jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9),
                   few, run())


@pytest.mark.usefixtures('memory')
@pytest.mark.parametrize('attack', [
    pytest.param('limit', marks=pytest.mark.slow), 'finite'])
@pytest.mark.slow
def test_seeds_of_attacks_side_by_side(key, attack):
  """With restarts, whose branch `vmap` turns into a choice of two results."""
  data = attack_problem.digits(4)
  if attack == 'limit':
    kernel_fn = kernels.fcn(1)
    released, _, _ = attack_problem.limit(data, kernel_fn)
    config = ntk_limit.Config(steps=10, restart_every=4, num_seeds=3,
                              dtype='float64')
    run = lambda: ntk_limit.reconstruct(
        key, released, config, kernel_fn=kernel_fn, progress=False)
  else:
    released, _ = attack_problem.network(data, nets.MLP(1, (32,)))
    config = finite.Config(steps=10, num_seeds=3)
    run = lambda: finite.reconstruct(key, released, config, progress=False)

  def numbers():
    out = run()
    return out.candidates, out.duals, out.curve, out.info['seed_losses']

  _both(numbers, rtol=1e-5, atol=1e-6)
