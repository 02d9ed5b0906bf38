"""A network's jaxpr, read and run: what `empirical` must know of a network.

A graph here is the closed jaxpr of (leaves of the parameters, other arrays: the
rest of the network and one example) -> outputs (1, C).
"""
from collections import Counter
import math

import jax
import jax.core
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxprs_in_params
from jaxtyping import Array


def dense_leaves(
    graph: ClosedJaxpr, leaves: list[Array], others: list[Array]
) -> tuple[int, ...]:
  """Indices of the weights that the network uses once, on one vector."""
  found = {}
  def record(leaves, others):
    _, rows, uses = evaluate(graph, leaves, others, {})
    found.update({i: uses[i] for i in rows})
    return ()
  jax.eval_shape(record, leaves, others)
  return tuple(i for i, uses in found.items() if uses == 1)


def evaluate(
    graph: ClosedJaxpr, leaves: list[Array], others: list[Array],
    taps: dict[int, Array]):
  """Runs the network, adding `taps[i]` to the product with leaf i.

  Returns:
    Outputs (1, C); {i: the vector (I,) that leaf i (I, O) multiplied}; and a
    Counter of how often each leaf was read.
  """
  rows, uses = {}, Counter()

  def run(jaxpr: Jaxpr, consts, args, tags):
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
    leaf_of = dict(zip(jaxpr.invars, tags))
    value = lambda v: v.val if isinstance(v, Literal) else env[v]
    tag = lambda v: None if isinstance(v, Literal) else leaf_of.get(v)
    for eqn in jaxpr.eqns:
      values = [value(v) for v in eqn.invars]
      tags = [tag(v) for v in eqn.invars]
      if eqn.primitive.name in ('jit', 'pjit'):
        inner = eqn.params['jaxpr']
        outs = run(inner.jaxpr, inner.consts, values, tags)
      else:
        uses.update(tags)
        outs = _run_equation(eqn, values)
        if _is_vector_by_matrix(eqn) and tags[1] is not None:
          rows[tags[1]] = values[0].reshape(-1)
          if tags[1] in taps:
            outs = [outs[0] + taps[tags[1]].reshape(outs[0].shape)]
      env.update(zip(eqn.outvars, outs))
    uses.update(tag(v) for v in jaxpr.outvars)
    return [value(v) for v in jaxpr.outvars]

  tags = (*range(len(leaves)), *(None for _ in others))
  out, = run(graph.jaxpr, graph.consts, (*leaves, *others), tags)
  return out, rows, uses


def _run_equation(eqn, values):
  """One equation, as a graph of its own: `eval_jaxpr` is jax's public way."""
  known = {v: a for v, a in zip(eqn.invars, values)
           if not isinstance(v, Literal)}
  alone = Jaxpr((), list(known), eqn.outvars, [eqn])
  return jax.core.eval_jaxpr(alone, (), *known.values())


def _is_vector_by_matrix(eqn) -> bool:
  if eqn.primitive.name != 'dot_general':
    return False
  lhs, rhs = (v.aval for v in eqn.invars)
  contracted, batch = eqn.params['dimension_numbers']
  return (rhs.ndim == 2 and lhs.size == rhs.shape[0] and batch == ((), ())
          and contracted == ((lhs.ndim - 1,), (0,)))


def cost(jaxpr: Jaxpr) -> tuple[int, int]:
  """(operations, floats written): products counted, the rest one a float."""
  flops = written = 0
  for eqn in jaxpr.eqns:
    size = sum(math.prod(v.aval.shape) for v in eqn.outvars)
    inner = [cost(j) for j in jaxprs_in_params(eqn.params)]
    times = eqn.params.get('length', 1)  # Of a `scan`.
    if inner:
      flops += times * sum(f for f, _ in inner)
      written += times * sum(w for _, w in inner)
      continue
    written += size
    if eqn.primitive.name == 'dot_general':
      (axes, _), _ = eqn.params['dimension_numbers']
      size *= 2 * math.prod(eqn.invars[0].aval.shape[a] for a in axes)
    elif eqn.primitive.name == 'conv_general_dilated':
      kernel = eqn.invars[1].aval.shape
      out_axis = eqn.params['dimension_numbers'].rhs_spec[0]
      size *= 2 * math.prod(kernel) // kernel[out_axis]
    flops += size
  return flops, written
