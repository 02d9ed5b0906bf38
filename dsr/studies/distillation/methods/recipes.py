"""Recipes belong to data: which of those published a data set is nearest to."""
import pathlib
from typing import Any

_PHOTOGRAPHS = ('cifar', 'stl', 'svhn')


def kind(dataset: str) -> str:
  """'digits' (8 x 8), 'mnist' or 'cifar': the data whose recipe `dataset` gets.

  By its name, or that of the file: colour photographs get the recipe of
  CIFAR-10, the embedded digits their own, and all others that of MNIST.
  """
  name = pathlib.PurePath(dataset).name
  if name.startswith(_PHOTOGRAPHS):
    return 'cifar'
  return 'digits' if name.partition('[')[0] == 'digits' else 'mnist'


def by_kind(**values: Any):
  """config -> the value for the kind of its data, called if it is a function.

  Args:
    **values: of 'digits', 'mnist' and 'cifar'; each a value, or a function of
      the config.
  """
  def pick(config):
    value = values[kind(config.dataset)]
    return value(config) if callable(value) else value

  return pick
