"""DP-SGD audited in one training run: what canaries prove of its epsilon.

The command is `experiments.canaries`; its docstring has an example, and what
it writes.
"""
import dataclasses
import math
import time
from typing import Any, Literal

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import optax

from dsr import checks, data as data_lib, nets, train
from dsr.probes import canaries as canaries_lib, intervals, membership, scores
from dsr.runs import contents, records, screen
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.problem import prepare
from dsr.train import canaries as training
from dsr.types import Examples


@dataclasses.dataclass(frozen=True)
class Config:
  """Audits the guarantee of DP-SGD by canaries."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  network: str = 'mlp'  # One without batch normalisation.
  # What may be absent: gradients at one parameter each (the attacker compares
  # the parameters at both ends), or images with wrong labels (he compares the
  # losses).
  canaries: Literal['gradients', 'mislabelled'] = 'gradients'
  num_canaries: int = 500  # Each in the training with probability 1/2.
  # Numbers of guesses to try, with commas between them, corrected for being
  # several; '': a tenth, a quarter and all of the canaries.
  num_guesses: str = ''
  level: float = 0.95  # Confidence of the lower bound.
  dp_epsilon: float = 8.0  # Of the accountant.
  dp_delta: float = 1e-5  # Of the guarantee.
  dp_clip: float = 1.0  # Largest norm of the gradient of one example.
  # Times the noise that dp_epsilon needs: below 1 there is no such guarantee,
  # which shows whether the audit would notice.
  noise_scale: float = 1.0
  steps: int = 200  # Of DP-SGD.
  batch_size: int = 256  # Expected examples of a step, canaries among them.
  learning_rate: float = 0.5  # Of plain gradient descent.
  seed: int = 0  # Of all that is drawn.
  workdir: str = 'out/canaries'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all networks."""
    return nets.describe()


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  problem = prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=1, max_train=config.max_train, validation=0,
      seed=config.seed)
  evaluation.check_network('network', config.network,
                           problem.train.x.shape[1:], problem.train.num_classes)
  keys = jax.random.split(jax.random.key(config.seed + 9), 4)
  included = np.asarray(jax.random.bernoulli(keys[0], 0.5, (
      config.num_canaries,)))
  module = nets.build(config.network, max(2, problem.train.num_classes))
  prepared = _gradients if config.canaries == 'gradients' else _mislabelled
  data, canaries, score_of = prepared(
      config, keys[1], problem, module, included)
  trained_at = time.monotonic()
  audited = training.fit_with_canaries(
      keys[2], module, data, canaries, epsilon=config.dp_epsilon,
      delta=config.dp_delta, num_steps=config.steps,
      expected_batch=config.batch_size, clip=config.dp_clip,
      optimizer=optax.sgd(config.learning_rate),
      noise_scale=config.noise_scale)
  seconds = time.monotonic() - trained_at
  score = score_of(audited)
  bound = canaries_lib.lower_bound(
      score, included, num_guesses=_numbers(config), delta=config.dp_delta,
      level=config.level)
  right = train.accuracy(
      audited.trained, problem.inputs(problem.test), problem.test.y)[0]
  found = membership.evaluate(keys[3], score, included, num_resamples=500)
  metrics = {
      'epsilon_lower': records.metric(bound.epsilon),
      'epsilon_upper': records.metric(audited.privacy.epsilon),
      'num_guesses': records.metric(bound.num_guesses),
      'num_correct': records.metric(bound.num_correct),
      'canary_auc': found.auc, 'canary_advantage': found.advantage,
      'accuracy': intervals.wilson(
          round(right * len(problem.test)), len(problem.test)),
      'training_seconds': records.metric(seconds)}
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays={'score': score, 'included': included},
      arrays_name='canaries', wall_time=time.monotonic() - began,
      extra={'privacy': audited.privacy._asdict(),
             'num_examples': len(data.y),
             'refuted': bool(bound.epsilon > audited.privacy.epsilon)})
  screen.show(told(config, metrics))
  return metrics


