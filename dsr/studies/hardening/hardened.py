"""Trains networks on one set, against attacks or plainly, and attacks them.

The command is `experiments.hardened`; its docstring has an example, and what
it writes.
"""
import dataclasses
import functools
import hashlib
import json
import time
from typing import Any, Literal

from absl import logging
import jax
from jax.tree_util import Partial
import numpy as np

from dsr import checks, data as data_lib, loop, nets, train
from dsr.probes import intervals
from dsr.probes.attacks import apgd, pgd
from dsr.runs import contents, records, stopwatch as stopwatch_lib
from dsr.studies.audit import subjects
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.problem import Problem
from dsr.studies.hardening import covering
from dsr.train import adversarial
from dsr.types import Examples

ATTACKS = ('linf', 'l2', 'strong')
_TILE = 500  # Images that are attacked at a time.
# Flags that say nothing about the trained networks.
_AFTER = ('workdir', 'data_dir', 'set', 'num_attacked', 'linf_epsilon',
          'l2_epsilon', 'bound_images')


@dataclasses.dataclass(frozen=True)
class HardeningConfig:
  """How networks are trained and attacked."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  validation: float = 0.1  # Share of the training set, at most 5000 examples.
  network: str = 'lenet'  # What is trained: mlp, convnet3, lenet, ...
  num_networks: int = 3  # Random starts.
  train_steps: int = 1000  # Updates of Adam for each network.
  train_batch: int = 128  # Examples an update.
  train_rate: float = 1e-3  # Learning rate.
  norm: Literal['linf', 'l2'] = 'linf'  # Of the ball that training defends.
  epsilon: float = 0.1  # Its radius, in pixels of [0, 1].
  attack_steps: int = 7  # Of PGD, at each update.
  beta: float = 6.0  # Weight of the second term of trades.
  num_attacked: int = 1000  # Test images.
  linf_epsilon: float = 0.1  # Of the published attack.
  l2_epsilon: float = 0.1  # Of its l2 form.
  bound_images: int = 2000  # Training images for the bound; 0 for no bound.
  seed: int = 0  # Of all that is drawn.


@dataclasses.dataclass(frozen=True)
class Config(HardeningConfig):
  """Trains networks on a set and attacks them."""

  set: str = ''  # Workdir of experiments.distill; '' for all images.
  # Plain, on PGD examples, or by TRADES (arXiv:1901.08573).
  training: Literal['standard', 'pgd', 'trades'] = 'pgd'
  weighted: bool = False  # Whether the weights of the set count (mfc).
  widest: float = 0.0  # Above 0: trains at epsilon + eta, or this if smaller.
  workdir: str = 'out/hardened'  # Where the results go.


def check(config: HardeningConfig) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('max_train', config.max_train, 0)
  checks.within('validation', config.validation, 0, 0.9)
  with checks.renamed(name='network'):
    nets.check_name(config.network)
  checks.at_least('num_networks', config.num_networks, 2)  # For an interval.
  for name in ('train_steps', 'train_batch', 'attack_steps'):
    checks.at_least(name, getattr(config, name), 1)
  checks.positive('train_rate', config.train_rate)
  for name in ('epsilon', 'beta'):
    checks.non_negative(name, getattr(config, name))
  for name in ('l2_epsilon', 'linf_epsilon'):  # Also steps of an attack.
    checks.positive(name, getattr(config, name))
  checks.at_least('num_attacked', config.num_attacked, 2)
  checks.at_least('bound_images', config.bound_images, 0)
  for name in config.transform.split('+'):
    checks.one_of('transform', name, data_lib.transforms.known())
  if isinstance(config, Config):
    checks.non_negative('widest', config.widest)
    if config.widest and config.training == 'standard':
      raise ValueError('`widest` must be 0 with standard training, got '
                       f'{config.widest}.')
    if not config.set and (config.widest or config.weighted):
      raise ValueError('`widest` and `weighted` need a `set`, got none.')


def check_data(config: HardeningConfig, problem: Problem) -> None:
  """Raises a ValueError if the network cannot take the images."""
  evaluation.check_network('network', config.network, problem.train.x.shape[1:],
                           problem.train.num_classes)


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  check(config)
  stopwatch, began = stopwatch_lib.Stopwatch(config.workdir), time.monotonic()
  shown, problem = subjects.load_set(config)
  check_data(config, problem)
  x, covers = shown.pixels, {}
  if shown.init == 'chosen':  # Exactly as they were before the transform.
    x = problem.train.x[shown.init_rows]
    if config.bound_images or config.widest:
      covers = {norm: covering.cover(x, shown.labels, problem.train, norm)
                for norm in covering.NORMS}
  radius = config.epsilon
  if config.widest:
    if shown.init != 'chosen':
      raise ValueError('`widest` must be 0 with a set that has no images of '
                       f'the training set, got {config.widest}.')
    radius = min(radius + covers[config.norm].eta.max(), config.widest)
  loaded = time.monotonic() - began
  try:
    trained = _train(config, x, shown.examples.y, float(radius), problem)
  finally:  # Training goes on after Ctrl-C, and so does its clock.
    seconds = stopwatch.save(now=True) - loaded
  predict_fns = _predictors(trained, problem)
  rows = np.asarray(jax.random.permutation(
      jax.random.key(config.seed + 12), len(problem.test)))
  right = _attacked(config, predict_fns,
                    problem.test.take(rows[:config.num_attacked]))
  metrics = {f'{name}_accuracy': intervals.crossed(hits)
             for name, hits in right.items()}
  arrays = {f'right_{name}': hits for name, hits in right.items()}
  info = {'radius': float(radius), 'num_images': len(x)}
  if config.bound_images:
    for norm, cover in covers.items():
      found = covering.bound(
          jax.random.key(config.seed + 13), cover, predict_fns, problem.train,
          count=config.bound_images, epsilon=getattr(config, f'{norm}_epsilon'))
      values = {side: [getattr(one, side) for one in found]
                for side in covering.SIDES}
      metrics |= {f'bound_{norm}_{side}': _mean(value, side)
                  for side, value in values.items()}
      metrics[f'bound_{norm}_eta'] = records.metric(cover.eta.max())
      arrays |= {f'bound_{norm}_{k}': np.asarray(v) for k, v in values.items()}
      info[f'bound_{norm}_missed'] = [one.missed for one in found]
  metrics['train_seconds'] = records.metric(seconds)
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays_name='hardened',
      arrays=arrays | {'curve': trained.curve},
      wall_time=stopwatch.save(now=True), extra=info)
  for name in ('clean', *ATTACKS):
    logging.info('%s: %.2f %% [%.2f, %.2f]', name, *(
        100 * v for v in metrics[f'{name}_accuracy']))
  return metrics


def _mean(values, side) -> records.Metric:
  """Over networks, with a t interval; no loss is negative, no share above 1."""
  mean, low, high = intervals.mean_t(values)
  if side == 'relative_slack':
    high = min(high, 1.0)
  return records.metric(mean, max(low, 0.0), high)


@functools.lru_cache(maxsize=64)  # One function: compiled once.
def _training_attack(norm, epsilon, steps, batch_size):
  # TRADES needs all rows at once; without a limit there are smaller tiles.
  more = {} if batch_size is None else {'batch_size': batch_size}
  return functools.partial(
      pgd.pgd, norm=norm, epsilon=epsilon, steps=steps, **more)


def _train(config, x, y, radius, problem) -> train.Trained:
  y = np.asarray(evaluation.probabilities(y))
  weights, attack = None, None
  if config.weighted:
    arrays = records.read_arrays(config.set)
    if 'weights' not in arrays:
      raise ValueError('`weighted` must be false for a set without weights, '
                       f'as in {config.set}.')
    weights = arrays['weights']
  if config.training != 'standard':
    attack = _training_attack(
        config.norm, radius, config.attack_steps,
        config.train_batch if config.training == 'trades' else None)
  digest = hashlib.sha256(np.ascontiguousarray(x)).hexdigest()
  fields = json.loads(loop.config_fingerprint(config, ignore=_AFTER))
  protocol = train.Protocol(
      optimizer='adam', learning_rate=config.train_rate)
  return adversarial.fit_adversarial(
      jax.random.key(config.seed + 10), nets.build(config.network, y.shape[1]),
      Examples(x, y), optimizer=train.make_optimizer(
          protocol, num_steps=config.train_steps),
      num_steps=config.train_steps, weights=weights, method=config.training,
      attack=attack, beta=config.beta, inputs=problem.transform.apply,
      num_networks=config.num_networks, batch_size=config.train_batch,
      workdir=config.workdir,
      fingerprint=json.dumps(fields | {'images': digest[:12]}))


@functools.lru_cache(maxsize=64)  # One function: compiled once.
def _forward(module, inputs):
  return jax.jit(lambda params, x: module.apply({'params': params}, inputs(x)))


def _predictors(trained, problem) -> list[Partial]:
  """Each network as a function of pixels."""
  run = _forward(trained.module, problem.transform.apply)
  count = trained.curve.shape[1]
  return [Partial(run, jax.tree.map(lambda a: a[r], trained.params))  # noqa: B023
          for r in range(count)]


def _attacked(config, predict_fns, images) -> dict[str, np.ndarray]:
  """Name -> (R, N), whether each network is right, attacked or not."""
  attacks = {
      'linf': functools.partial(
          pgd.pgd, norm='linf', epsilon=config.linf_epsilon, steps=20,
          step_size=config.linf_epsilon, random_start=False, low=-np.inf,
          high=np.inf),
      'l2': functools.partial(
          pgd.pgd, norm='l2', epsilon=config.l2_epsilon, steps=40,
          step_size=config.l2_epsilon, random_start=False),
      'strong': functools.partial(
          apgd.apgd, norm=config.norm, epsilon=config.epsilon, steps=50)}
  right = {name: [] for name in ('clean', *attacks)}
  for r, predict_fn in enumerate(predict_fns):
    hit = lambda x: np.asarray(predict_fn(x)).argmax(1)  # noqa: B023
    key = jax.random.fold_in(jax.random.key(config.seed + 11), r)
    hits = {name: [] for name in right}
    for start in range(0, len(images), _TILE):
      part = images.take(np.arange(start, min(start + _TILE, len(images))))
      clean = hit(part.x) == part.y
      hits['clean'].append(clean)
      for name, attack in attacks.items():
        x_adv = attack(jax.random.fold_in(key, start), predict_fn, part.x,
                       part.y)
        hits[name].append(clean & (hit(x_adv) == part.y))
    for name, parts in hits.items():
      right[name].append(np.concatenate(parts))
  return {name: np.stack(hits) for name, hits in right.items()}
