"""`first_layer` on releases as they are made: decayed, pruned, rounded, tuned.

First the release is freed of what its owner did to it (`restore`), as far as
the first layer tells. Where the search then finds fewer images than there are,
it goes on from the start with the half of the units that is active most often
(`units`), as a network needs that was trained before; the search that found
more images counts.
"""
from collections.abc import Callable
import pathlib

import jax
from jaxtyping import Array, Key

from dsr.attack import first_layer, restore, units
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction
from dsr.types import Status


def reconstruct(
    key: Key[Array, ''], released: Released,
    config: first_layer.Config = first_layer.DEFAULT, *, workdir=None,
    progress: bool = True, on_chunk: Callable | None = None) -> Reconstruction:
  """Rebuilds the training inputs; arguments and result as of `first_layer`.

  `info` also has `restored`, whether the release was changed, and `part`,
  whether the images are those of the half of the units.

  Raises:
    ValueError: see `first_layer.reconstruct`.
  """
  cleaned = restore.restored(released)
  found = first_layer.reconstruct(
      key, cleaned, config, workdir=workdir, progress=progress,
      on_chunk=on_chunk)
  part = False
  if (len(found.candidates) < found.info['rank']
      and found.status != Status.INTERRUPTED and _halves(cleaned)):
    again = first_layer.reconstruct(
        key, units.most_active(jax.random.fold_in(key, 1), cleaned), config,
        workdir=None if workdir is None else pathlib.Path(workdir) / 'part',
        progress=progress, on_chunk=on_chunk)
    if (part := len(again.candidates) > len(found.candidates)):
      found = again
    elif again.status == Status.INTERRUPTED:
      found = found._replace(status=again.status)
  return found._replace(info=found.info | {
      'restored': cleaned is not released, 'part': part})


def _halves(released) -> bool:
  """Whether half of the units are more than the images."""
  return released.module.widths[0] // 2 > released.num_train
