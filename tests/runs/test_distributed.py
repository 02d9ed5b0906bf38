"""How processes are told of each other: flags, torchrun's variables."""
import pytest

from dsr.runs import distributed
from dsr.runs.distributed import Flags

TORCH = {'MASTER_ADDR': '10.0.0.1', 'MASTER_PORT': '29500', 'WORLD_SIZE': '4',
         'RANK': '2'}


def test_flags_come_first_then_the_variables_of_torchrun():
  given = Flags('host:1', '2', '0')
  assert distributed.resolve(given, TORCH) == given
  assert distributed.resolve(Flags(), TORCH) == Flags(
      '10.0.0.1:29500', '4', '2')
  own = TORCH | {'TORCHELASTIC_USE_AGENT_STORE': 'True'}
  assert distributed.resolve(Flags(), own).coordinator == '10.0.0.1:29501'


def test_one_process_is_left_alone():
  assert not distributed.start(Flags(), {})
  one_of_torch = TORCH | {'WORLD_SIZE': '1', 'RANK': '0'}
  assert not distributed.start(Flags(), one_of_torch)
  without_rank = {k: v for k, v in TORCH.items() if k != 'RANK'}
  assert not distributed.start(Flags(), without_rank)
  one_of_slurm = {'SLURM_PROCID': '0', 'SLURM_STEP_NUM_TASKS': '1'}
  assert not distributed.start(Flags(), one_of_slurm)


def test_other_flags_are_left():
  found, left = distributed.parse(
      ['krr', '--solver=cg', '--process_id=1', '--num_processes', '2'])
  assert (found, left) == (Flags('', '2', '1'), ['krr', '--solver=cg'])


@pytest.mark.errors
@pytest.mark.parametrize(('flags', 'message'), [
    (Flags('host:1', '2'), '`process_id` must be given with `coordinator` and'),
    (Flags('host', '2', '0'), "`coordinator` must be ADDRESS:PORT, got 'host'"),
    (Flags('host:1', 'two', '0'), "`num_processes` must be an integer.*'two'"),
    (Flags('host:1', '0', '0'), '`num_processes` must be an integer of at'),
    (Flags('host:1', '2', '2'), r'`process_id` must .*2')])
def test_bad_flags_are_named(flags, message):
  with pytest.raises(ValueError, match=message):
    distributed.resolve(flags, {})
