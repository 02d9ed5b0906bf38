"""A worker of `local`: makes the jobs that come through a pipe.

  python -m dsr.runs.engines.worker <file descriptor of the pipe>
"""
from multiprocessing import connection
import os
import signal
import sys
import threading
import time

from dsr.runs.engines import task

_BEAT = 5.0  # Seconds between two looks whether there is anybody left.


def main(descriptor: int) -> None:
  """Makes jobs until the pipe is closed; ends with 130 after Ctrl-C."""
  signal.signal(signal.SIGINT, signal.default_int_handler)  # Under nohup too.
  threading.Thread(
      target=_watch, args=(os.getppid(),), daemon=True).start()
  with connection.Connection(descriptor) as pipe:
    try:
      while True:
        pipe.send(task.do(pipe.recv()))
    except (EOFError, BrokenPipeError):
      return
    except KeyboardInterrupt:  # Stopped by the engine, which knows.
      sys.exit(128 + signal.SIGINT)


def _watch(parent: int) -> None:
  """Stops the running job, as Ctrl-C does, once nobody waits for it."""
  while os.getppid() == parent:
    time.sleep(_BEAT)
  os.kill(os.getpid(), signal.SIGINT)


if __name__ == '__main__':
  main(int(sys.argv[1]))
