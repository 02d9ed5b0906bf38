"""What else the machine is doing."""
import os

from absl import logging

_QUIET = 0.25  # Load per core above which timings are in doubt.


def load_average() -> float:
  """Processes that wanted to run in the last minute; warns if they are many."""
  load = os.getloadavg()[0]
  if load > _QUIET * os.cpu_count():
    logging.warning(
        'The machine is not quiet (load average %.2f on %d cores): times may '
        'double, and ratios with them.', load, os.cpu_count())
  return load
