"""What a way to a distilled set is, to the commands that run it."""
from collections.abc import Callable
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np
import optax

from dsr.runs import options as options_lib
from dsr.studies.distillation.problem import Problem
from dsr.types import Examples, Status

# For the flags that are unset, where a method has no value of its own.
UNSET = {'steps': 1000, 'learning_rate': 0.04, 'batch_size': 5000,
         'keep': 'best', 'augment': 'none', 'validation': 0.1}


class Learned(NamedTuple):
  """What a method hands back.

  Attributes:
    examples: inputs (S, ...) after the transform, and targets (S, C).
    steps: at which the validation accuracy was taken.
    accuracy: that accuracy.
    loss: of every step.
    status: how the method ended.
    seconds: that it took, over all sessions; None: as long as the call.
    labels: classes, where not those of the start.
    info: more for the record; never changed.
    arrays: more for `distilled.npz`; never changed.
    student_rate: learning rate of SGD that was learned with the set, for
      networks that are trained on it by SGD; None of most methods.
  """

  examples: Examples
  steps: np.ndarray
  accuracy: np.ndarray
  loss: np.ndarray
  status: Status
  seconds: float | None = None
  labels: np.ndarray | None = None
  info: dict[str, Any] = {}
  arrays: dict[str, Any] = {}
  student_rate: float | None = None


class Method(NamedTuple):
  """A way to a distilled set; a line of the table.

  Attributes:
    run: (config, kernel_fn, problem, baseline) -> Learned, where config is an
      `experiments.distill.Config`, resolved, and baseline the random subset.
    help: in a line.
    unset: values of the flags that are None or 'auto' by default, where they
      are not those of `UNSET`. `validation` is 0 where nothing is picked, or
      looked at, on a validation split: all training images then count.
    reads: flags that only some methods read; others must be left alone.
    options: NamedTuple of its own options, all with defaults, that the flag
      `options` sets; `options_of` has them.
    check: raises a ValueError for what is wrong with a config.
    check_data: (config, problem), for what is wrong with the data, before any
      step.
    from_noise: whether images can start from noise (`init`).
    networks: config -> flags that name a network which sees the images.
    of_data: config -> values of such flags that depend on the data set; they
      come before `unset`.
    uneven: whether classes may have sizes of their own (`class_sizes`).
    own_network: (network, protocol) that its authors judge a set by, which then
      is trained on it as well, whatever the flags name.
  """

  run: Callable[..., Learned]
  help: str
  unset: dict[str, Any] = {}
  reads: frozenset[str] = frozenset()
  options: type | None = None
  check: Callable[[Any], None] = lambda config: None
  check_data: Callable[[Any, Problem], None] = lambda config, problem: None
  from_noise: bool = False
  networks: Callable[[Any], tuple[str, ...]] = lambda config: ()
  of_data: Callable[[Any], dict[str, Any]] = lambda config: {}
  uneven: bool = False
  own_network: tuple[str, str] | None = None

  def values(self, config: Any) -> dict[str, Any]:
    """Of all flags that are None or 'auto' by default."""
    return UNSET | self.unset | self.of_data(config)


def unlearned(examples: Examples, began: float | None = None,
              **more: Any) -> Learned:
  """A result of no steps, such as a choice of images.

  Args:
    examples: the set.
    began: when the method began, of `time.monotonic`.
    **more: other attributes.
  """
  none = np.zeros(0)
  if began is not None:
    more['seconds'] = time.monotonic() - began
  return Learned(examples, none, none, none, Status.FINISHED, **more)


def family(dataset: str) -> str:
  """'digits', 'mnist' or 'cifar': whose published values suit `dataset`.

  Rates of pixels belong to a data set. Known names and files are told by how
  their name begins; others count as 'mnist', which mirrors nothing.
  """
  name = pathlib.Path(dataset).name
  if name.startswith('digits'):
    return 'digits'
  photographs = ('cifar', 'svhn', 'stl', 'tiny', 'imagenet')
  return 'cifar' if name.startswith(photographs) else 'mnist'


def convnet(dataset: str) -> str:
  """The ConvNet whose gradients a method differentiates again, for `dataset`.

  convnet3, as published, but convnet2 for digits: the third block would
  normalise 2 x 2 pixels there, which ruins such gradients, see BUILD_NOTES.
  """
  return 'convnet2' if family(dataset) == 'digits' else 'convnet3'


def options_of(method: Method, flag: str) -> Any:
  """The method's own options as `flag` has them: name=value, with commas.

  Returns:
    A value of `method.options`; None of a method without.

  Raises:
    ValueError: no such option, or a value of another type.
  """
  kinds = {} if method.options is None else options_lib.kinds(method.options)
  found = {}
  for name, text in options_lib.split(flag):
    if name not in kinds:
      known = ', '.join(kinds) or 'none'
      raise ValueError('`options` must be name=value of the method, whose '
                       f'options are: {known}; got {name!r}.')
    found[name] = options_lib.parse(name, text, kinds[name])
  return None if method.options is None else method.options(**found)


def optimizer(config: Any, make: Callable, *, last: float = 0.02
              ) -> optax.GradientTransformation:
  """`make(rate)` with the rate, or the schedule, of the flags.

  Args:
    config: an `experiments.distill.Config`, resolved.
    make: of a rate or schedule.
    last: share of the rate that a cosine ends at.
  """
  rate = config.learning_rate
  if config.schedule == 'cosine':
    rate = optax.cosine_decay_schedule(rate, config.steps, alpha=last)
  return make(rate)
