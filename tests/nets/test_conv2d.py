"""The convolution of our networks against `lax.conv`."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr.nets import conv2d as conv2d_lib
from dsr.nets.conv2d import conv2d


def _reference(x, kernel, padding):
  pads = ([(padding, padding)] * 2 if padding is not None else
          [((n - 1) // 2,) * 2 for n in kernel.shape[:2]])
  return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@pytest.fixture(params=[0, 64], ids=['patches', 'rows'])
def images(request, monkeypatch):
  """Seven of 6 x 5 x 8: rows, or patches of two at a time, then of one."""
  monkeypatch.setattr(conv2d_lib, '_NARROW', request.param)
  monkeypatch.setattr(conv2d_lib, '_CACHE', 2 * 30 * 72 * 8)
  return jax.random.normal(jax.random.key(0), (7, 6, 5, 8))


@pytest.mark.parametrize(
    ('shape', 'padding'), [((3, 3), None), ((5, 3), None), ((3, 3), 0),
                           ((3, 3), 3)])
def test_equals_lax_conv(images, shape, padding):
  kernel = jax.random.normal(jax.random.key(1), (*shape, 8, 4))
  out = conv2d(images, kernel, padding=padding)
  np.testing.assert_allclose(
      out, _reference(images, kernel, padding), rtol=1e-12, atol=1e-12)


def test_whole_batch_and_even_blocks_are_the_same(images, monkeypatch):
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 8, 4))
  even = conv2d(images[:6], kernel)
  monkeypatch.undo()
  monkeypatch.setattr(conv2d_lib, '_NARROW', 0)
  np.testing.assert_allclose(conv2d(images[:6], kernel), even, rtol=1e-12)


def test_derivatives_equal_those_of_lax_conv(images):
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 8, 4))
  loss = lambda f: lambda x, k: jnp.sum(jnp.sin(f(x, k)))
  ours = loss(conv2d)
  theirs = loss(lambda x, k: _reference(x, k, None))
  for got, want in zip(jax.grad(ours, (0, 1))(images, kernel),
                       jax.grad(theirs, (0, 1))(images, kernel)):
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
  tangents = jnp.cos(images), jnp.cos(kernel)
  np.testing.assert_allclose(
      jax.jvp(ours, (images, kernel), tangents)[1],
      jax.jvp(theirs, (images, kernel), tangents)[1], rtol=1e-10)


def test_maps_over_kernels(images):
  kernels = jax.random.normal(jax.random.key(1), (2, 3, 3, 8, 4))
  out = jax.vmap(conv2d, in_axes=(None, 0))(images, kernels)
  for got, kernel in zip(out, kernels):
    np.testing.assert_allclose(got, _reference(images, kernel, None),
                               rtol=1e-12, atol=1e-12)


def test_blocks_keep_no_patches(monkeypatch):
  x = jax.random.normal(jax.random.key(0), (64, 8, 8, 16), jnp.float32)
  kernel = jnp.ones((3, 3, 16, 16), jnp.float32)
  monkeypatch.setattr(conv2d_lib, '_NARROW', 0)

  def temporary():
    loss = lambda x, k: jnp.sum(conv2d(x, k)**2)
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  whole = temporary()
  monkeypatch.setattr(conv2d_lib, '_CACHE', 4 * x[0].size * 9 * 4)
  assert temporary() < 0.5 * whole


def test_few_channels_out_make_no_patches():
  """LeNet's layers are products with rows; wider ones keep to patches."""
  def products(size, channels, outputs, width):
    x = jnp.ones((2, width, width, channels))
    kernel = jnp.ones((size, size, channels, outputs))
    jaxpr = jax.make_jaxpr(lambda x, k: conv2d(x, k, padding=0))(x, kernel)
    return [e.invars[1].aval.shape for e in jaxpr.eqns
            if e.primitive.name == 'dot_general']

  assert products(5, 1, 6, 32) == [(5 * 32, 28 * 6)]
  assert products(5, 6, 16, 14) == [(5 * 14 * 6, 10 * 16)]
  assert products(3, 1, 128, 30) == [(9, 128)]
