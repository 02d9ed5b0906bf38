"""The parts of an audit: what is made, trained and asked, with which flags."""
import dataclasses
import pathlib
from typing import Any

from absl import logging

from dsr import checks
from dsr.studies.audit import (
  claims,
  fairness,
  fit,
  groups,
  leakage,
  lira,
  membership,
  robustness,
  subjects,
)
from dsr.studies.audit.stages import DP, Plan, Subject
from dsr.studies.distillation import distill, evaluation, grid, names
from dsr.studies.distillation.methods import table

# Networks are trained by `fit`: their flags must not make a set anew.
_NO_NETWORKS = {'networks': '', 'num_networks': 5, 'network_epochs': None,
                'network_learning_rate': None, 'protocol': 'condensation'}
# Flags of the parts -> those of the audit.
_FLAGS = {'model': 'networks', 'name': 'networks', 'max_train': 'lira_train',
          'steps': 'attack_steps'}
_LEAK_FLAGS = {'methods': 'leak_methods', 'regimes': 'leak_regimes',
               'num_train': 'leak_train'}
_LIRA = ('all', 'random', 'kip')  # Attacked by shadow models.


def make(config: Any) -> Plan:
  """All parts of an `experiments.audit.Config`, with their flags.

  Raises:
    ValueError: something is wrong with a flag or with a set of one's own,
      before anything is trained.
  """
  chosen = grid.chosen_methods(config.methods) if config.methods else []
  own_sets = evaluation.names(config.distilled)
  if not chosen and not own_sets:
    raise ValueError('`methods` or `distilled` must name a set, got neither.')
  sizes = grid.chosen_sizes(config.images_per_class)
  inits = evaluation.names(config.inits)
  for init in inits:
    checks.one_of('inits', init, ('real', 'noise'))
  if 'real' not in inits:
    raise ValueError(f'`inits` must have real, got {config.inits!r}.')
  checks.at_least('full_epochs', config.full_epochs, 1)
  checks.at_least('network_epochs', config.network_epochs, 1)
  checks.at_least('lira_shadows', config.lira_shadows, 0)
  checks.at_least('leak_train', config.leak_train, 0)
  checks.at_least('num_networks', config.num_networks, 2)  # For intervals.
  found, sets = _subjects(config, chosen, sizes, inits)
  own = {name: _own(config, path, name, found)
         for path, name in names.folders(own_sets).items()}
  references = {n: s for n, s in found.items() if s.method in ('all', DP)}
  found = references | own | found  # One's own sets before all others.
  return _plan(config, found, sets)


def _subjects(config, chosen, sizes, inits):
  found = {'all': Subject('all', 'all images', 'all', 0, 'real', '')}
  if config.dp_epsilon and evaluation.names(config.networks):
    found[DP] = Subject(
        DP, f'all images, DP-SGD, epsilon {config.dp_epsilon:g}', DP, 0,
        'real', '')
  sets = {}
  own = grid.method_options(config, table.names())
  noisy = sizes
  if config.noise_sizes:
    with checks.renamed(images_per_class='noise_sizes'):
      noisy = grid.chosen_sizes(config.noise_sizes)
  for size in sizes:
    for method in chosen:
      also = table.METHODS[method].from_noise and size in noisy
      for init in inits if also else ('real',):
        noise = '_noise' if init == 'noise' else ''
        name = f'{method}{noise}_{size}'
        sets[name] = grid.distillation(
            config, method, size, own, name=name,
            **_NO_NETWORKS, **({'init': init} if noise else {}))
        found[name] = Subject(
            name, f'{method}{", from noise" * bool(noise)}, {size} per class',
            method, size, init, sets[name].workdir)
  return found, sets


def _own(config, path, name, found) -> Subject:
  """A set of one's own, looked at before anything is trained."""
  shared = subjects.SubjectConfig(**_shared(config), set=path)
  with checks.renamed(set='distilled'):
    shown, _ = subjects.load_set(shared)
  for note in shown.notes:
    logging.info('%s: %s.', path, note)
  if name in found:
    raise ValueError(f'`distilled` must have a name of its own, got {path!r} '
                     f'beside the set {name}.')
  return Subject(name, names.title(path), 'own', 0, '', path)


def _shared(config) -> dict[str, Any]:
  """Flags of every subject."""
  return {f.name: getattr(config, f.name)
          for f in dataclasses.fields(subjects.SubjectConfig)
          if hasattr(config, f.name) and not f.name.startswith('dp_')
          and f.name != 'network_epochs'}


