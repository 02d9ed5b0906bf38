"""Runs a function in several processes of this machine, over loopback.

  python -m tests.hosts <address> <processes> <process> <function> <args>
"""
import importlib
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(function: str, num: int, *args: str, timeout: float = 300,
        **environment: str) -> list[str]:
  """What each process wrote to stdout; fails if one does not end with 0.

  Args:
    function: 'package.module:name', which gets `args`.
    num: of the processes; 1 is one without any connection.
    *args: strings.
    timeout: in seconds.
    **environment: more variables of it.
  """
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    port = found.getsockname()[1]
  processes = [subprocess.Popen(
      [sys.executable, '-m', 'tests.hosts', f'127.0.0.1:{port}', str(num),
       str(i), function, *args],
      cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu',
           **environment}) for i in range(num)]
  try:
    told = [process.communicate(timeout=timeout) for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, (_, err) in zip(processes, told):
    assert process.returncode == 0, err[-4000:]
  return [out for out, _ in told]


def main(address, num, process, function, *args):
  import jax

  from dsr.runs import distributed

  jax.config.update('jax_enable_x64', True)
  if int(num) > 1:
    distributed.start(distributed.Flags(address, num, process))
  module, name = function.split(':')
  getattr(importlib.import_module(module), name)(*args)


if __name__ == '__main__':
  main(*sys.argv[1:])
