"""Runs every iterative method: chunks of steps, progress, stops, resume."""
from dsr.loop.checkpoints import Checkpoints, config_fingerprint
from dsr.loop.parallel import one_of, pick_parallel
from dsr.loop.runner import RunResult, run, run_chunk, stopped_by

__all__ = ['Checkpoints', 'RunResult', 'config_fingerprint', 'one_of',
           'pick_parallel', 'run', 'run_chunk', 'stopped_by']
