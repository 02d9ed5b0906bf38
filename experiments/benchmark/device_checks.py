"""What an accelerator computes, to be held against a CPU: small and exact.

Each check is a function of a seed that returns named arrays, in float64 where
nothing else is said. `accelerator_suite` calls it twice on the device, for the
same bits, and once on the CPU of the same machine, in a process of its own.
Chaotic methods take few steps, so that rounding has no time to grow.
"""
from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsr import data as data_lib, kernels, krr, nets, train
from dsr.attack import finite, ntk_limit, release
from dsr.distill import dm, kip, support, targets
from dsr.kernels.fused import build
from dsr.loop import run_chunk
from dsr.probes.attacks import pgd
from dsr.train import flow
from dsr.types import Examples

_DEPTHS = (1, 2, 4, 8, 12)
_CLASSES = 10


def image_kernels(seed: int, fused: bool = False) -> dict[str, np.ndarray]:
  """Pooled and unpooled kernels of images, value and gradient.

  Two of the images are near-duplicates, at a relative distance of 1e-3.
  """
  rng = np.random.default_rng(seed)
  x1, x2 = rng.normal(size=(2, 4, 8, 8, 3))
  x2[0] = x1[0] * (1 + 1e-3)
  found = {}
  for name in ('convnet3',) + (() if fused else ('convnet3_nopool',)):
    kernel_fn = kernels.by_name(name + '_fused' * fused)
    value, slope = jax.jit(jax.value_and_grad(
        functools.partial(_sum, kernel_fn), (0, 1)))(x1, x2)
    found |= {f'{name}_sum': value, f'{name}_gradient': jnp.stack(slope)}
  name = 'myrtle5' + '_fused' * fused
  found[name] = kernels.by_name(name)(x1, x2)
  return _host(found)


def _sum(kernel_fn, x1, x2):
  return jnp.sum(jnp.sin(kernel_fn(x1, x2)))


def vector_kernels(seed: int) -> dict[str, np.ndarray]:
  """Dense kernels, value and gradient, with near-duplicates, and `gram`."""
  rng = np.random.default_rng(seed)
  x1, x2 = rng.normal(size=(2, 60, 30))
  x2[:20] = x1[:20] * (1 + 1e-5)
  kernel_fn = kernels.fcn(2)
  slope = jax.jit(jax.grad(
      lambda a, b: jnp.sum(jnp.sin(kernel_fn(a, b))), (0, 1)))(x1, x2)
  return _host({'value': kernel_fn(x1, x2), 'gradient': jnp.stack(slope),
                'gram': kernels.gram(kernel_fn, x1, tile_bytes=6 * 8 * 25**2)})


def regression(seed: int) -> dict[str, np.ndarray]:
  """Kernel ridge regression of digits, on the device and by CG."""
  data, test = _digits(seed, 600)
  kernel_fn = kernels.fcn(2)
  gram = kernels.gram(kernel_fn, data.x)
  direct = krr.fit_on_device(gram, kernel_fn, data, ridge=1e-4)
  iterative = krr.fit_by_cg(kernel_fn, data, ridge=1e-2, tol=1e-10)
  return {'direct': krr.predict_in_tiles(direct, test),
          'cg': krr.predict_in_tiles(iterative, test)}


def distillation(seed: int) -> dict[str, np.ndarray]:
  """20 steps of KIP and 5 of DM."""
  data, _ = _digits(seed, 200)
  labels = np.argmax(data.y, axis=1).astype(np.int32)
  given = targets.targets(data.x, data.y, labels)
  rows = np.concatenate([np.flatnonzero(labels == c)[:1]
                         for c in range(_CLASSES)])
  start = support.support(data.x[rows], data.y[rows])
  key = jax.random.key(seed)
  found = {}
  kip_solver = kip.kip(kernels.fcn(1), optax.adam(0.01), batch_size=100)
  dm_solver = dm.dm(nets.ConvNet(_CLASSES, depth=2, width=16), optax.sgd(0.5),
                    batch_size=10)
  for name, solver, state, steps in (
      ('kip', kip_solver, kip_solver.init(key, start), 20),
      ('dm', dm_solver, dm_solver.init(key, start, given), 5)):
    run = jax.jit(functools.partial(run_chunk, solver.step, num_steps=steps))
    found[name] = run(state, given)[0].support.x
  return _host(found)


def networks(seed: int) -> dict[str, np.ndarray]:
  """Three ConvNets side by side, and PGD against the first."""
  data, _ = _digits(seed, 40)
  key = jax.random.key(seed)
  module = nets.ConvNet(_CLASSES, depth=2, width=16)
  trained = train.fit_networks(
      key, module, data, optimizer=optax.adam(0.01), num_steps=10,
      num_networks=3)
  params = jax.tree.map(lambda a: a[0], trained.params)
  labels = np.argmax(data.y, axis=1)
  predict = jax.tree_util.Partial(
      module.apply, params if 'params' in params else {'params': params})
  attacked = pgd.pgd(key, predict, jnp.clip(data.x, 0, 1), labels,
                     epsilon=0.1, norm='linf', steps=5)
  return _host({'outputs': train.predict(trained, data.x), 'pgd': attacked})


