"""The audit: is a distilled set good, private, robust and fair?

The command is `experiments.audit`; its docstring has an example, and what
it writes.
"""
import dataclasses
import time
from typing import Any, Literal

from absl import logging

from dsr.probes.corruptions import CORRUPTIONS
from dsr.runs import compiled, contents, parts, progress, records, screen
from dsr.runs.plan import Job
from dsr.studies.audit import (
  cells,
  changes,
  plan as audit_plan,
  report as audit_report,
  robustness,
  timing,
)
from dsr.studies.audit.results import Results
from dsr.studies.distillation import distill


@dataclasses.dataclass(frozen=True)
class Config:
  """Audits distilled sets and coresets of a dataset."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  # Those listed at the end of --help, with commas between them; '' with
  # `distilled` alone.
  methods: str = 'random,kcenter,mfc,dm,kip,rkip'
  images_per_class: str = '10'  # Sizes of the sets, with commas between them.
  inits: str = 'real,noise'  # What dm, kip and rkip start from.
  noise_sizes: str = ''  # Of sets from noise; '': images_per_class.
  # Sets of your own, with commas between their paths: an .npz with the arrays
  # images and labels, a .pt of both (or images.pt beside labels.pt), a folder
  # of pictures by class.
  distilled: str = ''
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  validation: float = 0.1  # Share of the training set, at most 5000 examples.
  kernel: str = 'fcn1'  # Of the distillation and of ridge regression.
  networks: str = 'mlp'  # Trained on each set: mlp, convnet3, lenet, ...
  num_networks: int = 3  # Random starts of each.
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs; dsa: SGD, 1000 epochs of augmented images; idc: that, by 64 at once.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'condensation'
  network_epochs: int = 300  # Passes over the smallest set; as many steps else.
  network_learning_rate: float | None = None  # Unset: the protocol's.
  network_batch_size: int | None = None  # Unset: the protocol's.
  full_epochs: int = 30  # Passes over all training images.
  # Flags of experiments.distill for all methods or for one, with commas between
  # them, e.g. steps=300,dm.batch_size=64,mfc.time_limit=5.
  options: str = 'dm.steps=200,kip.steps=400,rkip.steps=400'
  num_probed: int = 2000  # Members, and as many others, if there are so many.
  # Membership attacks that are trained: logistic, mlp; '' for none.
  learned: str = 'logistic,mlp'
  dp_epsilon: float = 8.0  # Of the DP-SGD reference; 0 for none.
  lira_shadows: int = 32  # Of the likelihood-ratio attack; 0 for none.
  lira_train: int = 0  # Training images of that attack; 0: as max_train.
  # Whose shadows it trains, beside kernel regression, with commas; unset: those
  # of networks.
  lira_networks: str | None = None
  num_attacked: int = 100  # Test images for adversarial examples.
  # Those listed at the end of --help, with commas between them; '' for none.
  attacks: str = 'fgsm,pgd_linf,pgd_l2,apgd_ce,apgd_dlr,square'
  attack_steps: int = 20  # Of pgd and apgd.
  curve: str = 'pgd_linf'  # The attack at several radii; '' for none.
  # Kinds, as in experiments.robustness; '' for none.
  corruptions: str = ','.join(CORRUPTIONS)
  # A .npy, (N_test,): groups of test images, beside classes; (N_test, 2) are
  # two attributes, which are crossed.
  groups: str = ''
  train_groups: str = ''  # The same of training images, for membership.
  leak_train: int = 50  # Training images of the reconstruction; 0 for none.
  # Sets whose networks are attacked for it, see experiments.leakage.
  leak_methods: str = 'all,random,kip,kip_corrupted,rkip,mfc'
  leak_regimes: str = 'infinite,linearized'  # Of these networks.
  seed: int = 0  # Of all that is drawn.
  # Workdirs of two finished audits, with a comma between them: tells what
  # changed from the first to the second, and audits nothing.
  compare: str = ''
  fresh: bool = False  # Whether to repeat the parts that are finished.
  workdir: str = 'out/audit'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all methods, networks and attacks."""
    return f'{distill.Config.describe()}\n{robustness.describe()}'


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record.

  Raises:
    Incomplete: some parts have failed; the page names them.
  """
  if config.compare:
    return changes.run(config)
  began = time.monotonic()
  logging.info('audit of %s: results go to %s', config.dataset, config.workdir)
  plan = audit_plan.make(config)
  todo = _jobs(plan)
  told = progress.Progress(
      'audit', [(job.kind, job.name) for job in todo], timing.SECONDS)
  with compiled.once(), screen.quiet():  # The page tells of them all.
    made = parts.make(todo, fresh=config.fresh, told=told)
  plan = plan.without(lambda job: made.record(job) is None)
  if plan is None:
    made.end()
  logging.info('audit: the report')
  results = Results(config, plan, made.note)
  metrics = audit_report.metrics(results)
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics,
      wall_time=time.monotonic() - began,
      extra={'parts': {job.name: job.config.workdir for job in todo},
             'missing': made.missing})
  found = cells.collect(results)
  cells.save(results, found)
  page = audit_report.build(results, found)
  paths = audit_report.write(results, page)
  screen.show(audit_report.summary(page))
  screen.show(*filter(None, [made.note]), *(f'  {path}' for path in paths))
  made.end()
  return metrics


def jobs_of(config: Config) -> list[Job]:
  """All parts; raises a ValueError as `plan.make`."""
  return _jobs(audit_plan.make(config))


def _jobs(plan) -> list[Job]:
  return [Job(name, run, job, tuple(read), timing.kind(name, job))
          for name, job, run, read in plan.stages()]
