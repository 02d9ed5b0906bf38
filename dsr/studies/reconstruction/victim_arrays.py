"""Victims as arrays for an `.npz`, and back."""
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dsr import train
from dsr.types import Status

_TREES = ('theta_0', 'theta_T')


def to_arrays(victim: train.Victim, task: Any) -> dict[str, np.ndarray]:
  """All of `victim`, and its training images, as named arrays.

  A leaf of theta_T is called as in theta_T__hidden_0__kernel; checkpoint i,
  as in checkpoint_i__hidden_0__kernel.
  """
  arrays = {
      'rows': task.rows, 'pixels': task.train.x, 'labels': task.train.y,
      'inputs': task.examples.x, 'targets': task.examples.y,
      'low': task.low, 'high': task.high, 'curve': victim.curve,
      'linearised': np.asarray(victim.linearised),
      'status': np.asarray(int(victim.status)),
      'checkpoint_steps': np.asarray(
          [c.step for c in victim.checkpoints], np.int32),
      'checkpoint_losses': np.asarray(
          [c.loss for c in victim.checkpoints], float),
  }
  if victim.duals is not None:
    arrays['duals'] = victim.duals
  if victim.learning_rate is not None:
    arrays['learning_rate'] = np.asarray(victim.learning_rate)
  trees = {name: getattr(victim, name) for name in _TREES}
  trees |= {f'checkpoint_{i}': checkpoint.params
            for i, checkpoint in enumerate(victim.checkpoints)}
  for name, tree in trees.items():
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      arrays['__'.join([name, *(entry.key for entry in path)])] = leaf
  return arrays


def from_arrays(module: nn.Module, arrays: dict[str, Any]) -> train.Victim:
  """What `to_arrays` wrote, of a network `module`."""
  trees = {}
  for name, array in arrays.items():
    if '__' in name:
      *path, last = name.split('__')
      node = trees
      for key in path:
        node = node.setdefault(key, {})
      node[last] = jnp.asarray(array)
  rate = arrays.get('learning_rate')
  steps, losses = arrays['checkpoint_steps'], arrays['checkpoint_losses']
  duals = arrays.get('duals')
  return train.Victim(
      module=module,
      theta_0=trees['theta_0'], theta_T=trees['theta_T'],
      linearised=bool(arrays['linearised']),
      duals=None if duals is None else jnp.asarray(duals),
      curve=arrays['curve'],
      checkpoints=tuple(
          train.Checkpoint(int(step), float(loss), trees[f'checkpoint_{i}'])
          for i, (step, loss) in enumerate(zip(steps, losses))),
      learning_rate=None if rate is None else float(rate),
      status=Status(int(arrays['status'])))
