"""Runs every iterative method: chunks of steps, progress, stops, resume."""
from dsr.loop.checkpoints import Checkpoints, OtherRun, config_fingerprint
from dsr.loop.parallel import one_of, pick_parallel
from dsr.loop.runner import RunResult, run, run_chunk, stopped_by

__all__ = ['Checkpoints', 'OtherRun', 'RunResult', 'config_fingerprint',
           'one_of', 'pick_parallel', 'run', 'run_chunk', 'stopped_by']
