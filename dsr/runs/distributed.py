"""Starts `jax.distributed`: one process a host, each with its own devices.

Every host runs the same command. What connects them is given by flags, or by
the environment of `torchrun` (MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK) or of
Slurm's `srun`. CPUs exchange arrays through gloo, over TCP.
"""
import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
import sys

from absl import flags as absl_flags, logging
import jax

from dsr import checks, hosts
from dsr.runs import lock

HELP = """
Many hosts, for commands whose arrays are dealt out to them. The same command
runs on each of them, with one workdir that all can read:
  --coordinator=ADDRESS:PORT  Of the first process.
  --num_processes=P           Of all hosts together.
  --process_id=I              Of this one, from 0 on; 0 writes the results.
                     Unset: from MASTER_ADDR, MASTER_PORT, WORLD_SIZE and RANK,
                     or from Slurm, if `srun` has started several tasks."""
_TORCH = ('MASTER_ADDR', 'MASTER_PORT', 'WORLD_SIZE', 'RANK')
# Seconds without a sign of life after which a process counts as lost, and the
# others end.
HEARTBEAT = 60


@dataclasses.dataclass(frozen=True)
class Flags:
  """Unset: see the environment."""

  coordinator: str = ''
  num_processes: str = ''
  process_id: str = ''


def parse(argv: Sequence[str]) -> tuple[Flags, list[str]]:
  """The flags of this module, and the words that are left.

  Raises:
    absl.flags.Error: one without a value.
  """
  parser = argparse.ArgumentParser(
      add_help=False, allow_abbrev=False, exit_on_error=False)
  for field in dataclasses.fields(Flags):
    parser.add_argument(f'--{field.name}', default='')
  try:
    found, left = parser.parse_known_args(argv[1:])
  except argparse.ArgumentError as error:
    raise absl_flags.Error(str(error)) from error
  return Flags(**vars(found)), [argv[0], *left]


def resolve(flags: Flags, environment: Mapping[str, str]) -> Flags | None:
  """All three, from the flags or else from torchrun's variables.

  Returns:
    None where there is one process, or where Slurm knows.

  Raises:
    ValueError: one of the flags without the others, or with a bad value.
  """
  given = {name: text for name, text in vars(flags).items() if text}
  if not given and all(environment.get(name) for name in _TORCH):
    host, port, num, process = (environment[name] for name in _TORCH)
    # `torchrun` itself listens at that port, where it says so.
    own = environment.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    port = str(int(port) + 1) if own and port.isdigit() else port
    flags = Flags(f'{host}:{port}', num, process)
  elif not given:
    return None
  for name, text in vars(flags).items():
    if not text:
      raise ValueError(f'`{name}` must be given with '
                       f'{" and ".join(f"`{other}`" for other in given)}.')
  host, _, port = flags.coordinator.rpartition(':')
  if not host or not port.isdigit():
    raise ValueError('`coordinator` must be ADDRESS:PORT, got '
                     f'{flags.coordinator!r}.')
  for name in ('num_processes', 'process_id'):
    if not getattr(flags, name).isdigit():
      raise ValueError(f'`{name}` must be an integer of at least 0, got '
                       f'{getattr(flags, name)!r}.')
  num = int(flags.num_processes)
  checks.at_least('num_processes', num, 1)
  checks.within('process_id', int(flags.process_id), 0, num - 1)
  return flags if num > 1 else None


def start(flags: Flags, environment: Mapping[str, str] = os.environ) -> bool:
  """Connects the processes, before anything else of jax; False for one alone.

  Raises:
    ValueError: as `resolve`.
    ConnectionError: the others are not to be reached.
  """
  found = resolve(flags, environment)
  tasks = environment.get('SLURM_STEP_NUM_TASKS', '1')
  if found is None and (tasks == '1' or 'SLURM_PROCID' not in environment):
    return False
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  how = {'cluster_detection_method': 'slurm'} if found is None else {
      'coordinator_address': found.coordinator,
      'num_processes': int(found.num_processes),
      'process_id': int(found.process_id)}
  try:
    jax.distributed.initialize(**how, heartbeat_timeout_seconds=HEARTBEAT)
  except RuntimeError as error:
    reason = str(error).partition('\n')[0]
    raise ConnectionError(f'the processes do not reach each other: {reason}'
                          ) from error
  logging.info('process %d of %d, %d of %d devices', jax.process_index(),
               jax.process_count(), jax.local_device_count(),
               jax.device_count())
  return True


@contextlib.contextmanager
def held(workdir: str | os.PathLike) -> Iterator[None]:
  """`lock.held` by the first process, for all of them.

  Raises:
    BlockingIOError: in every process, if another run has the folder.
  """
  with contextlib.ExitStack() as stack:
    refused = None
    if hosts.is_first():
      try:
        stack.enter_context(lock.held(workdir))
      except BlockingIOError as error:
        refused = error
    if hosts.any_of(refused is not None):
      raise refused or BlockingIOError(
          '`workdir` must have one writer: it is refused to the first process '
          f'({workdir}).')
    yield


def is_lost(error: BaseException) -> bool:
  """Whether `error` says that another process is not to be reached."""
  return hosts.several() and any(word in str(error).lower() for word in (
      'gloo', 'connection', 'timed out', 'heartbeat', 'coordination'))


def end(error: BaseException) -> None:
  """Ends this process at once: to take leave it would wait for the lost."""
  reason = str(error).partition('\n')[0]
  sys.stdout.flush()
  sys.stderr.write(
      f'error: process {jax.process_index()} has lost another one ({reason}); '
      'the same command on all hosts goes on from the last checkpoint\n')
  sys.stderr.flush()
  os._exit(1)
