"""The switch between programs for CPUs and for accelerators."""
import pathlib

import jax
import jax.numpy as jnp
import pytest

from dsr import loop, numerics

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_one_place_asks_for_the_backend():
  """Besides the fused stage, whose library is that of the true device."""
  asking = [str(p.relative_to(ROOT)) for p in (ROOT / 'dsr').rglob('*.py')
            if 'default_backend' in p.read_text()]
  assert sorted(asking) == ['dsr/kernels/fused/stage.py', 'dsr/numerics.py']


def test_compiled_programs_are_those_of_the_switch():
  traced = []

  @jax.jit
  def program(x):
    traced.append(numerics.on_cpu())
    return jax.lax.map(lambda a: a if numerics.on_cpu() else -a, x)

  x = jnp.ones(2)
  assert program(x).sum() == 2
  with numerics.pretend_accelerator():
    assert program(x).sum() == -2
    assert not numerics.on_cpu()
  assert program(x).sum() == 2
  assert traced == [True, False]


def test_exact_reaches_products_without_precision():
  product = lambda a, b: jnp.vdot(a @ b, b)
  square = jnp.eye(2)
  for fn in (product, jax.grad(product)):
    assert 'HIGHEST' not in str(jax.make_jaxpr(fn)(square, square))
  exact = numerics.exact(product)
  for fn in (exact, jax.grad(exact)):
    assert 'DEFAULT' not in (text := str(jax.make_jaxpr(fn)(square, square)))
    assert 'precision=None' not in text
    assert 'HIGHEST' in text


def _step(state, data):
  return state + jnp.sum(data[None] * state[:, None]), None


@pytest.mark.parametrize(
    ('num', 'length', 'memory', 'want'),
    [(10, 8, None, 10), (1000, 8, None, 125), (10, 1024, 2**18, 5),
     (3, 1024, 1, 1)])
def test_parallel_jobs_fit_the_memory(monkeypatch, num, length, memory, want):
  state = jax.ShapeDtypeStruct((length,), jnp.float32)
  data = jax.ShapeDtypeStruct((8,), jnp.float32)
  args = num, _step, state, data
  assert loop.pick_parallel(None, *args) == 1
  if memory:
    monkeypatch.setattr(numerics, 'working_memory', lambda: memory)
  with numerics.pretend_accelerator():
    assert loop.pick_parallel(None, *args) == want
    assert loop.pick_parallel(2, *args) == 2
