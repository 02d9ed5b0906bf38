"""What `test_many_hosts.py` runs in several processes."""
import json

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import optax

from dsr import hosts, kernels, krr, loop
from dsr.distill import kip, support, targets
from dsr.runs import distributed
from dsr.types import Examples, KernelFn

N, AHEAD, RANK = 75, 9, 10


def _square(a, b):
  return (jnp.matmul(a, b.T, precision='highest') / a.shape[1] + 1) ** 2


# Quick to compile, unlike those of networks.
SQUARE = KernelFn(_square, lambda a: _square(a, a),
                  lambda a: ((a * a).mean(1) + 1) ** 2, 'square')


def examples():
  """(N examples of two classes, further inputs)."""
  rng = np.random.default_rng(0)
  y = np.eye(2)[np.arange(N) % 2] - 0.5
  x, ahead = (rng.normal(size=(n, 12)) for n in (N, AHEAD))
  return Examples(x, y), jnp.asarray(ahead)


OPTIONS = {'ridge': 0.1, 'tile': 8, 'tol': 1e-8}


def tell(**values):
  """One line of JSON on stdout."""
  plain = lambda a: np.asarray(a).tolist()
  print(json.dumps(jax.tree.map(plain, values)))  # noqa: T201


def regression(sketch='', workdir='', max_steps='500'):
  data, ahead = examples()
  predict = krr.fit_on_hosts(
      SQUARE, data, **OPTIONS, rank=RANK, workdir=workdir or None,
      key=jax.random.key(0) if sketch else None, checkpoint_every=2,
      max_steps=int(max_steps))
  on = hosts.mesh()
  shards = predict.support.addressable_shards
  assert {s.data.shape for s in shards} == {
      (hosts.padded(N, on) // on.devices.size, 12)}
  tell(outputs=krr.predict_in_tiles(predict, ahead, tile=4),
       steps=predict.info.steps, residual=predict.info.residual,
       converged=predict.info.converged)


def direct():
  """Of 72 rows, which 1, 2 and 4 processes divide."""
  data, ahead = examples()
  data = Examples(data.x[:72], data.y[:72])
  gram = kernels.gram(SQUARE, data.x)
  inside, outside = krr.in_out_on_hosts(gram, data.y, ridge=1e-3)
  predict = krr.fit_directly_on_hosts(SQUARE, data, ridge=1e-3)
  found = krr.shadows_on_hosts(
      jax.random.key(0), gram, data.y, num_shadows=5, ridge=1e-2, block=5,
      others=kernels.gram(SQUARE, np.asarray(ahead[:8]), data.x))
  num = jax.device_count()
  for name, rows in (('outputs', 72), ('others', 8)):
    shards = getattr(found, name).addressable_shards
    assert {s.data.shape for s in shards} == {(5, rows // num, 2)}
  assert found.converged.all()
  tell(inside=inside, outside=outside,
       outputs=krr.predict_in_tiles(predict, ahead), member=found.member,
       shadows=gathered(found.outputs), elsewhere=gathered(found.others))


def gathered(x):
  """Whole, of an array whose second axis is dealt out."""
  if not hosts.is_global(x):
    return x
  shards = sorted(x.addressable_shards, key=lambda s: s.index[1].start or 0)
  own = np.concatenate([s.data for s in shards], axis=1)
  return np.concatenate(multihost_utils.process_allgather(own), axis=1)


def distillation(batch_size, workdir='', steps='6'):
  rng = np.random.default_rng(0)
  labels = np.arange(64) % 2
  x, y = rng.normal(size=(64, 12)), np.eye(2)[labels] - 0.5
  on = hosts.mesh() if hosts.several() else None
  data = targets.targets(x, y, labels, on=on)
  solver = kip.kip(SQUARE, optax.adam(0.1), ridge=1e-2, learn_labels=True,
                   batch_size=int(batch_size), on=on)
  state = solver.init(
      jax.random.key(0), support.support(x[:8] + 0.3, y[:8]))
  if on is not None:
    state = hosts.spread(state, on)
    assert {s.data.shape for s in data.x.addressable_shards} == {
        (64 // on.devices.size, 12)}
  result = loop.run(
      solver.step, state, data, num_steps=int(steps), chunk=2,
      workdir=workdir or None, checkpoint_every=2)
  end = hosts.own(result.state)
  tell(x=end.support.x, y=end.support.y, loss=result.infos.loss,
       done=result.steps_done)


def lengthy(workdir, every='1'):
  """An ill-conditioned solve, saved after every step."""
  data, ahead = examples()
  try:
    predict = krr.fit_on_hosts(
        SQUARE, data, ridge=1e-9, rank=1, tol=1e-10, workdir=workdir,
        checkpoint_every=int(every), max_steps=2000)
  except jax.errors.JaxRuntimeError as error:
    if distributed.is_lost(error):
      distributed.end(error)
    raise
  tell(outputs=krr.predict_in_tiles(predict, ahead), steps=predict.info.steps,
       residual=predict.info.residual, converged=predict.info.converged)
