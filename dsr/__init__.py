"""Dataset distillation: security and reconstruction, on the NTK, in JAX.

`import dsr` is light: rooms are loaded when they are first named, and no
import of TensorFlow, neural-tangents or matplotlib happens until a function
that needs it runs.
"""
import importlib

__version__ = '0.1.0'

_ROOMS = ('attack', 'checks', 'data', 'distill', 'kernels', 'krr', 'linalg',
          'loop', 'nets', 'numerics', 'probes', 'report', 'train', 'types')
__all__ = [*_ROOMS, '__version__']


def __getattr__(name):
  if name in _ROOMS:
    return importlib.import_module(f'dsr.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted([*globals(), *_ROOMS])
