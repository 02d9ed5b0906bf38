"""The jobs of `experiments.leakage`: images, sets made of them, attacks."""
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

from dsr.runs.plan import Job
from dsr.studies.audit import attack_set, leak_data, own_leak, subjects
from dsr.studies.distillation import distill, evaluation, names
from dsr.studies.reconstruction import attacks as attacks_lib
from dsr.types import Dataset

# Of each kind of job, with the embedded digits on two cores: see
# `dsr.runs.progress`.
SECONDS = {'images': 0.2, 'set of random': 1, 'set of mfc': 2, 'set of kip': 8,
           'set of rkip': 8, 'infinite': 12, 'linearized': 4, 'standard': 6}


class Attack(NamedTuple):
  """An attack, and what it reads.

  Attributes:
    job: of the attack.
    label: before its metrics: the method, or 'own_<name>' of one's own set.
    title: in tables.
    images: the training images, and one's own set.
    made: how the set is made of them; None of all of T, and of one's own.
  """

  job: attack_set.Config
  label: str
  title: str
  images: leak_data.Config
  made: distill.Config | None = None

  def jobs(self) -> list[Job]:
    """The attack, behind what it reads."""
    steps = [(f'images: {self.title if self.images.set else "T"}',
              leak_data.run, self.images),
             (f'set: {self.title}', distill.run, self.made),
             (f'{self.title}, {self.job.regime}', attack_set.run, self.job)]
    found, read = [], ()
    for name, run, config in steps:
      if config is not None:
        found.append(Job(name, run, config, read, kind(config)))
        read += (config.workdir,)
    return found


def kind(config: Any) -> str:
  """Of the job of `config`, as in `SECONDS`."""
  if isinstance(config, attack_set.Config):
    return config.regime
  return (f'set of {config.method}' if isinstance(config, distill.Config)
          else 'images')


def jobs(attacks: Sequence[Attack]) -> list[Job]:
  """Of all of them, each once."""
  return list({job.config.workdir: job for attack in attacks
               for job in attack.jobs()}.values())


def attacks(config: Any, train: Dataset,
            own: Sequence[tuple[str, subjects.Shown]]) -> list[Attack]:
  """Of every set in every regime, but those that are too large for it.

  Args:
    config: an `experiments.leakage.Config`.
    train: T.
    own: (path, set) of each of one's own.
  """
  regimes, found = evaluation.names(config.regimes), []
  images = _images(config, '', 'T')
  path = str(pathlib.Path(images.workdir, leak_data.TRAIN))
  for method in evaluation.names(config.methods):
    made, where = None, ''
    if method != 'all':
      made = distill_job(config, method, path)
      where = str(pathlib.Path(made.workdir, 'distilled.npz'))
    found += [Attack(dataclasses.replace(
        attack_job(config, method, regime, path, where),
        num_train=size(config, method, train)), method, method, images, made)
              for regime in regimes]
  folders = names.folders([path for path, _ in own])
  for path, shown in own:
    name, num = f'own/{folders[path]}', len(shown.labels)
    images = _images(config, path, f'{name}/images')
    files = [str(pathlib.Path(images.workdir, file))
             for file in (leak_data.TRAIN, leak_data.SET)]
    out = own_leak.too_large(config, num, shown.pixels[0])
    found += [Attack(dataclasses.replace(
        attack_job(config, name, regime, *files), num_train=num),
                     name.replace('/', '_'), names.title(path), images)
              for regime in regimes if regime not in out]
  return found


def size(config: Any, method: str, train: Dataset) -> int:
  """Images of the set of a method, or of T."""
  return (config.num_train if method == 'all' else
          config.images_per_class * train.num_classes)


def distill_job(config: Any, method: str, dataset: str) -> distill.Config:
  """How the set of `method` is made of the images in the file `dataset`."""
  corrupted = method == 'kip_corrupted'
  return distill.resolve(distill.Config(
      dataset=dataset, method='kip' if corrupted else method,
      corruption=config.corruption if corrupted else 0.0, init=config.init,
      images_per_class=config.images_per_class, kernel=config.kernel,
      transform='mean', validation=0.0, keep='last', networks='',
      steps=config.distill_steps, learning_rate=config.distill_learning_rate,
      seed=config.seed, workdir=str(pathlib.Path(config.workdir, method))))


def attack_job(config: Any, method: str, regime: str, dataset: str,
               images: str) -> attack_set.Config:
  """The victim of a set and the attack on it; `num_train` is that of T."""
  own = ({'kernel': config.kernel, 'steps': config.attack_steps}
         if regime == 'infinite' else {'width': config.width})
  return attacks_lib.resolve(attack_set.Config(
      dataset=dataset, num_train=config.num_train, regime=regime,
      images=images, seed=config.seed, attack_seed=config.attack_seed,
      workdir=str(pathlib.Path(config.workdir, method, regime)), **own))


def _images(config, path, folder) -> leak_data.Config:
  return leak_data.Config(
      dataset=config.dataset, data_dir=config.data_dir, set=path,
      num_train=0 if path else config.num_train, seed=config.seed,
      workdir=str(pathlib.Path(config.workdir, folder)))
