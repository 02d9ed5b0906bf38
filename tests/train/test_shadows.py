"""Shadow networks: each is the network that its own examples give."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import krr, loop, nets, train
from dsr.train.shadows import fit_shadows
from dsr.types import Examples
from tests.train import problem

ADAM = optax.adam(0.02)
MLP = nets.MLP(2, widths=(4,))
R, N, H = 3, 12, 6


@functools.cache
def _data():
  return problem.examples(N)


def _member(num=R, n=N):
  return krr.random_halves(jax.random.key(5), n, num)


def _own(data, rows):
  return Examples(data.x[rows], data.y[rows])


def _shifted(key, x):
  return x + 0.1 * jax.random.normal(key, (1, *x.shape[1:]), x.dtype)


@pytest.mark.parametrize(('batch_size', 'parallel', 'augment'), [
    (None, None, _shifted), (4, 2, _shifted), (H, 1, None)])
def test_each_is_the_network_of_its_own_examples(
    key, batch_size, parallel, augment):
  data, member = _data(), np.asarray(_member())
  kwargs = dict(optimizer=ADAM, num_steps=10, batch_size=batch_size,
                augment=augment)
  found = fit_shadows(key, MLP, data, member, parallel=parallel, **kwargs)
  assert found.curve.shape == (10, R)
  assert found.batch_stats is None
  for r in range(R):
    want = train.fit_networks(
        key, MLP, _own(data, member[r]), num_networks=R, **kwargs)
    np.testing.assert_allclose(
        found.curve[:, r], want.curve[:, r], rtol=1e-10)
    for a, b in zip(jax.tree.leaves(found.params),
                    jax.tree.leaves(want.params), strict=True):
      np.testing.assert_allclose(a[r], b[r], rtol=1e-9, atol=1e-12)
  assert len(set(found.curve[-1])) == R


def test_no_network_reads_what_is_not_its_own_and_nothing_is_compiled_anew(key):
  data, member = _data(), np.asarray(_member(2))
  fit = functools.partial(fit_shadows, key, MLP, member=member, optimizer=ADAM,
                          num_steps=10, batch_size=4)
  found = fit(data)
  compiled = loop.run_chunk._cache_size()
  # Halves of a pair do not overlap: spoil the second, look at the first.
  x = np.where(member[1][:, None], 9 * np.asarray(data.x), data.x)
  other = fit(Examples(jnp.asarray(x), data.y))
  assert loop.run_chunk._cache_size() == compiled
  for a, b in zip(*map(jax.tree.leaves, (found.params, other.params))):
    np.testing.assert_array_equal(a[0], b[0])
    assert (a[1] != b[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize('batch_size', [None, 2])
def test_batch_norm_gets_the_moments_of_its_own_examples(key, batch_size):
  module = nets.build('convnet3_batch', 2, depth=1, width=2)
  rng = np.random.default_rng(0)
  data = Examples(jnp.asarray(rng.normal(size=(8, 4, 4, 1))),
                  jnp.asarray(rng.normal(size=(8, 2))))
  member = np.asarray(_member(2, 8))
  kwargs = dict(optimizer=ADAM, num_steps=2, batch_size=batch_size)
  found = fit_shadows(key, module, data, member, **kwargs)
  for r in range(2):
    want = train.fit_networks(
        key, module, _own(data, member[r]), num_networks=2, **kwargs)
    for a, b in zip(jax.tree.leaves(found.batch_stats),
                    jax.tree.leaves(want.batch_stats), strict=True):
      np.testing.assert_allclose(a[r], b[r], rtol=1e-8)


def test_a_loss_that_is_not_finite_is_an_error(key):
  data = _data()._replace(y=jnp.full((N, 2), 1e200))
  with pytest.raises(FloatingPointError, match='mse loss of MLP is not finite'):
    fit_shadows(key, MLP, data, _member(2), optimizer=ADAM, num_steps=10,
                batch_size=4)


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    (lambda m: m.at[1, jnp.argmin(m[1])].set(True),
     '`member` must have equally many members, at least one, in each of its '
     'rows, got 6 to 7'),
    (lambda m: jnp.zeros_like(m), 'got 0 to 0'),
    (lambda m: m[:0], 'got 12 to 0'),
    (lambda m: m[:, 1:], r'`member` must be boolean of shape \(3, 12\), got b'),
    (lambda m: m[0], r'`member` must be boolean of shape \(12, 12\), got bool'),
    (lambda m: m.astype(int), r'of shape \(3, 12\), got int'),
])
def test_bad_masks_are_named(key, change, message):
  with pytest.raises(ValueError, match=message):
    fit_shadows(key, MLP, _data(), change(_member()), optimizer=ADAM,
                num_steps=1)


@pytest.mark.errors
@pytest.mark.parametrize('name', ['num_steps', 'parallel', 'batch_size'])
def test_bad_numbers_are_named(key, name):
  with pytest.raises(ValueError, match=f'`{name}` must be an integer of at le'):
    fit_shadows(key, MLP, _data(), _member(),
                **{'optimizer': ADAM, 'num_steps': 2, name: 0})
