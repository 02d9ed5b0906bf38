"""Who attacks whom: flags, their meaning, and the attack that they name."""
from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
from typing import Any, Literal, TypeVar

import jax
import numpy as np

from dsr import checks, data as data_lib, loop
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction
from dsr.runs import options, records, stopwatch as stopwatch_lib
from dsr.studies.distillation import evaluation
from dsr.studies.reconstruction import limits, table, victims
from dsr.types import KernelFn

_FLOAT64 = 200  # At infinite width, up to so many images by default.


@dataclasses.dataclass(frozen=True)
class AttackConfig(victims.VictimConfig):
  """A victim, what is released of it, and who attacks it."""

  # The victim: infinitely wide, or finite and trained either way.
  regime: Literal['infinite', 'linearized', 'standard'] = 'infinite'
  dtype: Literal['auto', 'float32', 'float64'] = 'auto'  # Of the victim.
  kernel: str = 'fcn2'  # Of regime=infinite: fcn2, convnet3, myrtle5, ...
  kernel_b_std: float = 0.1  # Of its biases; 0: none.
  kernel_ridge: float = 0.0  # Of its fit, relative to tr(K)/N.
  victim: str = ''  # Workdir of experiments.train, instead of training one.
  # What the attacker has. query: values of f_T - f_0; outputs: those of f_T
  # alone, with 0 for f_0, its mean over starts; parameters: those before and
  # after training; final: those after it alone; auto: what the attack needs.
  threat: Literal['auto', 'query', 'outputs', 'parameters', 'final'] = 'auto'
  noise: float = 0.0  # Standard deviation, added to the released parameters.
  prune: float = 0.0  # Share of each released matrix, the smallest, made zero.
  # What the released parameters are rounded to, after noise and pruning;
  # float32 leaves them as they are.
  release_dtype: Literal['float32', 'float16', 'bfloat16'] = 'float32'
  num_told: int = 0  # Upper bound of num_train that it is told; 0: num_train.
  # One of those at the end of --help; auto: ntk_limit for an infinite victim
  # or values alone, kkt with threat=final, first_layer for an mlp with fewer
  # images than units or numbers in an input, else finite.
  attack: str = 'auto'
  ratio: float | None = None  # Candidates to training images; unset: attack's.
  steps: int | None = None  # Of the attack; unset: its own.
  # Of its steps; unset: the attack's own.
  attack_learning_rate: float | None = None
  # Of which parameters (initial, final, both); unset: attack's.
  gradients: str | None = None
  box: float | None = None  # Weight of the pixel range; unset: the attack's.
  # Weight of total variation; unset: the attack's.
  variation: float | None = None
  # Weight of what a blur removes, likewise.
  high_frequency: float | None = None
  # Other options of the attack: name=value with commas between them, e.g.
  # num_starts=32,patience=6 of first_layer. An unknown name lists all.
  options: str = ''
  attack_seed: int = 0  # Of the attack's starts; `seed` is the victim's.

  @staticmethod
  def describe() -> str:
    """The end of the help: all attacks."""
    return table.describe()


_PRIORS = ('box', 'variation', 'high_frequency')
_SETTINGS = {'ratio': 'ratio', 'steps': 'steps', 'gradients': 'gradients',
             'attack_learning_rate': 'learning_rate'}
_VICTIM = tuple(f.name for f in dataclasses.fields(victims.VictimConfig))
_OWNER = ('noise', 'prune', 'release_dtype')  # Defences of a network's owner.
_INFINITE = ('kernel', 'kernel_b_std', 'kernel_ridge')
VALUES = ('query', 'outputs')  # Threats without parameters.
_EVERYWHERE = ('dataset', 'data_dir', 'num_train', 'regime', 'dtype', 'seed')
_Config = TypeVar('_Config', bound=AttackConfig)


