r"""The demo: digits distilled to 1 and 10 images a class, in about a minute.

  make demo

or `python -m experiments.demo --workdir=out/demo`. Compares a random subset,
KIP and RKIP by what they teach: the test accuracy of kernel ridge regression
and of finite networks. The table goes to stdout and to `table.md`, the images
to `images.png`, and each run leaves its own folder. Runs that are finished are
not repeated, so a demo that was stopped goes on; `--fresh` starts over.
"""
from collections.abc import Callable
import dataclasses
import pathlib
import shutil
import time
from typing import Any

from absl import logging

from dsr import checks
from dsr.report import figures, records, tables
from dsr.types import Status
from experiments import distill, krr, launch

_NAMES = {'random': 'random subset', 'kip': 'KIP', 'rkip': 'RKIP',
          'label_solve': 'Label Solve'}
_COLUMNS = (
    tables.Column('method'),
    tables.Column('images_per_class'),
    tables.Column('krr_accuracy', title='KRR accuracy', percent=True),
    tables.Column('network_accuracy', percent=True),
    tables.Column('wall_time', title='seconds', digits=1),
)


@dataclasses.dataclass(frozen=True)
class Config:
  """Distils small images by several methods and compares the results."""

  dataset: str = 'digits'  # A known name, a task, name[classes] or an .npz.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  methods: str = 'random,kip,rkip'  # Each a --method of experiments.distill.
  images_per_class: str = '1,10'  # Sizes of the distilled sets.
  kernel: str = 'fcn1'  # Of the distillation and of the ridge regression.
  steps: int = 400  # Of each distillation.
  learning_rate: float = 0.01  # Of each distillation.
  networks: str = 'mlp'  # Trained on each result; also convnet3.
  num_networks: int = 5  # Random starts of each.
  network_epochs: int = 300  # Of Adam on each distilled set.
  network_learning_rate: float = 1e-3  # Of that Adam, for all methods alike.
  seed: int = 0
  fresh: bool = False  # Whether to repeat the runs that are finished.
  workdir: str = 'out/demo'  # Where the results go.


@dataclasses.dataclass
class Report:
  """What the stages add to: table rows, pictures and metrics of the record."""

  rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  pictures: list[pathlib.Path] = dataclasses.field(default_factory=list)
  metrics: dict[str, Any] = dataclasses.field(default_factory=dict)

  def add(self, name: str, row: dict[str, Any]) -> None:
    """Adds a table row, and its metrics under `<name>_<metric>`."""
    self.rows.append(row)
    self.metrics |= {f'{name}_{metric}': value
                     for metric, value in row['metrics'].items()}


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  _check(config)
  report = Report()
  for stage in STAGES:
    stage(config, report)
  folder = pathlib.Path(config.workdir)
  records.write(folder, config=config, metrics=report.metrics,
                wall_time=time.monotonic() - began,
                extra={'pictures': list(map(str, report.pictures))})
  table = tables.write(folder / 'table.md', report.rows, _COLUMNS)
  title = f'{config.dataset}: test accuracy [95 % interval]'
  print(tables.render(report.rows, _COLUMNS, title=title))
  print('\nKRR: kernel ridge regression; network: '
        f'{_first(config.networks) or "none"}, {config.num_networks} starts.')
  print('\n'.join(f'  {path}' for path in (table, *report.pictures)))
  return report.metrics


def _check(config: Config) -> None:
  """What can be seen to be wrong before the first run."""
  methods, sizes = _split(config.methods), _split(config.images_per_class)
  for method in methods:
    checks.one_of('methods', method, _NAMES)
  if not methods:
    raise ValueError('`methods` must name one or more, got none.')
  if not sizes or not all(size.isdigit() and int(size) for size in sizes):
    raise ValueError('`images_per_class` must be positive integers with commas '
                     f'between them, got {config.images_per_class!r}.')
  for method in methods:
    distill.check(_job(config, method, int(sizes[0])))


def _split(flag: str) -> list[str]:
  return [part.strip() for part in flag.split(',') if part.strip()]


def _first(flag: str) -> str:
  return next(iter(_split(flag)), '')


def reference(config: Config, report: Report) -> None:
  """Stage: kernel ridge regression on all training images."""
  job = krr.Config(
      dataset=config.dataset, data_dir=config.data_dir, kernel=config.kernel,
      ridge=distill.Config.ridge, seed=config.seed,
      workdir=_folder(config, 'all'))
  record = _finished(config, krr.run, job)
  report.add('all', record | {'method': 'all images',
                              'images_per_class': 'all'})


def distilled_sets(config: Config, report: Report) -> None:
  """Stage: every method at every size."""
  for size in map(int, _split(config.images_per_class)):
    for method in _split(config.methods):
      name = f'{method}_{size}'
      record = _finished(config, distill.run, _job(config, method, size))
      report.add(name, record | {'method': _NAMES[method],
                                 'images_per_class': size})


def pictures(config: Config, report: Report) -> None:
  """Stage: the largest sets of all methods, side by side."""
  size = max(map(int, _split(config.images_per_class)))
  grids, classes = {}, ()
  for method in _split(config.methods):
    arrays = records.read_arrays(_folder(config, f'{method}_{size}'))
    images, classes = arrays['images'], arrays['labels'][::size].tolist()
    grids[_NAMES[method]] = images.reshape(
        len(classes), size, *images.shape[1:])[:, :10]
  report.pictures.append(figures.side_by_side(
      pathlib.Path(config.workdir) / 'images.png', grids, classes,
      title=f'{config.dataset}, {size} images per class'))


STAGES: tuple[Callable[[Config, Report], None], ...] = (
    reference, distilled_sets, pictures)


def _folder(config: Config, name: str) -> str:
  return str(pathlib.Path(config.workdir) / name)


def _job(config: Config, method: str, size: int) -> distill.Config:
  """The settings of one distillation: those that the demo's flags share."""
  shared = {field.name: getattr(config, field.name)
            for field in dataclasses.fields(distill.Config)
            if hasattr(config, field.name)}
  return distill.Config(**shared | {
      'method': method, 'images_per_class': size, 'batch_size': 0,
      'workdir': _folder(config, f'{method}_{size}')})


def _finished(config: Config, run_job: Callable, job: Any) -> dict[str, Any]:
  """The record of `job`: the one in its folder, or that of a run made now."""
  folder = pathlib.Path(job.workdir)
  record = records.read(folder) if (folder / 'record.json').exists() else None
  same = record is not None and record['config'] == dataclasses.asdict(job)
  if same and not config.fresh and _is_complete(record):
    logging.info('%s: finished before, kept', folder.name)
    return record
  if config.fresh or (record is not None and not same):
    # Checkpoints of other settings would be refused.
    shutil.rmtree(folder / 'checkpoints', ignore_errors=True)
  logging.info('%s: started', folder.name)
  run_job(job)
  record = records.read(folder)
  if not _is_complete(record):
    raise KeyboardInterrupt
  logging.info('%s: finished in %.1f s', folder.name, record['wall_time'])
  return record


def _is_complete(record: dict[str, Any]) -> bool:
  return record['extra'].get('status') != Status.INTERRUPTED.name


if __name__ == '__main__':
  launch.launch(Config, run)
