"""The audit of DP-SGD in one run: it notices noise that is missing."""
import dataclasses
import re

import jax
import numpy as np
import pytest

from dsr.runs import records
from dsr.studies.audit import canaries
from dsr.studies.distillation.problem import prepare

SMALL = canaries.Config(
    dataset='digits[0,3,8]', max_train=60, num_canaries=40,
    dp_epsilon=0.5, steps=6, batch_size=50)


@pytest.mark.slow
def test_missing_noise_refutes_the_guarantee(tmp_path, capsys):
  metrics = canaries.run(dataclasses.replace(
      SMALL, noise_scale=1e-3, workdir=str(tmp_path)))
  assert metrics['epsilon_upper'].value <= 0.5
  assert metrics['epsilon_lower'].value > 1
  assert metrics['canary_auc'].value > 0.9
  record, arrays = records.read(tmp_path), np.load(tmp_path / 'canaries.npz')
  assert record['extra']['refuted']
  assert 'python -m experiments.canaries' in record['command']
  assert arrays['score'].shape == arrays['included'].shape == (40,)
  assert 'refuted: noise was taken away on purpose' in capsys.readouterr().out


def test_wrong_labels_may_be_absent_and_all_others_take_part():
  problem = prepare(
      SMALL.dataset, data_dir=None, transform='standardise',
      images_per_class=1, max_train=60, validation=0, seed=0)
  included = np.arange(40) < 15
  data, who, _ = canaries._mislabelled(
      SMALL, jax.random.key(0), problem, None, included)
  wrong = np.asarray(data.y).argmax(1) != problem.train.y
  assert wrong.sum() == 40
  assert (~who.present).sum() == 25
  assert wrong[~who.present].all()
  assert len(who.coordinates) == 0


def test_the_sentence_says_both_bounds():
  metric = records.metric
  metrics = {'num_correct': metric(47), 'num_guesses': metric(50),
             'epsilon_lower': metric(9.0), 'epsilon_upper': metric(8.0)}
  assert 'at least 9' in canaries.told(SMALL, metrics)
  assert 'a fault in the training' in canaries.told(SMALL, metrics)
  metrics['epsilon_lower'] = metric(1.5)
  assert 'refuted' not in canaries.told(SMALL, metrics)


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'num_canaries': 1}, '`num_canaries` must be an integer of at least 2'),
    ({'num_guesses': '3'}, '`num_guesses` must be even numbers from 2 to 40'),
    ({'num_guesses': '42'}, 'from 2 to 40 with commas between them, got'),
    ({'dp_epsilon': 0.0}, '`dp_epsilon` must be'),
    ({'noise_scale': 0.0}, '`noise_scale` must be positive'),
    ({'level': 1.0}, '`level` must be between 0 and 1'),
    ({'network': 'bogus'}, '`network` must be one of'),
    ({'transform': 'bogus'}, '`transform` must be one of'),
    ({'steps': 0}, '`steps` must be an integer'),
])
def test_bad_flags_are_named_before_data_are_read(changes, message):
  config = dataclasses.replace(SMALL, dataset='absent', **changes)
  with pytest.raises(ValueError, match=re.escape(message)):
    canaries.run(config)
