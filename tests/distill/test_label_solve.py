"""Label Solve against the pseudoinverse, and as the optimum that it is."""
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dsr import krr as krr_lib
from dsr.distill.label_solve import label_solve
from dsr.types import Examples
from tests.distill import problem
from tests.reference import distill as oracle

FCN1, GAUSSIAN, RIDGE = problem.FCN1, problem.GAUSSIAN, problem.RIDGE
DTYPES = pytest.mark.parametrize('dtype', ['float32', 'float64'])


def _problem(classes=3, *, dtype='float64'):
  """(support x, its given y, training set), on the host."""
  data = problem.blobs(classes, dtype=dtype)
  start = problem.start(data)
  return (np.asarray(start.x), np.asarray(start.y),
          Examples(np.asarray(data.x), np.asarray(data.y)))


def _oracle(x, data, **kwargs):
  return oracle.label_solve(
      problem.numpy_gaussian, *problem.host(x, *data),
      **{'ridge': RIDGE, **kwargs})


@DTYPES
@pytest.mark.parametrize('classes', [2, 3])
def test_labels_are_the_pseudoinverse_on_the_targets(dtype, classes):
  x, _, data = _problem(classes, dtype=dtype)
  labels = label_solve(GAUSSIAN, x, data, ridge=RIDGE)
  assert isinstance(labels, np.ndarray)
  assert labels.dtype == dtype
  tol = 1e-2 if dtype == 'float32' else 1e-8
  np.testing.assert_allclose(labels, _oracle(x, data), rtol=tol, atol=tol)


def test_labels_meet_numpy_with_the_kernel_of_a_network():
  x, _, data = _problem()
  want = oracle.label_solve(oracle.fcn1, x, *data, ridge=RIDGE)
  np.testing.assert_allclose(
      label_solve(FCN1, x, data, ridge=RIDGE), want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('tile', [1, 5, 14, 28])
def test_tiles_do_not_matter(tile):
  x, _, data = _problem()
  np.testing.assert_allclose(
      label_solve(GAUSSIAN, x, data, ridge=RIDGE, tile=tile),
      label_solve(GAUSSIAN, x, data, ridge=RIDGE), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('ridge', [1e-2, 1e-6, 1e-8])
def test_repeated_images_get_the_same_least_norm_labels(ridge):
  x, _, data = _problem()
  x = np.concatenate([x, x[:2]])
  labels = label_solve(GAUSSIAN, x, data, ridge=ridge)
  a = oracle.prediction_matrix(problem.numpy_gaussian, x, data.x, ridge)
  assert np.linalg.matrix_rank(a, tol=1e-6) == 6
  np.testing.assert_allclose(labels[6:], labels[:2], atol=1e-5)
  want = _oracle(x, data, ridge=ridge, rcond=1e-6)
  np.testing.assert_allclose(labels, want, atol=1e-5)
  # Any other optimum, such as weight moved to one copy, is longer.
  moved = labels + np.eye(8)[[0]].T - np.eye(8)[[6]].T
  np.testing.assert_allclose(a @ moved, a @ labels, atol=1e-5)
  assert np.linalg.norm(labels) < np.linalg.norm(moved)


def test_fewer_training_than_support_examples():
  x, _, data = _problem()
  few = Examples(data.x[:4], data.y[:4])
  np.testing.assert_allclose(
      label_solve(GAUSSIAN, x, few, ridge=RIDGE), _oracle(x, few),
      rtol=1e-7, atol=1e-9)


def test_labels_are_optimal_and_better_than_the_given_ones():
  x, y, data = _problem()
  labels = label_solve(GAUSSIAN, x, data, ridge=RIDGE)

  def error(y):
    predict_fn = krr_lib.fit(
        GAUSSIAN, Examples(jnp.asarray(x), jnp.asarray(y)), ridge=RIDGE)
    return float(krr_lib.mse(predict_fn(jnp.asarray(data.x)), data.y))

  assert error(labels) < 0.8 * error(y)
  a = oracle.prediction_matrix(problem.numpy_gaussian, x, data.x, RIDGE)
  np.testing.assert_allclose(a.T @ (data.y - a @ labels), 0, atol=1e-9)


def test_rcond_cuts_as_in_numpy():
  x, _, data = _problem()
  a = oracle.prediction_matrix(problem.numpy_gaussian, x, data.x, RIDGE)
  values = np.linalg.svd(a)[1]
  rcond = float(np.sqrt(values[2] * values[3]) / values[0])
  np.testing.assert_allclose(
      label_solve(GAUSSIAN, x, data, ridge=RIDGE, rcond=rcond),
      _oracle(x, data, rcond=rcond), rtol=1e-6, atol=1e-8)


def test_same_input_same_bits_and_tiles_compile_twice():
  x, _, data = _problem()
  traced = []

  def cross(x1, x2):
    traced.append(len(x1))
    return GAUSSIAN.cross(x1, x2)

  kernel_fn = GAUSSIAN._replace(cross=cross)
  one, two = (label_solve(kernel_fn, x, data, tile=5) for _ in range(2))
  np.testing.assert_array_equal(one, two)
  assert traced == [5, 3]  # 28 rows: five tiles of 5 and the rest.


def test_progress_shows_on_a_terminal_only(capsys, monkeypatch):
  x, _, data = _problem()
  label_solve(GAUSSIAN, x, data, tile=14, progress=True)
  assert capsys.readouterr().err == ''
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  label_solve(GAUSSIAN, x, data, tile=14, progress=True)
  assert '2/2' in capsys.readouterr().err


def test_an_indefinite_kernel_is_an_error_with_advice():
  x, _, data = _problem()
  negative = GAUSSIAN._replace(symmetric=lambda x: -GAUSSIAN.symmetric(x))
  with pytest.raises(FloatingPointError, match=r'raise `ridge` \(got 0.001\)'):
    label_solve(negative, x, data, ridge=RIDGE)


@pytest.mark.errors
def test_bad_arguments_are_named():
  x, _, data = _problem()

  def refused(match, x=x, data=data, **kwargs):
    with pytest.raises(ValueError, match=match):
      label_solve(GAUSSIAN, x, data, **kwargs)

  refused('`ridge` must be positive and finite, got 0', ridge=0)
  refused('`tile` must be an integer of at least 1, got 0', tile=0)
  refused('`rcond` must be finite and not negative, got -1', rcond=-1)
  refused('`support_x` must be floating point', x=x.astype(int))
  refused(r'`data.x` has examples of shape \(5,\), expected \(2,\)', x=x[:, :2])
  refused('`data.x` has dtype float64, expected float32',
          x=x.astype('float32'))
  refused('`data.y` has 27 rows, expected 28', data=data._replace(y=data.y[1:]))