def told(config: Config, metrics: dict[str, Any]) -> str:
  """The result in a sentence or two."""
  value = lambda name: metrics[name].value
  text = (
      f'{value("num_correct"):.0f} of {value("num_guesses"):.0f} guesses are '
      f'right: epsilon is at least {value("epsilon_lower"):.3g} at '
      f'{config.level:.0%} confidence; the accountant says at most '
      f'{value("epsilon_upper"):.3g} (delta {config.dp_delta:g}).')
  if value('epsilon_lower') > value('epsilon_upper'):
    text += (' The guarantee is refuted: '
             + ('noise was taken away on purpose.' if config.noise_scale < 1
                else 'there is a fault in the training or in its accounting.'))
  return text


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('max_train', config.max_train, 0)
  checks.at_least('num_canaries', config.num_canaries, 2)
  checks.within('level', config.level, 0, 1)
  if config.level in (0, 1):
    raise ValueError(f'`level` must be between 0 and 1, got {config.level}.')
  checks.within('dp_epsilon', config.dp_epsilon, 1e-3, 100)
  checks.within('dp_delta', config.dp_delta, 2e-13, 1)
  checks.positive('dp_clip', config.dp_clip)
  checks.positive('noise_scale', config.noise_scale)
  checks.at_least('steps', config.steps, 1)
  checks.at_least('batch_size', config.batch_size, 1)
  checks.positive('learning_rate', config.learning_rate)
  checks.at_least('seed', config.seed, 0)
  for part in config.transform.split('+'):
    checks.one_of('transform', part, data_lib.transforms.known())
  with checks.renamed(name='network'):
    nets.check_name(config.network)
  _numbers(config)


def _numbers(config) -> list[int]:
  """Of guesses, even ones from 2 on."""
  num = config.num_canaries
  if not config.num_guesses:
    even = lambda share: max(2, 2 * math.floor(share * num / 2))
    return sorted({even(share) for share in (0.1, 0.25, 1)})
  found = evaluation.names(config.num_guesses)
  if not all(n.isdigit() and 2 <= int(n) <= num and int(n) % 2 == 0
             for n in found):
    raise ValueError(f'`num_guesses` must be even numbers from 2 to {num} with '
                     f'commas between them, got {config.num_guesses!r}.')
  return sorted(set(map(int, found)))


def _gradients(config, key, problem, module, included):
  """All images take part; canaries are single parameters."""
  examples = problem.examples(problem.train)
  data = examples._replace(y=evaluation.probabilities(examples.y))
  coordinates = training.quiet_coordinates(
      key, module, data, config.num_canaries)
  present = np.ones(len(data.y), bool)

  def score_of(audited):
    ends = [np.asarray(ravel_pytree(params)[0])[coordinates]
            for params in (audited.start, audited.trained.params)]
    return (ends[0] - ends[1]).astype(float)  # Descent: gradients lower it.

  return data, training.Canaries(present, coordinates, included), score_of


def _mislabelled(config, key, problem, module, included):
  """Random training images get a wrong label, and may be absent."""
  num = len(problem.train)
  if config.num_canaries > num:
    raise ValueError(f'`num_canaries` must be at most {num}, the training '
                     f'images, got {config.num_canaries}.')
  key_rows, key_labels = jax.random.split(key)
  rows = np.asarray(jax.random.choice(
      key_rows, num, included.shape, replace=False))
  classes = problem.train.num_classes
  labels = problem.train.y.copy()
  shift = np.asarray(jax.random.randint(
      key_labels, included.shape, 1, classes))
  labels[rows] = (labels[rows] + shift) % classes
  wrong = dataclasses.replace(problem.train, y=labels)
  examples = problem.examples(wrong)
  data = examples._replace(y=evaluation.probabilities(examples.y))
  present = np.ones(num, bool)
  present[rows] = included
  shown = np.asarray(data.x)[rows]

  def score_of(audited):
    losses = [scores.negative_loss(train.predict(
        audited.trained._replace(params=params), shown)[0], labels[rows])
              for params in (audited.start, audited.trained.params)]
    return losses[1] - losses[0]

  none = np.zeros(0, np.int32), np.zeros(0, bool)
  return Examples(*map(jnp.asarray, data)), training.Canaries(
      present, *none), score_of
