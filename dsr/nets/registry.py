"""Networks by name, for flags and records: one line each to add another."""
import dataclasses
import functools

from flax import linen as nn

from dsr import checks
from dsr.nets import convnet, mlp, resnet

_BUILDERS = {
    'mlp': functools.partial(mlp.MLP, widths=(1024, 1024)),
    'convnet3': functools.partial(convnet.ConvNet, depth=3, width=128),
    'resnet': functools.partial(resnet.ResNet, depth=8, width=16),
}
NAMES = tuple(_BUILDERS)


def build(name: str, num_outputs: int, **overrides) -> nn.Module:
  """The network called `name` with C = `num_outputs`.

  Args:
    name: one of `NAMES`.
    num_outputs: number of classes, or 1 for labels of +-1.
    **overrides: attributes of its class, e.g. `width=32`.

  Raises:
    ValueError: unknown name (the known are listed) or attribute, or a value
      that the network refuses.
  """
  checks.one_of('name', name, NAMES)
  builder = _BUILDERS[name]
  known = {f.name for f in dataclasses.fields(builder.func)}
  known -= {'num_outputs', 'parent', 'name'}
  for override in overrides:
    checks.one_of(f'option of {name}', override, sorted(known))
  return builder(num_outputs=num_outputs, **overrides)
