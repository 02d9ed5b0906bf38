"""What users have of a network -> a function of trained leaves, rest, inputs.

Known are Flax Linen modules with their collections, Flax NNX modules, equinox
modules, and plain functions. None of these packages is imported here. Networks
run in evaluation mode. Axes: N examples.
"""
from collections.abc import Callable, Mapping
import inspect
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

# What tells a Linen module to evaluate, where its `__call__` takes it.
_EVALUATE = {'train': False, 'training': False, 'is_training': False,
             'deterministic': True, 'use_running_average': True}


class Network(NamedTuple):
  """A network, with what is differentiated apart from the rest.

  Attributes:
    forward: (leaves, rest, x (N, ...)) -> outputs, a pytree of (N, ...).
    leaves: floating arrays, the trained parameters.
    rest: all other arrays: statistics, integers, what is frozen.
  """

  forward: Callable
  leaves: list[Array]
  rest: list[Array]


def network(model: Any, params: PyTree = None, *,
            trainable: Callable | None = None, **options: Any) -> Network:
  """Takes a network apart.

  Args:
    model: one of
      a Linen module, or its `apply`: `params` are its variables, of which the
        collection 'params' is trained and others, such as 'batch_stats', stay
        as they are. Where `__call__` has an argument such as `train`,
        `deterministic` or `use_running_average`, it is told to evaluate;
      an NNX module: its `nnx.Param` are trained, a copy is set to `eval()`;
      an equinox module, which takes a single example: its floating arrays are
        trained, under `equinox.nn.inference_mode`;
      a function (params, x (N, ...)) -> outputs: floating arrays are trained.
    params: for Linen and for functions; for other modules None.
    trainable: path -> bool, for instance lambda path: 'Dense_1' in path; of
      what would be trained, what is. Paths are of `jax.tree_util.keystr`.
    **options: given to the module's `__call__` or the function.

  Raises:
    ValueError: no such network, `params` where none belong or none where they
      do, nothing to train.
  """
  tree, apply, is_param = _taken_apart(model, params, options)
  flat, structure = jax.tree_util.tree_flatten_with_path(tree)
  keep = [is_param(path) and _is_floating(leaf) and (
      trainable is None or trainable(jax.tree_util.keystr(path)))
          for path, leaf in flat]
  if not any(keep):
    raise ValueError('`params` must hold floating arrays to train, got none.')

  def forward(leaves, rest, x):
    leaves, rest = iter(leaves), iter(rest)
    merged = [next(leaves) if kept else next(rest) for kept in keep]
    return apply(structure.unflatten(merged), x)

  return Network(forward,
                 [jnp.asarray(a) for (_, a), kept in zip(flat, keep) if kept],
                 [a for (_, a), kept in zip(flat, keep) if not kept])


def _taken_apart(model, params, options):
  """(pytree of arrays, (pytree, x) -> outputs, path -> whether trained)."""
  if _is_a(getattr(model, '__self__', None), 'flax.linen'):
    model = model.__self__  # Its method `apply`.
  if _is_a(model, 'flax.linen'):
    return _linen(model, params, options)
  if _is_a(model, 'flax.nnx'):
    _refuse_params(params)
    return _nnx(model, options)
  if _is_a(model, 'equinox'):
    _refuse_params(params)
    return _equinox(model, options)
  if not callable(model):
    raise ValueError('`model` must be a Flax or equinox module or a function, '
                     f'got {type(model).__name__}.')
  if params is None:
    raise ValueError('`params` must be given with a function, got None.')
  return params, lambda p, x: model(p, x, **options), lambda path: True


def _is_a(model, package):
  module = sys.modules.get(package)
  return module is not None and isinstance(model, module.Module)


def _refuse_params(params):
  if params is not None:
    raise ValueError('`params` must be None, as the module holds its own.')


def _linen(module, variables, options):
  from flax import errors

  if not isinstance(variables, Mapping) or 'params' not in variables:
    raise ValueError("`params` must be the module's variables, with the "
                     "collection 'params', such as `module.init` returns.")
  takes = inspect.signature(type(module).__call__).parameters
  options = {**{k: v for k, v in _EVALUATE.items() if k in takes}, **options}

  def apply(variables, x):
    try:
      return module.apply(variables, x, **options)
    except errors.ModifyScopeVariableError as error:
      raise ValueError(
          '`model` must run in evaluation mode, but changes a collection: give '
          'the option that makes batch norm use its running averages.'
      ) from error

  return variables, apply, lambda path: path[0].key == 'params'


def _nnx(module, options):
  from flax import nnx

  graph, params, rest = nnx.split(module, nnx.Param, ...)

  def apply(tree, x):
    copy = nnx.merge(graph, *tree)
    copy.eval()
    return copy(x, **options)

  return (params, rest), apply, lambda path: path[0].idx == 0


def _equinox(module, options):
  import equinox

  arrays, static = equinox.partition(
      equinox.nn.inference_mode(module), equinox.is_array)

  def apply(arrays, x):
    one = equinox.combine(arrays, static)
    return jax.vmap(lambda x: one(x, **options))(x)

  return arrays, apply, lambda path: True


def _is_floating(leaf):
  dtype = getattr(leaf, 'dtype', None)
  if dtype is None:
    return isinstance(leaf, float)
  return jnp.issubdtype(dtype, jnp.floating)
