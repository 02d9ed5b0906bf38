r"""Distils a dataset and says what the result is worth.

  python -m experiments.distill --dataset=mnist --data_dir=$TFDS_DATA_DIR \
    --method=kip --kernel=fcn1 --images_per_class=10 --workdir=out/kip

Writes to the workdir: `distilled.npz` (pixels, inputs, targets, labels),
`images.png` (pixel space, rows by class), `curve.png`, `record.json`. Stopped
by Ctrl-C it writes what it has, without training networks on it; called again
it goes on from its checkpoint.
README.md has a table of commands with device, time and numbers to expect.
"""
import dataclasses
import functools
import time
from typing import Any, Literal

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsr import checks, data as data_lib, kernels, krr, loop, nets, train
from dsr.distill import kip, label_solve, rkip, support as support_lib, targets
from dsr.probes import intervals
from dsr.types import Examples, KernelFn, Status
from experiments import launch, results, rkip_finite
from experiments.problem import Problem, prepare
from experiments.results import Learned

# One object for each name and one program for each shape: several runs in a
# process, such as the demo's, then compile once.
_kernel = functools.lru_cache(kernels.by_name)
_fit = jax.jit(krr.fit, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Config:
  """Distils a dataset and evaluates the result."""

  dataset: str = 'digits'  # A known name, a task, name[classes] or an .npz.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  method: Literal[
      'kip', 'rkip', 'rkip_finite', 'label_solve', 'random'] = 'kip'
  images_per_class: int = 10  # Size of the distilled set.
  kernel: str = 'fcn1'  # fcn2, convnet3, convnet3_nopool, myrtle5, ...
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  init: Literal['real', 'noise'] = 'real'  # What the images start from.
  learn_labels: bool = False  # Whether the labels are learned too (kip, rkip).
  loss: Literal['mse', 'cross_entropy'] = 'mse'  # Of kip.
  augment: str = 'none'  # Of kip's batches: flip, shift2, rotate10; or a+b.
  corruption: float = 0.0  # Share of pixels frozen to noise (kip, rkip).
  min_distance: float = 0.0  # Least RMS difference to training images (kip).
  ridge: float = 1e-6  # Relative to tr(K)/n.
  steps: int = 1000  # Of the optimizer.
  learning_rate: float = 0.04  # Of Adam.
  schedule: Literal['constant', 'cosine'] = 'constant'  # cosine: to 1/50.
  batch_size: int = 5000  # Training examples a step (kip); 0 means all.
  eval_every: int = 100  # Steps between two looks at the validation split.
  keep: Literal['best', 'last'] = 'best'  # By accuracy on validation.
  validation: float = 0.1  # Share of the training set, at most 5000 examples.
  network_width: int = 1024  # Of the MLP that rkip_finite attacks.
  networks: str = 'mlp,convnet3'  # Trained on the result; '' for none.
  num_networks: int = 5  # Random starts of each.
  network_epochs: int = 1000  # Of Adam on the distilled set.
  network_learning_rate: float = 3e-4  # Of that Adam.
  seed: int = 0
  workdir: str = 'out/distill'  # Where the results go.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  kernel_fn = _kernel(config.kernel)
  problem = prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=config.images_per_class, max_train=config.max_train,
      validation=config.validation, seed=config.seed)
  baseline = problem.examples(problem.start)
  learned = _METHODS[config.method](config, kernel_fn, problem, baseline)
  metrics = {
      'krr_accuracy': krr_accuracy(
          kernel_fn, learned.examples, problem, config.ridge),
      'krr_accuracy_start': krr_accuracy(
          kernel_fn, baseline, problem, config.ridge)}
  if learned.status == Status.INTERRUPTED:
    logging.warning('Interrupted: no networks are trained.')
  else:
    try:
      metrics |= _network_accuracies(config, learned.examples, problem)
    except KeyboardInterrupt:  # The distilled set is worth keeping.
      learned = learned._replace(status=Status.INTERRUPTED)
  results.write(config, problem, learned, metrics,
                wall_time=time.monotonic() - began)
  for name, value in metrics.items():
    logging.info('%s = %.2f %% [%.2f, %.2f]', name,
                 *(100 * v for v in (value.value, value.low, value.high)))
  return metrics


