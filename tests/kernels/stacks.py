"""One description of a network, three builders: ours, NT's, the oracle's.

A network is a list of (layer, arguments) pairs under our names, which is what
`tests.reference.covariance` takes.
"""
import jax
import jax.numpy as jnp
import numpy as np

from dsr import kernels
from dsr.kernels import network, stax


def dense(W_std=1.4, b_std=0.3, **kwargs):
  return 'Dense', {'W_std': W_std, 'b_std': b_std, **kwargs}


def conv(W_std=1.4, b_std=0.3, kernel_size=3, padding='SAME', **kwargs):
  return 'Conv', {'kernel_size': kernel_size, 'W_std': W_std, 'b_std': b_std,
                  'padding': padding, **kwargs}


def pool(window=2, name='AvgPool', **kwargs):
  return name, {'window': window, **kwargs}


avg_pool = pool


RELU, ERF, FLATTEN, GLOBAL = (
    (name, {}) for name in ('Relu', 'Erf', 'Flatten', 'GlobalAvgPool'))


def fcn(depth, *scales):
  return [FLATTEN, *[dense(*scales), RELU] * depth, dense(*scales)]


def convnet(depth, *scales, pooling=True):
  block = [conv(*scales), RELU] + ([avg_pool()] if pooling else [])
  return [*block * depth, FLATTEN, dense(*scales)]


def myrtle5(*scales):
  block = [conv(*scales), RELU]
  return [*block * 2, avg_pool(), *block, avg_pool(), *block, GLOBAL,
          dense(*scales)]


def ours(stack, get='ntk'):
  return network.serial(*_ours(stack), get=get)


def _ours(stack):
  """A branch of `parallel` is a stack of its own."""
  return [
      kernels.parallel(*map(_ours, kwargs)) if name == 'parallel' else
      getattr(kernels, name)(*kwargs) if isinstance(kwargs, tuple) else
      getattr(kernels, name)(**kwargs) for name, kwargs in stack]


def theirs(stack, get='ntk'):
  """The same network as a bridged kernel of neural-tangents."""
  nt = stax.load().stax
  shape = lambda size: (size,) * 2 if isinstance(size, int) else size

  def build(name, kwargs):
    if name == 'parallel':
      return nt.parallel(*(nt.serial(*_each(branch)) if branch
                           else nt.Identity() for branch in kwargs))
    if isinstance(kwargs, tuple):  # Theirs knows the shares by the widths.
      return getattr(nt, name)(*(() if name == 'FanInConcat' else kwargs))
    kwargs = dict(kwargs)
    if name == 'Gaussian':
      kwargs['b'] = -kwargs['b']  # exp(b x^2) there.
    if 'strides' in kwargs:
      kwargs['strides'] = shape(kwargs['strides'])
    if name == 'LayerNorm':
      kwargs['eps'] = 0.0
    if 'parameterisation' in kwargs:
      kwargs['parameterization'] = kwargs.pop('parameterisation')
    args = ((kwargs.pop('width', None) or 1,) if name in ('Dense', 'Conv')
            else ())
    if name == 'Conv':
      size = shape(kwargs.pop('kernel_size'))
      args += size,
      if len(size) == 1:
        kwargs['dimension_numbers'] = 'NHC', 'HIO', 'NHC'
    if 'window' in kwargs:
      window = shape(kwargs.pop('window'))
      args = window, kwargs.pop('strides', window)
    return getattr(nt, name)(*args, **kwargs)

  def _each(stack):
    return [build(*layer) for layer in stack]

  return stax.kernel(nt.serial(*_each(stack))[2], get=get)


def normal(seed, *shape, dtype='float64'):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def value_and_grads(f, weights, num_args=1):
  """x -> (f(*x), gradients of sum(weights * f(*x)) in every argument).

  Compiled without optimisation: for small arrays the compiler is what costs.
  """
  def loss(*x):
    value = f(*x)
    return jnp.sum(jnp.asarray(weights, value.dtype) * value), value

  def swapped(*x):
    grads, value = jax.grad(loss, tuple(range(num_args)), has_aux=True)(*x)
    return value, grads

  return jax.jit(
      swapped, compiler_options={'xla_backend_optimization_level': 0})
