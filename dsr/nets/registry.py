"""Networks by name, for flags and records: one line each to add another.

Besides those of the table, ConvNets of any depth are known, 'convnet4', and
all networks with a norm may have another behind their name: 'convnet3_batch',
'vgg11_none'.
"""
import dataclasses
import re
from typing import Any, NamedTuple

from flax import linen as nn

from dsr import checks
from dsr.nets import (
    alexnet,
    convnet,
    efficientnet,
    frepo_convnet,
    lenet,
    mlp,
    resnet,
    resnet18,
    vgg,
)
from dsr.nets.norms import NORMS


class Network(NamedTuple):
  """A line of the table.

  Attributes:
    module: its class, whose attribute `num_outputs` is the number of classes.
    help: in a line.
    options: attributes of the class that are other than its defaults.
  """

  module: type[nn.Module]
  help: str
  options: dict[str, Any] = {}


NETWORKS: dict[str, Network] = {
    'mlp': Network(mlp.MLP, 'two hidden layers of 1024 units',
                   {'widths': (1024, 1024)}),
    'convnet3': Network(
        convnet.ConvNet, 'three convolutions, normed and pooled '
        '(arXiv:2006.05929); convnet<depth> for others',
        {'depth': 3, 'width': 128}),
    'lenet': Network(lenet.LeNet, 'LeNet-5'),
    'alexnet': Network(alexnet.AlexNet, 'AlexNet for small images'),
    'vgg11': Network(vgg.VGG11, 'VGG-11 (arXiv:1409.1556)'),
    'resnet18': Network(resnet18.ResNet18, 'ResNet-18 (arXiv:1512.03385)'),
    'resnet': Network(resnet.ResNet, 'a small residual network',
                      {'depth': 8, 'width': 16}),
    'efficientnet_lite0': Network(
        efficientnet.EfficientNetLite0,
        'EfficientNet-Lite0 (arXiv:1905.11946)'),
    'frepo_convnet': Network(
        frepo_convnet.FRePoConvNet, 'three convolutions of 128, 256 and 512 '
        'channels (arXiv:2206.00719)'),
}


def names() -> tuple[str, ...]:
  """Of all networks of the table."""
  return tuple(NETWORKS)


def describe() -> str:
  """The networks, a line each, for `--help`."""
  return '\n'.join(['networks:', *(
      f'  {name}: {network.help}' for name, network in NETWORKS.items())])


def build(name: str, num_outputs: int, **overrides) -> nn.Module:
  """The network called `name` with C = `num_outputs`.

  Args:
    name: one of `names()`, or of their kin in the module's text.
    num_outputs: number of classes, or 1 for labels of +-1.
    **overrides: attributes of its class, e.g. `width=32`.

  Raises:
    ValueError: unknown name (the known are listed) or attribute, or a value
      that the network refuses.
  """
  network, given = _parse(name)
  known = sorted(_attributes(network))
  for override in overrides:
    checks.one_of(f'option of {name}', override, known)
  return network.module(
      num_outputs=num_outputs, **(network.options | given | overrides))


def check_name(name: str) -> None:
  """Raises ValueError unless `build` knows `name`."""
  _parse(name)


def _parse(name):
  """(line of the table, attributes that the name gives)."""
  stem, underscore, norm = name, '', ''
  if name not in NETWORKS:
    stem, underscore, norm = _split(name)
  given = {}
  if depth := re.fullmatch(r'convnet(\d+)', stem):
    stem, given['depth'] = 'convnet3', int(depth[1])
  if stem not in NETWORKS:
    checks.one_of('name', name, NETWORKS)
  network = NETWORKS[stem]
  if underscore:
    if 'norm' not in _attributes(network):
      raise ValueError(f'`name` must be {stem}, which has no norm; got {name}.')
    checks.one_of(f'norm of {stem}', norm, NORMS)
    given['norm'] = norm
  return network, given


def _split(name):
  """(network, '_', norm) of 'network_norm', whose network may have '_' too."""
  for known in NETWORKS:
    if name.startswith(f'{known}_'):
      return known, '_', name.removeprefix(f'{known}_')
  return name.partition('_')


def _attributes(network):
  return {f.name for f in dataclasses.fields(network.module)} - {
      'num_outputs', 'parent', 'name'}
