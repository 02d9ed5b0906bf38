"""Many processes give what one gives, and go on from each other's state."""
import json
import shutil

import jax
import numpy as np
import pytest

from dsr import hosts, krr
from dsr.krr import many_hosts as ring
from dsr.types import Examples
from tests import hosts as processes, many_hosts


def _run(name, num, *args):
  """What each of `num` processes told, all the same."""
  told = [json.loads(out.strip().splitlines()[-1]) for out in processes.run(
      f'tests.many_hosts:{name}', num, *args)]
  assert all(one == told[0] for one in told)
  return told[0]


def _assert_close(got, want):
  for name in want:
    # Rounding may cost conjugate gradients a step.
    np.testing.assert_allclose(
        got[name], want[name], rtol=1e-7, atol=2 if name == 'steps' else 1e-7,
        err_msg=name)


@pytest.fixture(scope='module')
def alone():
  """By `fit_by_cg`, on all rows at once."""
  data, ahead = many_hosts.examples()
  predict = krr.fit_by_cg(
      many_hosts.SQUARE, data, **many_hosts.OPTIONS,
      low_rank=krr.pivoted_cholesky(
          many_hosts.SQUARE, data.x, rank=many_hosts.RANK))
  return {'outputs': np.asarray(predict(ahead)),
          'steps': int(predict.info.steps), 'converged': True}


def test_dealt_rows_of_one_device_are_those_of_cg(alone):
  """With 53 rows of padding, which must not show."""
  data, ahead = many_hosts.examples()
  predict = krr.fit_on_hosts(many_hosts.SQUARE, data, **many_hosts.OPTIONS,
                             rank=many_hosts.RANK)
  assert predict.dual.shape == (128, 2)
  np.testing.assert_array_equal(predict.dual[many_hosts.N:], 0)
  assert predict.info.steps == alone['steps']
  np.testing.assert_allclose(predict(ahead), alone['outputs'], atol=1e-7)


def test_no_program_has_an_array_as_large_as_the_matrix():
  """Of a step: the largest array is a tile of the rows of a device."""
  data, _ = many_hosts.examples()
  on, n = hosts.mesh(), many_hosts.N
  system = ring._prepare(
      hosts.deal(data.x, on), hosts.deal(data.y, on), 0.1, None,
      kernel_fn=many_hosts.SQUARE, on=on, n=n, rank=10, tile=8)
  steps = lambda s: ring._iteration(
      s, kernel_fn=many_hosts.SQUARE, n=n, tile=8, tol=1e-8)
  program = jax.make_jaxpr(ring._step(steps, on))
  state = ring._shard(lambda s: steps(s).init(), on, (ring._SYSTEM,),
                      ring._STATE)(system)
  text = str(program(state, system))
  assert 'f64[8,128]' in text
  assert 'f64[128,128]' not in text


@pytest.mark.slow
@pytest.mark.parametrize('num', [2, 4])
@pytest.mark.parametrize('sketch', ['', 'nystrom'])
def test_regression_by_many(alone, num, sketch):
  found = _run('regression', num, sketch)
  if sketch:
    found['steps'] = alone['steps']  # Another preconditioner.
  _assert_close(found, alone)


@pytest.mark.slow
def test_a_solve_of_two_goes_on_with_one_and_four(alone, tmp_path):
  first = _run('regression', 2, '', str(tmp_path / 'two'), '4')
  assert first['steps'] == 4
  assert not first['converged']
  for num in (1, 2, 4):
    folder = tmp_path / str(num)
    shutil.copytree(tmp_path / 'two', folder)
    _assert_close(_run('regression', num, '', str(folder)), alone)


@pytest.mark.parametrize('num', [
    1, pytest.param(2, marks=pytest.mark.slow),
    pytest.param(4, marks=pytest.mark.slow)])
def test_the_inverse_that_is_dealt_out(num, capsys):
  """Leave-one-out, halves and a fit, against those of the whole matrix."""
  if num == 1:
    many_hosts.direct()
    found = json.loads(capsys.readouterr().out)
  else:
    found = _run('direct', num)
  data, ahead = many_hosts.examples()
  data = Examples(data.x[:72], data.y[:72])
  want = krr.in_out(many_hosts.SQUARE(data.x), data.y, ridge=1e-3)
  np.testing.assert_allclose(found['inside'], want.inside, atol=1e-11)
  np.testing.assert_allclose(found['outside'], want.outside, atol=1e-11)
  want = krr.shadows(
      jax.random.key(0), many_hosts.SQUARE(data.x), data.y, num_shadows=5,
      ridge=1e-2, others=many_hosts.SQUARE(ahead[:8], data.x))
  np.testing.assert_array_equal(found['member'], want.member)
  np.testing.assert_allclose(found['shadows'], want.outputs, atol=1e-11)
  np.testing.assert_allclose(found['elsewhere'], want.others, atol=1e-11)
  predict = krr.fit(many_hosts.SQUARE, data, ridge=1e-3)
  np.testing.assert_allclose(found['outputs'], predict(ahead), atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize('batch_size', ['32', '0'])
def test_distillation_of_two_goes_on_with_one_and_four(tmp_path, batch_size):
  want = _run('distillation', 1, batch_size)
  _assert_close(_run('distillation', 2, batch_size), want)
  first = _run('distillation', 2, batch_size, str(tmp_path / 'two'), '4')
  assert first['done'] == 4
  for num in (1, 4):
    folder = tmp_path / str(num)
    shutil.copytree(tmp_path / 'two', folder)
    _assert_close(_run('distillation', num, batch_size, str(folder)), want)