def krr_accuracy(kernel_fn: KernelFn, support: Examples, problem: Problem,
                 ridge: float) -> intervals.Interval:
  """Test accuracy of ridge regression on `support`, with a Wilson interval."""
  right = _accuracy(kernel_fn, support, problem.inputs(problem.test),
                    problem.test.y, ridge)
  return intervals.wilson(round(right * len(problem.test)), len(problem.test))


def _accuracy(kernel_fn, support, x, y, ridge) -> float:
  predict = _fit(kernel_fn, support, ridge=ridge)
  outputs = krr.predict_in_tiles(predict, x, tile=2500)
  return float(krr.accuracy(outputs, y))


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('images_per_class', config.images_per_class, 1)
  checks.at_least('max_train', config.max_train, 0)
  checks.at_least('steps', config.steps, 1)
  checks.at_least('eval_every', config.eval_every, 1)
  checks.at_least('network_epochs', config.network_epochs, 1)
  checks.at_least('num_networks', config.num_networks, 2)  # For an interval.
  checks.positive('learning_rate', config.learning_rate)
  checks.positive('network_learning_rate', config.network_learning_rate)
  checks.positive('ridge', config.ridge)
  checks.within('corruption', config.corruption, 0, 1)
  checks.within('validation', config.validation, 0, 0.9)
  if config.keep == 'best' and not config.validation:
    raise ValueError('`keep=best` needs `validation` above 0, got 0.')
  if config.method != 'kip':
    for name, off in (('loss', 'mse'), ('augment', 'none'),
                      ('min_distance', 0)):
      if (value := getattr(config, name)) != off:
        raise ValueError(f'`{name}` must be {off} with {config.method}, whose '
                         f'objective has no batches; got {value}.')
  if config.method == 'rkip_finite':
    rkip_finite.check(config)
  elif config.network_width != Config.network_width:
    raise ValueError(f'`network_width` must be {Config.network_width} with '
                     f'{config.method}, got {config.network_width}.')
  for name in _names(config.networks):
    checks.one_of('networks', name, nets.NAMES)
  for name in config.transform.split('+'):
    checks.one_of('transform', name, data_lib.transforms.known())
  data_lib.augment.by_name(config.augment)
  kernels.by_name(config.kernel)


def _names(flag: str) -> list[str]:
  return [name for name in flag.split(',') if name]


def _random(config, kernel_fn, problem, baseline) -> Learned:
  del config, kernel_fn, problem
  none = np.zeros(0)
  return Learned(baseline, none, none, none, Status.FINISHED)


def _label_solve(config, kernel_fn, problem, baseline) -> Learned:
  y = label_solve.label_solve(
      kernel_fn, baseline.x, problem.examples(problem.train),
      ridge=config.ridge, progress=True)
  return _random(config, kernel_fn, problem, Examples(baseline.x, y))


def _kip(config, kernel_fn, problem, baseline) -> Learned:
  fill = problem.transform.apply(jnp.zeros_like(baseline.x[:1]))[0]
  solver = kip.kip(
      kernel_fn, _optimizer(config), ridge=config.ridge,
      batch_size=config.batch_size, learn_labels=config.learn_labels,
      loss=config.loss, min_distance=config.min_distance,
      augment=data_lib.augment.by_name(config.augment, fill=fill))
  examples = problem.examples(problem.train)
  data = targets.targets(examples.x, examples.y, problem.train.y)
  return _learn(config, kernel_fn, problem, baseline, solver, data)


def _rkip(config, kernel_fn, problem, baseline) -> Learned:
  if len(problem.train) > 25_000:
    raise ValueError(
        '`max_train` must be at most 25000 with rkip, whose K_tt takes 8 T^2 '
        f'bytes; got {len(problem.train)} training examples.')
  data = rkip.interpolant(kernel_fn, problem.examples(problem.train),
                          ridge=config.ridge, progress=True)
  solver = rkip.rkip(kernel_fn, _optimizer(config), ridge=config.ridge,
                     learn_labels=config.learn_labels)
  return _learn(config, kernel_fn, problem, baseline, solver, data)