def resolve(config: _Config) -> _Config:
  """`config` with the fields of a given victim, and nothing left automatic.

  Raises:
    ValueError: a flag that contradicts the record of the given victim.
  """
  if config.victim:
    config = _as_recorded(config)
  infinite = config.regime == 'infinite'
  attack, threat, dtype = config.attack, config.threat, config.dtype
  if attack == 'auto':
    attack = ('ntk_limit' if infinite or threat in VALUES else
              'kkt' if threat == 'final' else
              'finite' if without_first_layer(config) else 'first_layer')
  if threat == 'auto':
    checks.one_of('attack', attack, table.ATTACKS)
    # An attack that is not for such networks is refused by `check`.
    threat = (*table.ATTACKS[attack].threats_of(infinite), 'auto')[0]
  if dtype == 'auto':
    small = infinite and config.num_train <= _FLOAT64
    dtype = 'float64' if small else 'float32'
  return dataclasses.replace(config, attack=attack, threat=threat, dtype=dtype)


def without_first_layer(config: AttackConfig) -> str:
  """Why `first_layer` cannot attack the victim; '' where it may.

  D~ W numbers change, D~ = D + 1 with biases; their rows are told apart for
  N < min(D~, W) images. Known before training, and no image is read for it.
  """
  widths = getattr(victims.build(victim_config(config), 1), 'widths', ())
  if config.architecture != 'mlp' or not widths:
    return 'first_layer needs a dense hidden layer.'
  with checks.renamed(name='dataset'):
    size = data_lib.sources.input_size(config.dataset)
  most = min(size + config.use_bias, widths[0]) - 1 if size else np.inf
  return '' if (num := config.num_told or config.num_train) <= most else (
      f'first_layer needs at most {most} training images for inputs of {size} '
      f'numbers and {widths[0]} units, got {num}.')


def _as_recorded(config):
  with checks.renamed(workdir='victim', path='victim'):
    victims.load_victim(config.victim)  # Says what is wrong with the folder.
  recorded = victims.read_config(config.victim)
  fields = {}
  for field in dataclasses.fields(config):
    if field.name not in _VICTIM or field.name == 'data_dir':
      continue
    value, given = (getattr(c, field.name) for c in (recorded, config))
    if given not in (field.default, value):
      raise ValueError(f'`{field.name}` must be {value!r}, as in the record of '
                       f'{config.victim}, got {given!r}.')
    fields[field.name] = value
  return dataclasses.replace(
      config, **fields | {'data_dir': config.data_dir or recorded.data_dir})


def check(config: AttackConfig) -> None:
  """Raises a ValueError for what is wrong before any data is read.

  Args:
    config: by `resolve`.
  """
  infinite = config.regime == 'infinite'
  if infinite:
    _refuse(config, (*set(_VICTIM).difference(_EVERYWHERE), 'victim', *_OWNER),
            'an infinitely wide network')
    with checks.renamed(b_std='kernel_b_std'):
      evaluation.kernel_named(config.kernel, b_std=config.kernel_b_std)
    checks.non_negative('kernel_ridge', config.kernel_ridge)
    checks.at_least('num_train', config.num_train, 2)
  else:
    _refuse(config, _INFINITE, 'a finite network')
    victims.check(victim_config(config))
    checks.non_negative('noise', config.noise)
    checks.within('prune', config.prune, 0, 0.99)
  if config.num_told:
    checks.at_least('num_told', config.num_told, config.num_train)
  checks.one_of('attack', config.attack, table.known(infinite))
  table.check_threat(config.attack, config.threat, infinite)
  if config.attack == 'first_layer' and (why := without_first_layer(config)):
    raise ValueError(f"`attack` must be another than 'first_layer': {why}")
  if not infinite and config.threat in VALUES:
    _refuse(config, _OWNER, 'values alone')
    limits.kernel_fn(victim_config(config))
  for name in ('ratio', *_PRIORS):
    if (value := getattr(config, name)) is not None:
      checks.non_negative(name, value)
  if config.steps is not None:
    checks.at_least('steps', config.steps, 1)
  if (rate := config.attack_learning_rate) is not None:
    checks.positive('attack_learning_rate', rate)
  settings(config)


