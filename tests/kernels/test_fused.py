"""Fused stages: the program of the GPU, compiled for the CPU, held to XLA's."""
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels
from dsr.kernels import architectures, network
from dsr.kernels.fused import build, kernel, stage
from tests.kernels import stacks

needs_compiler = pytest.mark.skipif(
    build.compiler('cpu') is None, reason='no g++')
BLOCK = [kernels.Conv(3, W_std=1.4, b_std=0.1), kernels.Relu()]
# Stages of one, two and three convolutions; what comes after them differs.
STACKS = {
    'small': ([*BLOCK, kernels.AvgPool(2), kernels.Flatten(),
               kernels.Dense(W_std=1.4, b_std=0.1)], (8, 8, 2)),
    'one': ([*BLOCK, kernels.AvgPool(2)] * 2
            + [kernels.Flatten(), kernels.Dense(W_std=1.4, b_std=0.1)],
            (16, 12, 3)),
    'two-one': ([*BLOCK * 2, kernels.AvgPool(2), *BLOCK, kernels.AvgPool(2),
                 *BLOCK, kernels.GlobalAvgPool(), kernels.Dense()],
                (20, 16, 1)),
    'three': ([*BLOCK * 3, kernels.AvgPool(2), *BLOCK,
               kernels.GlobalAvgPool(), kernels.Dense()], (8, 8, 2)),
}


@pytest.fixture(params=[
    pytest.param(name, marks=() if name == 'small' else pytest.mark.slow)
    for name in STACKS])
def both(request):
  """(usual, fused, shape of an image)."""
  layers, shape = STACKS[request.param]
  return network.serial(*layers), network.serial(*layers, fused=True), shape


@needs_compiler
def test_values_and_gradients_are_those_of_the_usual_way(both, monkeypatch):
  monkeypatch.setattr(kernel, '_CHUNK', 4)  # Several chunks, the last filled.
  usual, fused, shape = both
  x1, x2 = stacks.normal(0, 2, *shape), stacks.normal(1, 3, *shape)
  x2[1] *= 30  # Pairs of unlike norms have their own form.
  weights = stacks.normal(2, 2, 3)

  def loss(kernel_fn):
    def fn(x1, x2):
      return (jnp.sum(weights * kernel_fn(x1, x2))
              + jnp.sum(jnp.sin(kernel_fn(x1))))
    return fn

  (value, grads), (want, want_grads) = (
      jax.jit(jax.value_and_grad(loss(k), (0, 1)))(x1, x2)
      for k in (fused, usual))
  np.testing.assert_allclose(value, want, rtol=1e-13)
  for grad, want_grad in zip(grads, want_grads):
    np.testing.assert_allclose(
        grad, want_grad, rtol=0, atol=1e-12 * np.abs(want_grad).max())
  np.testing.assert_allclose(fused.diag(x2), usual.diag(x2), rtol=1e-13)


@needs_compiler
def test_float32_keeps_near_duplicates():
  usual, fused = architectures.convnet(1), architectures.convnet(1, fused=True)
  x = stacks.normal(0, 1, 8, 8, 3)
  other = stacks.normal(1, 1, 8, 8, 3)
  x = np.concatenate([x, x, x * (1 + 1e-3), 0 * x, other])
  want = np.asarray(usual(x))
  k = np.asarray(fused(x.astype(np.float32)), np.float64)
  np.testing.assert_allclose(k, want, rtol=0, atol=1e-5 * want.max())
  gap = lambda k: np.diag(k)[:, None] - k
  np.testing.assert_allclose(gap(k)[0, :3], gap(want)[0, :3],
                             atol=1e-6 * want.max())
  assert k[0, 1] == k[0, 0]  # Equal images, to the bit.


@needs_compiler
def test_float32_keeps_the_digits_of_unequal_images():
  """Norms of 1 and 1,000, zero among them, as without fused stages."""
  usual, fused = architectures.convnet(1), architectures.convnet(1, fused=True)
  x = stacks.normal(0, 5, 8, 8, 3)
  x *= np.array([1, 1e3, 0, 1e-3, 30])[:, None, None, None]
  want = np.asarray(usual(x))
  own = np.sqrt(np.outer(np.diag(want), np.diag(want)))
  error = np.abs(fused(x.astype(np.float32)) - want) / own
  assert error.max() < 2e-6  # Was 3.3e-5.


def test_images_of_other_sizes_take_the_usual_way():
  usual, fused = architectures.convnet(1), architectures.convnet(1, fused=True)
  x = stacks.normal(0, 2, 7, 7, 1)
  np.testing.assert_array_equal(fused(x), usual(x))


def test_plan_takes_the_stages_it_can():
  layers, _ = STACKS['two-one']
  assert stage.plan(layers, (32, 32)).starts == (0, 5, 8)
  assert stage.plan(layers, (28, 28)).starts == (0, 5, 8)
  assert stage.plan(layers, (16, 12)).starts == (0, 5)  # Then 8 x 6 is left.
  assert stage.plan(layers, (64, 64)).scales == ()
  circular = [kernels.Conv(3, padding='CIRCULAR'), *layers[1:]]
  assert stage.plan(circular, (32, 32)).scales == ()
  scales, = stage.plan(layers[2:], (8, 8)).scales[0]
  assert scales == pytest.approx((1.4**2 / 9, 0.01))


def test_names():
  assert kernels.by_name('convnet2_fused').name == 'convnet2'
  for name in ('fcn2_fused', 'myrtle5_nopool', 'convnet2_nopool_fused'):
    with pytest.raises(ValueError, match=f'got {name!r}'):
      kernels.by_name(name)


def test_without_a_compiler_one_error_names_it(monkeypatch):
  monkeypatch.setattr(build.shutil, 'which', lambda name: None)
  with pytest.raises(RuntimeError, match='`g..` is needed to compile cpu.cc'):
    build._library('cpu')


@needs_compiler
def test_a_program_that_does_not_compile_leaves_nothing(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(build, '_coefficients', lambda: '#error "broken"')
  with pytest.raises(RuntimeError, match='failed on cpu.cc'):
    build._library('cpu')
  assert not os.listdir(tmp_path / 'dsr')


@pytest.mark.slow
@pytest.mark.skipif(build.compiler('cuda') is None, reason='no nvcc')
def test_it_compiles_for_a_gpu(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setenv('DSR_CUDA_ARCH', 'sm_90')
  assert build._library('cuda').exists()