def _rkip_finite(config, kernel_fn, problem, baseline) -> Learned:
  del kernel_fn, baseline
  return rkip_finite.distil(config, problem)


_METHODS = {'kip': _kip, 'rkip': _rkip, 'rkip_finite': _rkip_finite,
            'label_solve': _label_solve, 'random': _random}


def _optimizer(config) -> optax.GradientTransformation:
  rate = config.learning_rate
  if config.schedule == 'cosine':
    rate = optax.cosine_decay_schedule(rate, config.steps, alpha=0.02)
  return optax.adam(rate)


def _start(config, baseline) -> support_lib.Support:
  key_noise, key_corrupt = jax.random.split(jax.random.key(config.seed + 1))
  x = baseline.x
  if config.init == 'noise':
    x = support_lib.noise_like(key_noise, x)
  start = support_lib.support(x, baseline.y)
  if config.corruption:
    start = support_lib.corrupt(key_corrupt, start, config.corruption)
  return start


def _learn(config, kernel_fn, problem, baseline, solver, data) -> Learned:
  """Runs `solver`, keeping what does best on the validation split."""
  start = _start(config, baseline)
  # Of every look: at which step, and the accuracy; NaN without validation.
  kept = {'steps': np.zeros(0, int), 'accuracy': np.zeros(0), 'best': -1.0,
          'x': np.asarray(start.x), 'y': np.asarray(start.y)}
  held_out = problem.validation
  if len(held_out):
    x_held_out = problem.inputs(held_out)

  def on_chunk(step, state, info):
    del info
    now = np.nan
    if len(held_out):
      now = _accuracy(kernel_fn, state.support.examples(), x_held_out,
                      held_out.y, config.ridge)
    kept.update(steps=np.append(kept['steps'], step),
                accuracy=np.append(kept['accuracy'], now))
    if config.keep == 'last' or now >= kept['best']:
      kept.update(best=now, x=np.asarray(state.support.x),
                  y=np.asarray(state.support.y))

  ignore = ['workdir', 'networks', 'num_networks', 'network_epochs',
            'network_learning_rate']
  if config.schedule == 'constant':
    ignore += ['steps']
  result = loop.run(
      solver.step, solver.init(jax.random.key(config.seed + 2), start), data,
      num_steps=config.steps, chunk=config.eval_every,
      workdir=config.workdir,
      checkpoint_every=10 * config.eval_every,
      fingerprint=loop.config_fingerprint(config, ignore=tuple(ignore)),
      extra=kept, on_chunk=on_chunk, description=config.method)
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The loss of {config.method} is not finite after step '
        f'{result.steps_done}: lower `learning_rate` (got '
        f'{config.learning_rate}) or raise `ridge` (got {config.ridge}).')
  looked = np.isfinite(kept['accuracy'])
  return Learned(
      Examples(jnp.asarray(kept['x']), jnp.asarray(kept['y'])),
      kept['steps'][looked], kept['accuracy'][looked],
      np.asarray(result.infos.loss), result.status)


def _network_accuracies(config, examples, problem) -> dict[str, Any]:
  """`<name>_accuracy` of each network; `network_accuracy` is the first's."""
  metrics = {}
  x_test = problem.inputs(problem.test)
  protocol = train.FREPO._replace(
      epochs=config.network_epochs, learning_rate=config.network_learning_rate)
  for i, name in enumerate(_names(config.networks)):
    module = nets.build(name, examples.y.shape[1])
    scores = train.evaluate(
        jax.random.fold_in(jax.random.key(config.seed + 3), i), module,
        examples, x_test, problem.test.y, protocol=protocol,
        num_networks=config.num_networks)
    metrics[f'{name}_accuracy'] = intervals.mean_t(scores.accuracy)
    metrics.setdefault('network_accuracy', metrics[f'{name}_accuracy'])
  return metrics


if __name__ == '__main__':
  launch.launch(Config, run)