def _refuse(config, names, what):
  """A ValueError for a flag that would have no effect."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if field.name in names and value != field.default:
      raise ValueError(f'`{field.name}` must be {field.default!r} with {what}; '
                       f'got {value!r}.')


def victim_config(config: AttackConfig) -> victims.VictimConfig:
  """What `config` says of the victim; its regime is unused at infinite width.

  Args:
    config: by `resolve`.
  """
  fields = {name: getattr(config, name) for name in _VICTIM}
  if config.regime == 'infinite':
    fields['regime'] = 'standard'
  return victims.VictimConfig(**fields)


def settings(config: AttackConfig) -> Any:
  """The `Config` of the attack, with the flags that are given.

  Raises:
    ValueError: a flag that the attack does not have.
  """
  base = table.ATTACKS[config.attack].settings(config.regime == 'infinite')
  given = {}
  for flag, field in (*_SETTINGS.items(), *zip(_PRIORS, _PRIORS)):
    if (value := getattr(config, flag)) is None:
      continue
    where = base if flag in _SETTINGS else getattr(base, 'prior', ())
    if field not in getattr(where, '_fields', ()):
      raise ValueError(
          f'`{flag}` must be unset with the attack {config.attack}, which has '
          f'no such option; got {value!r}.')
    given[flag] = value
  prior = {name: given.pop(name) for name in _PRIORS if name in given}
  given = {_SETTINGS[flag]: value for flag, value in given.items()}
  if prior:
    given['prior'] = base.prior._replace(**prior)
  if config.threat in VALUES or config.regime == 'infinite':
    given['dtype'] = config.dtype
  return base._replace(**given | _options(config, base))


def _options(config, base) -> dict[str, Any]:
  """The flag `options`, each value of the type of its field."""
  kinds, found = options.kinds(type(base)), {}
  for name, text in options.split(config.options):
    if name not in kinds:
      raise ValueError(f'`options` must be name=value of {config.attack}, with '
                       f'names among {", ".join(kinds)}; got {name!r}.')
    found[name] = options.parse(name, text, kinds[name])
  return found


def run(
    config: AttackConfig, released: Released,
    workdir: str | os.PathLike | None, *,
    kernel_fn: KernelFn | None = None, norm_squared: float = 0.0,
    on_chunk: Callable | None = None) -> tuple[Reconstruction, float]:
  """The reconstruction, and the seconds that the attack took.

  Args:
    config: by `resolve`, after `check`.
    released: what the attacker gets.
    workdir: the attack is saved in its folder `attack` and goes on from there;
      None keeps it in memory.
    kernel_fn: of the public architecture at infinite width; None where
      parameters are released.
    norm_squared: of its function, told if the threat is `parameters`.
    on_chunk: (step, candidates, seconds so far) between chunks; what it takes
      does not count.

  Raises:
    ValueError: the folder has an attack with other flags, or the attack
      refuses the case.
  """
  folder = None if workdir is None else pathlib.Path(workdir) / 'attack'
  chosen = settings(config)
  if folder is not None:
    _claim(folder, config)
  keywords = {} if kernel_fn is None else {'kernel_fn': kernel_fn}
  if keywords and config.threat == 'parameters':
    chosen = chosen._replace(norm_squared=norm_squared)
  watch = stopwatch_lib.Stopwatch(folder)

  def look(step, candidates):
    seconds = watch.save()
    stop = None
    if on_chunk is not None:
      stop = on_chunk(step, candidates, seconds)
      watch.leave_out(watch.seconds - seconds)
    return stop

  key = jax.random.key(config.attack_seed)
  found = table.ATTACKS[config.attack].reconstruct(
      key, released, chosen, workdir=folder, on_chunk=look, **keywords)
  return found, watch.save(now=True)


def _claim(folder, config) -> None:
  """Notes the flags of an attack; refuses a folder that has others."""
  fields = {f.name for f in dataclasses.fields(AttackConfig)}
  flags = {name: value for name, value in json.loads(
      loop.config_fingerprint(config)).items()
           if name in fields - {'data_dir', 'max_steps'}}
  path = folder / 'flags.json'
  if path.exists():
    old = json.loads(path.read_text('utf-8'))
    differ = '; '.join(
        f'`{name}` was {old.get(name)!r}, is {flags[name]!r}'
        for name in sorted(flags) if old.get(name) != flags[name])
    if differ:
      raise ValueError(f'`workdir` has an attack with other flags: {differ}. '
                       'Choose another, or start over by `--fresh`.')
  folder.mkdir(parents=True, exist_ok=True)
  with records.replacing(path) as part:
    part.write_text(json.dumps(flags, indent=2), encoding='utf-8')