def _plan(config, found, sets) -> Plan:
  networks = evaluation.names(config.networks)
  root = pathlib.Path(config.workdir)
  fits, probed, attacked, compared = {}, {}, {}, {}
  for name, subject in found.items():
    for model in ([] if name == DP else [subjects.KRR]) + networks:
      flags = _model_flags(config, subject, model)
      folder = names.inside(root, name) / model
      at = lambda stage: str(folder / stage)  # noqa: B023
      fits[name, model] = fit.Config(**flags, workdir=str(folder))
      where = flags | {'fit': str(folder) if model != subjects.KRR else ''}
      probed[name, model] = membership.Config(
          **where, num_probed=config.num_probed, learned=config.learned,
          workdir=at('membership'))
      attacked[name, model] = robustness.Config(
          **where, attacks=config.attacks, num_attacked=config.num_attacked,
          steps=config.attack_steps, corruptions=config.corruptions,
          curve=config.curve, workdir=at('robustness'))
      reference = root / 'all' / model
      compared[name, model] = fairness.Config(
          dataset=config.dataset, data_dir=config.data_dir, seed=config.seed,
          fit=str(folder), reference=str(reference), groups=config.groups,
          train_groups=config.train_groups,
          membership=at('membership'), robustness=at('robustness'),
          workdir=at('fairness'))
    if subject.method not in ('all', DP):
      flags = _model_flags(config, subject, membership.SET)
      probed[name, membership.SET] = membership.Config(
          **flags, num_probed=config.num_probed, learned='',
          workdir=str(root / name / membership.SET))
  plan = Plan(found, sets, fits, probed, attacked, compared,
              _lira(config, found), _leakage(config), claims.Config(
                  audit=config.workdir, subjects=','.join(found),
                  models=','.join([subjects.KRR, *networks]),
                  seed=config.seed, workdir=str(root / 'claims')))
  for job, module in ((j, m) for jobs_, m in (
      (probed, membership), (attacked, robustness), (compared, fairness),
      (plan.lira, lira)) for j in jobs_.values()):
    with checks.renamed(**_FLAGS):
      module.check(job)
  if plan.leakage is not None:
    with checks.renamed(**_LEAK_FLAGS):
      plan = dataclasses.replace(
          plan, leak_jobs=tuple(leakage.jobs_of(plan.leakage)))
  _check_data(config, networks, sets)
  return plan


def _check_data(config, networks, sets) -> None:
  """Raises a ValueError for data that a part of the audit cannot take."""
  problem = subjects.load_problem(subjects.SubjectConfig(**_shared(config)))
  groups.check(config, groups=len(problem.test), train_groups=sum(map(len, (
      problem.train, problem.validation, problem.unused))))
  shape = problem.train.x.shape[1:]
  if len(shape) != 3:
    raise ValueError('`dataset` must be images, whose pixels attacks and '
                     f'corruptions move in [0, 1], got a table of {shape[0]} '
                     'columns: use distill, compare, fit and membership.')
  evaluation.check_kernel(
      evaluation.kernel_named(config.kernel), config.kernel, shape)
  for name in networks:
    evaluation.check_network(
        'networks', name, shape, problem.train.num_classes)
  for job in sets.values():
    distill.prepared(job)


def _model_flags(config, subject, model) -> dict[str, Any]:
  """Those of `SubjectConfig` for one set and model."""
  flags = _shared(config) | {'set': subject.where, 'model': model}
  if model in (subjects.KRR, membership.SET):
    return flags
  flags['network_epochs'] = config.network_epochs
  if subject.method in ('all', DP):
    flags['network_epochs'] = config.full_epochs
  elif subject.size:  # As many examples seen, whatever the size of the set.
    smallest = min(grid.chosen_sizes(config.images_per_class))
    flags['network_epochs'] = max(
        1, round(config.network_epochs * smallest / subject.size))
  if subject.method == DP:  # One network: releasing more spends more.
    flags |= {'dp_epsilon': config.dp_epsilon, 'num_networks': 1}
  return flags


def _lira(config, found) -> dict[str, lira.Config]:
  if not config.lira_shadows:
    return {}
  present = {s.method for s in found.values()}
  chosen = [m for m in _LIRA if m in present]
  sizes = sorted({s.size for s in found.values() if s.size})
  networks = evaluation.names(config.networks if config.lira_networks is None
                              else config.lira_networks)
  shared = {name: getattr(config, name) for name in (
      'dataset', 'data_dir', 'kernel', 'seed', 'protocol',
      'network_learning_rate', 'network_batch_size')}
  return {method: lira.Config(
      **shared, method=method,
      images_per_class=','.join(map(str, sizes or [10])),
      model=','.join([subjects.KRR, *networks]),
      num_shadows=config.lira_shadows,
      network_epochs=(config.full_epochs if method == 'all' else
                      config.network_epochs),
      max_train=config.lira_train or config.max_train,
      workdir=str(pathlib.Path(config.workdir) / 'lira' / method))
          for method in chosen}


def _leakage(config) -> leakage.Config | None:
  if not config.leak_train:
    return None
  return leakage.Config(
      dataset=config.dataset, data_dir=config.data_dir,
      num_train=config.leak_train, methods=config.leak_methods,
      regimes=config.leak_regimes, own=config.distilled, seed=config.seed,
      workdir=str(pathlib.Path(config.workdir) / 'leakage'))