def attacks(seed: int) -> dict[str, np.ndarray]:
  """Ten steps of the attack on values and of that on parameters.

  The latter searches all pixels: the basis of the span that it would search
  otherwise is known up to a rotation, which rounding decides, and with it
  where the search starts.
  """
  data, _ = _digits(seed, 10)
  centred = Examples(data.x - data.x.mean(), data.y)
  low, high = (float(bound - data.x.mean()) for bound in (0, 1))
  key = jax.random.key(seed)
  kernel_fn = kernels.fcn(1)
  predict = krr.fit(kernel_fn, centred, ridge=0.0)
  public = {'num_train': 10, 'input_shape': centred.x.shape[1:],
            'num_outputs': _CLASSES, 'low': low, 'high': high}
  at_limit = ntk_limit.reconstruct(
      key, release.query_only(predict, dtype='float64', **public),
      ntk_limit.Config(steps=10, dtype='float64'), kernel_fn=kernel_fn,
      progress=False)
  module = nets.MLP(_CLASSES, widths=(64,))
  theta_0 = jax.tree.map(lambda a: a.astype(centred.x.dtype),
                         module.init(key, centred.x[:1])['params'])
  victim = flow.fit_flow(module, theta_0, centred, max_steps=20, tolerance=0,
                          progress=False)
  of_network = finite.reconstruct(
      key, release.parameters(module, victim.theta_0, victim.theta_T, **public),
      finite.Config(steps=10, subspace=False), progress=False)
  return _host({'ntk_limit': at_limit.candidates,
                'finite': of_network.candidates,
                'theta_T': jax.flatten_util.ravel_pytree(victim.theta_T)[0]})


def digits_of_kernels(seed: int) -> dict[str, float]:
  """Largest relative error of float32 NTKs against 40-digit arithmetic.

  Pairs of 32 numbers at relative distances from 1e-6 to 2, by depth.
  """
  import mpmath

  rng = np.random.default_rng(seed)
  left = rng.normal(size=(8, 32)).astype('f4')
  shift = 10.0 ** np.linspace(-6, 0.3, 8)[:, None]
  right = (left + shift * rng.normal(size=left.shape)).astype('f4')
  worst = {}
  for depth in _DEPTHS:
    found = np.diagonal(kernels.fcn(depth)(jnp.asarray(left),
                                           jnp.asarray(right)))
    with mpmath.workdps(40):
      exact = [_exact(mpmath, a, b, depth) for a, b in zip(left, right)]
      worst[f'fcn{depth}'] = max(
          float(abs((mpmath.mpf(float(f)) - e) / e))
          for f, e in zip(found, exact))
  return worst


def _exact(mp, a, b, depth):
  """The NTK of `depth` hidden ReLU layers, W_std^2 = 2, b_std = 0.1."""
  mpf = lambda array: [mp.mpf(float(v)) for v in array]
  a, b, bias = mpf(a), mpf(b), mp.mpf('0.1') ** 2
  mean = lambda u, v: sum(x * y for x, y in zip(u, v)) / len(u)
  layer = lambda k: 2 * k + bias
  k, q1, q2 = (layer(mean(*pair)) for pair in ((a, b), (a, a), (b, b)))
  ntk = k
  for _ in range(depth):
    size = mp.sqrt(q1 * q2)
    angle = mp.acos(k / size)
    turned = mp.pi - angle
    slope = turned / (2 * mp.pi)
    k = size * (mp.sin(angle) + turned * mp.cos(angle)) / (2 * mp.pi)
    q1, q2, k = layer(q1 / 2), layer(q2 / 2), layer(k)
    ntk = k + 2 * slope * ntk
  return ntk


def _digits(seed, num):
  """(`num` centred digits of all classes in float64, 100 test images)."""
  splits = data_lib.load('digits', seed=seed)
  rows = data_lib.balanced_rows(
      jax.random.key(seed), splits.train.y, num // _CLASSES, _CLASSES)
  part = splits.train.take(rows)
  y = jnp.asarray(data_lib.encode(part.y, _CLASSES), jnp.float64)
  return (Examples(jnp.asarray(part.x, jnp.float64), y),
          jnp.asarray(splits.test.x[:100], jnp.float64))


def _host(found) -> dict[str, np.ndarray]:
  return {name: np.asarray(value, float) for name, value in found.items()}


# Name -> (check, largest difference from the CPU, relative to the largest
# number of an array).
CHECKS: dict[str, tuple[Callable, float]] = {
    'image_kernels': (image_kernels, 1e-9),
    'vector_kernels': (vector_kernels, 1e-9),
    'regression': (regression, 1e-7),
    'distillation': (distillation, 1e-6),
    'networks': (networks, 1e-6),
    'attacks': (attacks, 1e-6),
}
if build.compiler('cuda') is not None:
  CHECKS['fused_kernels'] = (
      functools.partial(image_kernels, fused=True), 1e-9)
