"""Run by `test_sharded.py` in a process of eight CPU devices.

It raises at the first result that depends on where the inputs lie.
"""
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import optax

from dsr import kernels, krr, linalg, numerics
from dsr.distill import kip, support, targets
from dsr.kernels import empirical
from dsr.nets import MLP
from dsr.types import Examples

DEVICES = 8
RNG = np.random.default_rng(0)
N, M, S = 32, 16, 8
LABELS = np.arange(N) % 2
X = RNG.normal(size=(N, 12))  # Solves enlarge rounding: float64.
X[1] = X[0] * (1 + 1e-4)  # A close pair, which is repaired.
Y = np.eye(2)[LABELS] - 0.5
IMAGES = RNG.normal(size=(DEVICES, 4, 4, 2)).astype(np.float32)
FCN = kernels.fcn(2)


def _layouts():
  """All on one device; rows dealt out to all of them."""
  mesh = Mesh(np.asarray(jax.devices()), ('rows',))
  for at in (jax.devices()[0], NamedSharding(mesh, PartitionSpec('rows'))):
    yield lambda a, at=at: jax.device_put(a, at)


def _check(name, fn):
  """`fn(put)` must not depend on where `put` puts the inputs."""
  want, got = (jax.tree.map(np.asarray, fn(put)) for put in _layouts())
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      b, a, rtol=0, atol=1e-6 * np.abs(a).max(), err_msg=name), want, got)


def _kernel(kernel_fn, x):
  def run(put):
    one, two = put(x), put(x[:DEVICES] + 0.5)
    total = lambda a, b: kernel_fn(a, b).sum()
    return (kernel_fn(one), kernel_fn(one, two), kernel_fn.diag(one),
            jax.grad(total, (0, 1))(one, two))
  return run


def _regression(put):
  data, ahead = Examples(put(X), put(Y)), put(X[:M] + 0.1)
  direct = jax.jit(krr.fit, static_argnums=0)(FCN, data, ridge=1e-3)
  steps = krr.fit_by_cg(FCN, data, ridge=1e-3, tile=8, tol=1e-9)
  halves = krr.shadows(jax.random.key(0), FCN(data.x), data.y, num_shadows=4,
                       ridge=1e-3)
  assert direct.info.converged
  assert steps.info.converged
  factor = linalg.factorise(FCN(data.x), ridge=1e-3, method='eigh')
  return (direct(ahead), steps(ahead), halves.outputs,
          linalg.log_det(factor), krr.gradient_flow(FCN, data)(ahead, 2.0))


def _distillation(put):
  solver = kip.kip(FCN, optax.sgd(0.1), ridge=1e-2, batch_size=0,
                   learn_labels=True)
  data = targets.targets(X, Y, LABELS)
  data = data._replace(x=put(data.x), y=put(data.y))
  start = support.support(put(X[:S] + 0.3), put(Y[:S]))
  state = solver.init(jax.random.key(0), start)
  step = jax.jit(solver.step)
  for _ in range(3):
    state, info = step(state, data)
  return state.support.x, state.support.y, info.loss


def _gram():
  """Rows lie on their devices; where these do not divide N, on one."""
  for rows in (N, N - 3):
    for x2 in (None, X[:M]):
      want = np.asarray(FCN(X[:rows], *([] if x2 is None else [x2])))
      found = kernels.gram(FCN, X[:rows], x2, tile_bytes=6 * 8 * 25)
      assert len(found.sharding.device_set) == (DEVICES if rows == N else 1)
      np.testing.assert_allclose(found, want, rtol=0, atol=1e-6 * want.max())
  k = kernels.gram(FCN, X)
  data = Examples(X, Y)
  direct = krr.fit(FCN, data, ridge=1e-3)
  np.testing.assert_allclose(
      linalg.solve(linalg.factorise(k, ridge=1e-3), Y), direct.dual,
      rtol=0, atol=1e-6 * np.abs(direct.dual).max())
  np.testing.assert_allclose(
      krr.fit_gram(k, FCN, data, ridge=1e-3).dual, direct.dual,
      rtol=0, atol=1e-6 * np.abs(direct.dual).max())


def main():
  assert jax.device_count() == DEVICES
  jax.config.update('jax_enable_x64', True)
  _gram()
  _check('fcn2', _kernel(FCN, X.astype(np.float32)))
  network = MLP(2, (4,))
  params = network.init(jax.random.key(0), X)
  _check('empirical', _kernel(empirical.ntk(network.apply, params), X))
  _check('convnet1', _kernel(kernels.convnet(1), IMAGES))
  _check('regression', _regression)
  _check('kip', _distillation)
  with numerics.pretend_accelerator():
    _check('convnet1, for accelerators', _kernel(kernels.convnet(1), IMAGES))


if __name__ == '__main__':
  main()
