"""Runs every iterative method: chunks of steps, progress, stops, resume."""
from dsr.loop.checkpoints import Checkpoints, config_fingerprint
from dsr.loop.runner import RunResult, run, run_chunk, stopped_by

__all__ = ['Checkpoints', 'RunResult', 'config_fingerprint', 'run',
           'run_chunk', 'stopped_by']
