"""Ensembles, posteriors and descent against neural-tangents and brute force."""
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from dsr import krr, nets
from dsr.kernels import stax
from dsr.types import Examples, KernelFn

N, M, D, C = 12, 5, 3, 2


def _gaussian(scale):
  """A cheap kernel in place of a network's."""

  def cross(x1, x2):
    d2 = ((x1[:, None] - x2[None]) ** 2).sum(-1)
    return 2 * jnp.exp(-d2 / (2 * scale**2))

  diag = lambda x: 2 * jnp.ones(x.shape[0], x.dtype)
  return KernelFn(cross, lambda x: cross(x, x), diag, 'gaussian')


def _data():
  """(data, x (M, D)) in float64."""
  rng = np.random.default_rng(0)
  x, x_test, y = (jnp.asarray(rng.normal(size=s))
                  for s in ((N, D), (M, D), (N, C)))
  return Examples(x, y), x_test


@pytest.fixture
def problem():
  """(ntk, nngp, data, x): two kernels that need not be of one network."""
  return _gaussian(1.5), _gaussian(0.8), *_data()


@pytest.mark.parametrize(
    'ridge', [pytest.param(0.0, marks=pytest.mark.slow), 0.05])
def test_ensemble_is_a_linear_map_of_the_joint_gaussian(problem, ridge):
  """[I, -S] of the outputs before training, with S by a matrix exponential."""
  ntk, nngp, data, x = problem
  times = np.asarray([0.0, 7.0, np.inf])

  @jax.jit
  def predict(x):
    predict_fn = krr.ensemble(ntk, nngp, data, ridge=ridge)
    return predict_fn(x, times), predict_fn(
        x, 7.0), predict_fn(x, times, covariance='diagonal').covariance

  got, one, variance = predict(x)
  np.testing.assert_allclose(one.covariance, got.covariance[1], atol=1e-12)
  k = np.asarray(ntk(data.x))
  a = k + ridge * np.trace(k) / N * np.eye(N)
  joint = np.asarray(nngp(jnp.concatenate([x, data.x])))
  for i, t in enumerate(times):
    left = np.zeros((N, N)) if t == np.inf else scipy.linalg.expm(-t * a / N)
    s = np.asarray(ntk(x, data.x)) @ np.linalg.solve(a, np.eye(N) - left)
    both = np.concatenate([np.eye(M), -s], 1)
    want = both @ joint @ both.T
    np.testing.assert_allclose(got.mean[i], s @ data.y, atol=1e-9)
    np.testing.assert_allclose(got.covariance[i], want, atol=1e-9)
    np.testing.assert_allclose(variance[i], np.diag(want), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('ridge', [0.0, 0.05])
def test_ensemble_meets_neural_tangents(ridge):
  nt = stax.load()
  dense = lambda: nt.stax.Dense(1, W_std=1.5, b_std=0.3)
  _, _, kernel_fn = nt.stax.serial(
      dense(), nt.stax.Relu(), dense(), nt.stax.Erf(), dense())
  ntk, nngp = (stax.kernel(kernel_fn, get=g) for g in ('ntk', 'nngp'))
  data, x = _data()
  oracle = nt.predict.gradient_descent_mse_ensemble(
      kernel_fn, *data, diag_reg=ridge)
  times = np.asarray([0.0, 7.0, 300.0])
  # Its loss is a mean over outputs as well, so that its time runs C times.
  want = oracle(C * times, x, get=('nngp', 'ntk'), compute_cov=True)
  for kind, first in (('ntk', ntk), ('nngp', nngp)):
    predict_fn = krr.ensemble(first, nngp, data, ridge=ridge)
    got = predict_fn(x, times)
    np.testing.assert_allclose(got.mean, getattr(want, kind).mean, atol=1e-7)
    if kind == 'ntk' or ridge == 0:  # With a ridge it trains another readout.
      np.testing.assert_allclose(
          got.covariance, getattr(want, kind).covariance, atol=1e-7)
    variance = predict_fn(x, times, covariance='diagonal').covariance
    np.testing.assert_allclose(
        variance, np.einsum('tmm->tm', got.covariance), atol=1e-7)
  end = oracle(None, x, get='ntk', compute_cov=True)
  got = krr.ensemble(ntk, nngp, data, ridge=ridge)(x)
  np.testing.assert_allclose(got.mean, end.mean, atol=1e-7)
  np.testing.assert_allclose(got.covariance, end.covariance, atol=1e-7)


def test_posterior_is_that_of_the_joint_gaussian(problem):
  _, nngp, data, x = problem

  @jax.jit
  def predict(x):
    predict_fn = krr.posterior(nngp, data, noise=0.1)
    return predict_fn(x), predict_fn(x, covariance='diagonal').covariance

  got, variance = predict(x)
  joint = np.asarray(nngp(jnp.concatenate([data.x, x])))
  a, cross = joint[:N, :N] + 0.1 * np.eye(N), joint[:N, N:]
  np.testing.assert_allclose(
      got.mean, cross.T @ np.linalg.solve(a, data.y), rtol=1e-9)
  want = joint[N:, N:] - cross.T @ np.linalg.solve(a, cross)
  np.testing.assert_allclose(got.covariance, want, atol=1e-10)
  np.testing.assert_allclose(variance, np.diag(want), rtol=1e-8)


@pytest.mark.slow
def test_posterior_without_noise_is_where_training_of_the_readout_ends(problem):
  _, nngp, data, x = problem
  end = krr.ensemble(nngp, nngp, data)(x)
  exact = krr.posterior(nngp, data, noise=0.0)(x)
  np.testing.assert_allclose(end.mean, exact.mean, rtol=1e-6)
  np.testing.assert_allclose(end.covariance, exact.covariance, atol=1e-8)


def test_log_marginal_likelihood_is_that_of_a_gaussian(problem):
  _, nngp, data, _ = problem
  a = np.asarray(nngp(data.x)) + 0.1 * np.eye(N)
  want = sum(scipy.stats.multivariate_normal.logpdf(y, np.zeros(N), a)
             for y in np.asarray(data.y).T)
  log_p = lambda s, noise: krr.log_marginal_likelihood(
      nngp._replace(symmetric=lambda x: s * nngp.symmetric(x)), data,
      noise=noise)
  np.testing.assert_allclose(log_p(1.0, 0.1), want, rtol=1e-10)
  value = jax.jit(lambda p: log_p(*p))
  point = jnp.asarray([1.2, 0.1])
  grad = jax.jit(jax.grad(value))(point)
  for i, e in enumerate(1e-5 * np.eye(2)):
    slope = (value(point + e) - value(point - e)) / 2e-5
    np.testing.assert_allclose(grad[i], slope, rtol=1e-6)


@pytest.mark.parametrize(
    'momentum', [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_descent_is_descent(problem, momentum):
  """Step by step in the function space, up to the edge of stability."""
  ntk, nngp, data, x = problem
  k, k_test = np.asarray(ntk(data.x)), np.asarray(ntk(x, data.x))
  limit = float(krr.max_learning_rate(ntk, data.x, momentum=momentum))
  alpha, before = np.zeros((N, C)), np.zeros((N, C))
  for _ in range(50):
    slope = (k @ alpha - np.asarray(data.y)) / N
    alpha, before = (alpha + momentum * (alpha - before)
                     - 0.95 * limit * slope), alpha
  descent = krr.Descent(50, 0.95 * limit, momentum)
  flow = krr.gradient_flow(ntk, data)
  np.testing.assert_allclose(flow.dual(descent), alpha, rtol=1e-7, atol=1e-9)
  got = krr.ensemble(ntk, nngp, data)(x, descent, covariance='diagonal')
  np.testing.assert_allclose(got.mean, k_test @ alpha, rtol=1e-7)
  for share, grows in ((0.99, False), (1.01, True)):
    late = krr.Descent(4000, share * limit, momentum)
    largest = np.abs(flow.dual(late)).max()
    assert (largest > 1e6) == grows


class Network(nn.Module):
  """Two outputs of one hidden layer, NTK parameterisation."""

  width: int

  @nn.compact
  def __call__(self, x):
    for i, (size, std) in enumerate(((self.width, math.sqrt(2)), (C, 1.0))):
      w = self.param(f'w{i}', nn.initializers.normal(1.0),
                     (x.shape[-1], size), x.dtype)
      x = x @ w * (std / math.sqrt(x.shape[-1]))
      x = nn.relu(x) if i == 0 else x
    return x


@pytest.mark.slow
def test_ensemble_meets_trained_linearised_networks(key):
  """1,500 of width 512, each by 400 steps: within its standard error."""
  num, steps, width, few = 1500, 400, 512, 5
  rng = np.random.default_rng(1)
  x, x_test, y = (jnp.asarray(rng.normal(size=s))
                  for s in ((few, D), (3, D), (few, C)))
  # Small targets: what 512 units vary of the mean grows with them.
  module, rate, y = Network(width), 0.2, 0.2 * y

  def trained(key):
    theta_0 = module.init(key, x)['params']
    apply = nets.linearize(module, theta_0).apply
    loss = lambda p: ((apply({'params': p}, x) - y) ** 2).sum() / (2 * few)
    step = lambda _, p: jax.tree.map(
        lambda a, g: a - rate * g, p, jax.grad(loss)(p))
    theta = jax.lax.fori_loop(0, steps, step, theta_0)
    return apply({'params': theta}, x_test)

  out = np.asarray(jax.lax.map(trained, jax.random.split(key, num)))
  nt = stax.load()
  _, _, kernel_fn = nt.stax.serial(
      nt.stax.Dense(1, W_std=math.sqrt(2), b_std=0.0), nt.stax.Relu(),
      nt.stax.Dense(1, W_std=1.0, b_std=0.0))
  ntk, nngp = (stax.kernel(kernel_fn, get=g) for g in ('ntk', 'nngp'))
  want = krr.ensemble(ntk, nngp, Examples(x, y))(
      x_test, krr.Descent(steps, rate))
  error = out.std(0, ddof=1) / math.sqrt(num)
  assert np.abs((out.mean(0) - want.mean) / error).max() < 4.5
  for c in range(C):
    got, v = np.cov(out[..., c].T), np.diag(want.covariance)
    # Wishart's standard error, and the bias of 512 units.
    error = np.sqrt((np.outer(v, v) + np.asarray(want.covariance)**2) / num)
    assert np.abs(got - want.covariance).max() < (
        4.5 * error.max() + 10 / width * v.max())


@pytest.mark.errors
def test_errors_name_the_argument(problem):
  ntk, nngp, data, x = problem
  predict_fn = krr.ensemble(ntk, nngp, data)
  cases = [
      (lambda: predict_fn(x, covariance='half'), '`covariance` must be one of'),
      (lambda: predict_fn(x, -1.0), '`t` must not be negative'),
      (lambda: predict_fn(x, krr.Descent(-1, 0.1)), '`steps` must be'),
      (lambda: predict_fn(x, krr.Descent(1, 0.0)), '`rate` must be positive'),
      (lambda: predict_fn(x, krr.Descent(1, 0.1, 1.0)), '`momentum` must be'),
      (lambda: krr.ensemble(ntk, nngp, data, ridge=-1), '`ridge`'),
      (lambda: krr.posterior(nngp, data, noise=-1), '`noise`'),
      (lambda: krr.max_learning_rate(ntk, data.x, momentum=-1), '`momentum`'),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()
  for fit in (lambda d: krr.ensemble(ntk, nngp, d),
              lambda d: krr.gradient_flow(ntk, d),
              lambda d: krr.posterior(nngp, d, noise=0.1)):
    with pytest.raises(FloatingPointError, match='not finite'):
      fit(data._replace(x=data.x.at[2, 1].set(jnp.nan)))
