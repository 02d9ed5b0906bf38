"""Checkpoints of a run: any pytree of arrays, kept by orbax.

Leaves go to disk as NumPy arrays (typed keys as their bits) beside a JSON that
tells the place and type of each. Orbax writes to a temporary folder and renames
it, so a killed run leaves no half checkpoint. Over many processes, which all
see the folder, each writes and reads its rows of what is dealt out to them, the
first one the rest; another number of processes may go on.
"""
import contextlib
import dataclasses
import functools
import json
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks, hosts

_KEPT = 2  # Checkpoints on disk: the newest, and one to fall back on.


def config_fingerprint(config: Any, *, ignore: tuple[str, ...] = ()) -> str:
  """A dataclass as canonical JSON, less the fields in `ignore`.

  Leave out what may change between a run and its continuation, such as
  `('steps', 'workdir')`.

  Raises:
    ValueError: `config` is no dataclass, or lacks a field in `ignore`.
  """
  if not dataclasses.is_dataclass(config) or isinstance(config, type):
    raise ValueError(f'`config` must be a dataclass, got {config!r}.')
  fields = dataclasses.asdict(config)
  for name in ignore:
    checks.one_of('ignore', name, fields)
    del fields[name]
  return json.dumps(fields, sort_keys=True, default=str)


class OtherRun(ValueError):
  """A checkpoint that can be read, and is of another run."""


