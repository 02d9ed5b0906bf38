"""Compiles the stage for this machine, once, into the user's cache folder.

`nvcc` makes it for the GPU and `g++` for the CPU, where it is the reference of
the tests. Nothing is compiled when the package is installed, and nothing at
import: a user without a compiler keeps the kernels of XLA.
"""
import ctypes
import functools
import hashlib
import math
import os
import pathlib
import shutil
import subprocess
import tempfile

import jax

from dsr.kernels import arccos

_HERE = pathlib.Path(__file__).parent
_SOURCES = ('lanes.h', 'columns.h', 'layers.h', 'stage.h', 'ffi.h')
_COMPILERS = {
    'cpu': ('cpu.cc', 'g++',
            ['-O3', '-march=native', '-std=c++17', '-shared', '-fPIC']),
    'cuda': ('cuda.cu', 'nvcc',
             ['-O3', '-std=c++17', '-shared', '-Xcompiler', '-fPIC',
              '-arch=native']),
}
_TIMEOUT = 600  # Seconds.


def compiler(platform: str) -> str | None:
  """Where the compiler for 'cpu' or 'cuda' lies; None if there is none."""
  name = _COMPILERS[platform][1]
  found = shutil.which(name)
  if found is None and platform == 'cuda':
    found = shutil.which('/usr/local/cuda/bin/nvcc')
  return found


@functools.cache
def register(platform: str) -> None:
  """Compiles if need be, and tells XLA of the targets.

  Raises:
    RuntimeError: there is no compiler, or it failed; with its last lines.
  """
  library = ctypes.CDLL(str(_library(platform)))
  names = [f'dsr_stage_{way}_{dtype}' for way in ('forward', 'backward')
           for dtype in ('float32', 'float64')]
  for name in names:
    jax.ffi.register_ffi_target(
        name, jax.ffi.pycapsule(getattr(library, name)),
        platform='CUDA' if platform == 'cuda' else 'cpu')


def _library(platform: str) -> pathlib.Path:
  source, name, flags = _COMPILERS[platform]
  program = compiler(platform)
  if program is None:
    raise RuntimeError(f'`{name}` is needed to compile {source}, and is not '
                       'there.')
  if platform == 'cuda' and 'DSR_CUDA_ARCH' in os.environ:
    flags = [*flags[:-1], f'-arch={os.environ["DSR_CUDA_ARCH"]}']
  texts = {s: (_HERE / s).read_text() for s in (*_SOURCES, source)}
  texts['coefficients.h'] = _coefficients()
  digest = hashlib.sha256(repr(
      (sorted(texts.items()), program, flags, jax.__version__,
       _machine())).encode()).hexdigest()[:16]
  folder = pathlib.Path(
      os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser() / 'dsr'
  target = folder / f'stage_{platform}_{digest}.so'
  if target.exists():
    return target
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=folder) as work:
    for file, text in texts.items():
      (pathlib.Path(work) / file).write_text(text)
    made = pathlib.Path(work) / 'stage.so'
    run = subprocess.run(
        [program, *flags, f'-I{jax.ffi.include_dir()}', source,
         '-o', made.name],
        cwd=work, capture_output=True, text=True, timeout=_TIMEOUT)
    if run.returncode:
      raise RuntimeError(f'`{program}` failed on {source}:\n'
                         + (run.stderr or run.stdout)[-2000:])
    made.rename(target)
  return target


def _machine():
  """What `-march=native` depends on."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return ''
  return next((line for line in lines if line.startswith('flags')), '')


def _coefficients() -> str:
  """The polynomials of `arccos`, times 2 / pi, as C++ in Horner's form."""
  out = ['#pragma once', '#include "lanes.h"']
  for name, table in (('angle', arccos._ANGLE), ('bend', arccos._BEND)):
    for kind, dtype in (('float', 'float32'), ('double', 'float64')):
      *rest, last = (f'{kind}({2 / math.pi * c!r})' for c in table[dtype])
      body = f'Lane<{kind}>({last})'
      for value in reversed(rest):
        body = f'({body} * w\n      + {value})'
      out += [f'DEVICE Lane<{kind}> {name}_polynomial(Lane<{kind}> w) {{',
              f'  return {body};', '}']
  return '\n'.join(out) + '\n'
