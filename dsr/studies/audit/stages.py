"""The parts of an audit in the order in which they are done."""
from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

from dsr.runs.plan import Job
from dsr.studies.audit import (
  claims,
  fairness,
  fit,
  half_sets,
  leakage,
  lira,
  membership,
  robustness,
)
from dsr.studies.distillation import distill

DP = 'dp'  # The name of all images under DP-SGD.


@dataclasses.dataclass(frozen=True)
class Subject:
  """A set, and where it is.

  Attributes:
    name: of its folder.
    title: in tables.
    method: of `experiments.distill`, 'all', 'dp', or 'own'.
    size: images per class; 0 for 'all', 'dp' and 'own'.
    init: 'real' or 'noise'.
    where: for the flag `set` of the stages.
  """

  name: str
  title: str
  method: str
  size: int
  init: str
  where: str


@dataclasses.dataclass(frozen=True)
class Plan:
  """All parts of an audit, in the order in which they are done.

  Attributes:
    subjects: by name, the reference `all` first.
    sets: subject -> run that makes it.
    fits: (subject, model) -> training.
    membership: (subject, model or 'set') -> attacks.
    robustness: (subject, model) -> attacks.
    fairness: (subject, model) -> comparison with `all`.
    lira: shadow attacks, by method.
    leakage: the reconstruction, or None.
    claims: what is held against arXiv:2305.03355; None where parts are missing.
    leak_jobs: of the reconstruction.
  """

  subjects: dict[str, Subject]
  sets: dict[str, distill.Config]
  fits: dict[tuple[str, str], fit.Config]
  membership: dict[tuple[str, str], membership.Config]
  robustness: dict[tuple[str, str], robustness.Config]
  fairness: dict[tuple[str, str], fairness.Config]
  lira: dict[str, lira.Config]
  leakage: leakage.Config | None
  claims: claims.Config | None
  leak_jobs: tuple[Job, ...] = ()

  def stages(self) -> Iterator[tuple[str, Any, Callable, list[str]]]:
    """(name, run, its function, what it reads) of everything, in order."""
    yield from self._of_sets()
    for method, job in self.lira.items():
      todo = half_sets.jobs_of(job)
      for part in todo:
        yield f'shadows: {part.name}', part.config, part.run, []
      yield f'lira: {method}', job, lira.run, [
          part.config.workdir for part in todo]
    if self.leakage is not None:
      for part in self.leak_jobs:
        yield (f'leakage: {part.name}', part.config, part.run,
               list(part.reads))
      yield 'leakage', self.leakage, leakage.run, [
          part.config.workdir for part in self.leak_jobs]
    if self.claims is not None:
      yield 'claims', self.claims, claims.run, [
          job.workdir for stage in (self.sets, self.membership, self.fairness)
          for job in stage.values()]

  def _of_sets(self):
    for stage, module in (
        ('sets', distill), ('fits', fit), ('membership', membership),
        ('robustness', robustness), ('fairness', fairness)):
      for name, job in getattr(self, stage).items():
        label = name if isinstance(name, str) else '/'.join(name)
        read = [getattr(job, field, '') for field in (
            'set', 'fit', 'reference', 'membership', 'robustness', 'groups',
            'train_groups')]
        yield f'{stage}: {label}', job, module.run, list(filter(None, read))

  def without(self, missing: Callable[[Any], bool]) -> 'Plan | None':
    """What a page can tell of: sets all of whose parts are there.

    Args:
      missing: whether the run of a config is missing.

    Returns:
      None without the reference, or without any set.
    """
    lost = {key if isinstance(key, str) else key[0] for stage in (
        self.sets, self.fits, self.membership, self.robustness, self.fairness)
            for key, job in stage.items() if missing(job)}
    left = {name: s for name, s in self.subjects.items() if name not in lost}
    if 'all' in lost or all(s.method in ('all', DP) for s in left.values()):
      return None
    of = lambda stage: {key: job for key, job in stage.items() if (
        key if isinstance(key, str) else key[0]) in left}
    gone = lambda job: job is None or missing(job)
    return Plan(
        left, of(self.sets), of(self.fits), of(self.membership),
        of(self.robustness), of(self.fairness),
        {name: job for name, job in self.lira.items() if not missing(job)},
        *(None if gone(job) else job for job in (self.leakage, self.claims)),
        self.leak_jobs)