class Checkpoints:
  """The newest checkpoints (state, infos, extra) of one run under `workdir`.

  A context manager; `fingerprint` tells this run from others.
  """

  def __init__(self, workdir, fingerprint: str):
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._fingerprint = fingerprint

  def __enter__(self):
    import orbax.checkpoint as ocp

    self._ocp = ocp
    with _quiet():
      self._manager = ocp.CheckpointManager(
          self.folder, options=ocp.CheckpointManagerOptions(
              max_to_keep=_KEPT, enable_async_checkpointing=False))
    return self

  def __exit__(self, *exc):
    with _quiet():
      self._manager.close()

  @property
  def newest(self) -> int | None:
    """The step of the newest checkpoint; None if there is none."""
    return self._manager.latest_step()

  def check(self, **trees: Any) -> None:
    """Every leaf can be saved: a check before long work."""
    for name, leaf in _named_leaves(**trees):
      _to_host(name, leaf)

  def save(self, step: int, state, infos, extra, converged: bool) -> None:
    """Saves step `step`, and forgets later ones: they led to no finite loss."""
    rows, arrays = [], {}
    for name, leaf in _named_leaves(state=state, infos=infos, extra=extra):
      array = _to_host(name, leaf)
      if array.size:  # Orbax refuses empty arrays.
        arrays[f'{len(rows):05d}'] = array
      rows.append([name, _type(leaf), array.dtype.name, array.shape])
    meta = dict(fingerprint=self._fingerprint, converged=converged, leaves=rows)
    args = self._ocp.args
    with _quiet():
      for later in self._manager.all_steps():
        if later > step:
          self._manager.delete(later)
      if step not in self._manager.all_steps():
        self._manager.save(step, force=True, args=args.Composite(
            meta=args.JsonSave(meta), arrays=args.StandardSave(arrays)))

  def restore(self, avals, state, infos, extra):
    """(step, state, infos, extra, converged) of the newest sound checkpoint.

    One that cannot be read is left out with a warning, and deleted.
    `avals` are the types that `state` must have; `infos` and `extra` give the
    structure alone.

    Raises:
      ValueError: the checkpoint is of another run, or of other arrays; or none
        can be read.
    """
    while (step := self.newest) is not None:
      try:
        return step, *self._restore(step, avals, state, infos, extra)
      except OtherRun:
        raise
      except Exception as error:  # of orbax, of the disk, of JSON.
        logging.warning('The checkpoint of step %d in %s is damaged (%s).',
                        step, self.folder, str(error).partition('\n')[0])
        with _quiet():
          self._manager.delete(step)
    raise ValueError(
        f'`workdir` must have a checkpoint that can be read, or none: all in '
        f'{self.folder} were damaged and are deleted. The next run starts from '
        'step 0.')

  def _restore(self, step, avals, state, infos, extra):
    args = self._ocp.args
    with _quiet():
      meta = self._manager.restore(
          step, args=args.Composite(meta=args.JsonRestore())).meta
    self._check_fingerprint(meta['fingerprint'])
    rows = meta['leaves']
    self._check_leaves(rows, avals, infos, extra)
    like = dict(_named_leaves(state=state, infos=infos, extra=extra))
    arrays = {f'{i:05d}': _room(shape, dtype, like[name])
              for i, (name, _, dtype, shape) in enumerate(rows)}
    filled = {i: a for i, a in arrays.items() if a.size}
    with _quiet():
      arrays |= self._manager.restore(step, args=args.Composite(
          arrays=args.StandardRestore(filled))).arrays
    logging.info('Resuming from step %d in %s.', step, self.folder)
    by_name = dict(zip((row[0] for row in rows), arrays.values(), strict=True))
    leaves = [_from_host(by_name[name], leaf) for name, leaf in like.items()]
    treedef = jax.tree.structure((state, infos, extra))
    return *jax.tree.unflatten(treedef, leaves), meta['converged']

  def _check_fingerprint(self, saved: str) -> None:
    if saved == self._fingerprint:
      return
    try:
      old, new = json.loads(saved), json.loads(self._fingerprint)
      differ = '; '.join(
          f'`{k}` was {old.get(k)!r}, is {new.get(k)!r}'
          for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
    except (AttributeError, json.JSONDecodeError):  # Not JSON objects.
      differ = f'was {saved!r}, is {self._fingerprint!r}'
    raise OtherRun(
        f'`fingerprint` must match the checkpoint in {self.folder}: {differ}. '
        'Choose another `workdir`, or delete that folder.')

  def _check_leaves(self, rows, state, infos, extra) -> None:
    saved = {name: kind for name, kind, *_ in rows}
    given = dict(_named_leaves(state=state, infos=infos, extra=extra))
    if odd := saved.keys() ^ given.keys():
      raise OtherRun(
          f'`state`, infos and `extra` must be as in the checkpoint in '
          f'{self.folder}; one of the two lacks {", ".join(sorted(odd))}.')
    for name, aval in _named_leaves(state=state):
      if _type(aval) != saved[name]:
        raise OtherRun(f'`{name}` must be {saved[name]} as in the checkpoint '
                         f'in {self.folder}, got {_type(aval)}.')


def _named_leaves(**trees) -> list[tuple[str, Any]]:
  """(place, leaf) of every leaf; a place reads like `state.opt_state[0].mu`."""
  return [(room + jax.tree_util.keystr(path), leaf)
          for room, tree in trees.items()
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _is_key(leaf) -> bool:
  return (hasattr(leaf, 'dtype')
          and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _type(leaf) -> str:
  """For example `float32[10, 784]` or `key<fry>[]`."""
  leaf = leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
  return f'{leaf.dtype}{list(leaf.shape)}'


def _is_dealt(leaf) -> bool:
  """Whether other processes have a part of it that this one lacks."""
  return hosts.is_global(leaf) and not leaf.is_fully_replicated


def _room(shape, dtype, like):
  """What orbax fills: an array of this process, or its part of one."""
  if _is_dealt(like):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=like.sharding)
  return np.zeros(shape, dtype)


def _to_host(name: str, leaf) -> np.ndarray | jax.Array:
  if _is_dealt(leaf):
    return leaf
  leaf = hosts.own(leaf)
  array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
  if array.dtype.kind in 'OSU':
    raise ValueError(f'`{name}` must be a number or an array, got {leaf!r}.')
  return array


def _from_host(array: np.ndarray, like):
  """`array` as what `like` is: typed key, device array, NumPy array, number."""
  if _is_dealt(like):
    return array
  if _is_key(like):
    wrap = functools.partial(
        jax.random.wrap_key_data, impl=jax.random.key_impl(like))
    if hosts.is_global(like):
      return jax.jit(wrap, out_shardings=like.sharding)(array)
    return wrap(jnp.asarray(array))
  if isinstance(like, jax.Array):
    if len(like.sharding.device_set) > 1:
      return jax.device_put(array, like.sharding)
    return jnp.asarray(array)
  return array.item() if isinstance(like, (bool, int, float)) else array


@contextlib.contextmanager
def _quiet():
  """Orbax reports each of its stages through absl; we want its warnings."""
  old = logging.get_verbosity()
  logging.set_verbosity(min(old, logging.WARNING))
  try:
    yield
  finally:
    logging.set_verbosity(old)
