"""What `test_many_hosts.py` runs in several processes."""
import json

import jax
import numpy as np
import optax

from dsr import hosts, kernels, krr, loop
from dsr.distill import kip, support, targets
from dsr.types import Examples

FCN = kernels.fcn(1)


def _regression(rows=75):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(rows, 12))
  x[1] = x[0] * (1 + 1e-4)  # A close pair, which is repaired.
  y = np.eye(2)[np.arange(rows) % 2] - 0.5
  return Examples(x, y), rng.normal(size=(9, 12))


def tell(**values):
  """One line of JSON on stdout."""
  plain = lambda a: np.asarray(a).tolist()
  print(json.dumps(jax.tree.map(plain, values)))  # noqa: T201


def regression(workdir='', max_steps='500'):
  data, ahead = _regression()
  options = {'ridge': 0.1, 'rank': 10, 'tile': 8, 'tol': 1e-8}
  predict = krr.fit_on_hosts(
      FCN, data, **options, workdir=workdir or None, checkpoint_every=2,
      max_steps=int(max_steps))
  nystrom = krr.fit_on_hosts(FCN, data, **options, key=jax.random.key(0))
  for found in (predict, nystrom):
    num = jax.device_count()
    size = hosts.padded(75, hosts.mesh()) // num
    assert found.support.addressable_shards[0].data.shape == (size, 12)
  tell(outputs=krr.predict_in_tiles(predict, ahead, tile=4),
       nystrom=krr.predict_in_tiles(nystrom, ahead), steps=predict.info.steps,
       residual=predict.info.residual, converged=predict.info.converged,
       nystrom_steps=nystrom.info.steps)


def distillation(workdir='', steps='6', batch_size='32'):
  rng = np.random.default_rng(0)
  labels = np.arange(64) % 2
  x, y = rng.normal(size=(64, 12)), np.eye(2)[labels] - 0.5
  data = targets.targets(x, y, labels)
  on = hosts.mesh() if hosts.several() else None
  solver = kip.kip(FCN, optax.adam(0.1), ridge=1e-2, learn_labels=True,
                   batch_size=int(batch_size), on=on)
  state = solver.init(
      jax.random.key(0), support.support(x[:8] + 0.3, y[:8]))
  if on is not None:
    state, data = hosts.spread(state, on), targets.deal(data, on)
  result = loop.run(
      solver.step, state, data, num_steps=int(steps), chunk=2,
      workdir=workdir or None, checkpoint_every=2)
  end = hosts.own(result.state)
  tell(x=end.support.x, y=end.support.y, loss=result.infos.loss,
       done=result.steps_done)
