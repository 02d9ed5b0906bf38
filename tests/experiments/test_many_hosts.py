"""Commands over two processes: one record, as of one process."""
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from dsr.runs import records

ROOT = pathlib.Path(__file__).resolve().parents[2]
KRR = ('krr', '--num_train=200', '--kernel=fcn1', '--solver=cg', '--ridge=0.1')
KIP = ('distill', '--images_per_class=1', '--steps=20', '--eval_every=10',
       '--networks=', '--max_train=400', '--validation=0.2')


def _call(folder, num, command, *words):
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    port = found.getsockname()[1]
  processes = []
  for i in range(num):
    variables = {} if num == 1 else {  # As torchrun has them.
        'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
        'WORLD_SIZE': str(num), 'RANK': str(i)}
    processes.append(subprocess.Popen(
        [sys.executable, '-m', f'experiments.{command}', *words,
         f'--workdir={folder}'], cwd=ROOT, text=True,
        env=os.environ | variables, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE))
  told = [process.communicate(timeout=580) for process in processes]
  return [p.returncode for p in processes], told


@pytest.mark.slow
@pytest.mark.parametrize('words', [KRR, KIP], ids=['krr', 'kip'])
def test_two_processes_leave_one_record(tmp_path, words):
  found = []
  for num in (1, 2):
    folder = tmp_path / str(num)
    codes, told = _call(folder, num, *words)
    assert codes == [0] * num, told[0][1][-3000:]
    found.append(records.read(folder)['metrics'])
    assert not list(folder.rglob('*.part'))
  one, two = found
  assert one.keys() == two.keys()
  for name in set(one) - {'method_seconds'}:
    assert two[name] == pytest.approx(one[name], abs=0.02), name


@pytest.mark.errors
@pytest.mark.slow
def test_what_many_processes_cannot_do_is_refused_by_all(tmp_path):
  for words, message in ((('krr',), '`solver` must be cg over many processes'),
                         (('distill', '--method=dm'), '`method` must be kip')):
    codes, told = _call(tmp_path / words[0], 2, *words)
    assert codes == [1, 1]
    assert all(message in err and 'Traceback' not in err for _, err in told)
