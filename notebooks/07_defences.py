# %% [markdown]
# # Defences: what they stop, and what they do not
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/07_defences.ipynb)
#
# **Claim.** A network in the kernel regime, released with its start, gives its
# training images back. Noise in the weights, training on distilled images, and
# differentially private training stop that. They are no defence against membership
# inference: with noise in the weights, or little noise in training, errors tell who
# was in the training set as well as before, and on distilled images better than
# chance. Much noise in training is one; it costs nearly all of the accuracy here.
#
# **Source.** The defences are those that the code of
# [arXiv:2302.01428](https://arxiv.org/abs/2302.01428) has as options; frozen
# pixels are from [arXiv:2011.00050](https://arxiv.org/abs/2011.00050), DP-SGD from
# [arXiv:1607.00133](https://arxiv.org/abs/1607.00133), and the warning that
# distillation is no defence of privacy from
# [arXiv:2209.14987](https://arxiv.org/abs/2209.14987). None has a theorem here:
# what follows is measured.
#
# **Time on 2 CPU cores.** About two minutes.

# %%
# Installs dsr where it is missing; does nothing where it is there already.
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec('dsr') is None:
  here = pathlib.Path('../setup.py').exists()
  source = '..' if here else 'git+https://github.com/__owner__/dsr'
  subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source],
                 check=True)

# %%
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dsr import nets, train
from dsr.attack import first_layer, match, release
from dsr.data import map_host
from dsr.probes import intervals, membership, scores
from dsr.report import dots, figures, notebook
from dsr.studies.audit import leaks
from dsr.studies.distillation import distill, problem as problems
from dsr.studies.reconstruction import victims
from dsr.types import Dataset, Examples

jax.config.update('jax_enable_x64', True)
key = jax.random.key(0)

# %% [markdown]
# ## 1. Victims
#
# Twenty digits, two a class, are to be protected. A multilayer perceptron of
# width 256, linearised at its start, is trained on them to the end, or on a set
# of ten images made of them, one a class, by kernel inducing points (KIP):
# plainly, or with nine of ten pixels frozen to noise before the first step.
#
# The attacker knows the weights before and after training. The attack
# (`first_layer`) factorises the change of the first layer,
# $\Delta W=\sum_i x_i\,g_i^\top$, whose signals $g_i$ vanish at the units that an
# image leaves inactive: the factors with exact zeros are the images.
#
# | in the text | in the code |
# | --- | --- |
# | the twenty images | `problem.train` |
# | what the attacker has | `release.parameters(...)` |
# | noise in the weights | `release.with_noise(key, released, deviation)` |
# | frozen pixels | `distill.Config(corruption=0.9)` |

# %%
NUM = 20
recipe = distill.Config(
    method='kip', images_per_class=1, max_train=NUM, validation=0.0, steps=100,
    transform='mean', kernel='fcn1', networks='', keep='last')
made = {'KIP': distill.distil(recipe),
        'KIP 90 % frozen': distill.distil(
            dataclasses.replace(recipe, corruption=0.9))}
problem = made['KIP'].problem
images, test = problem.train.x, problem.test
config = victims.VictimConfig(width=256, num_train=NUM)


def task_of(x, y, labels):
  """The data of a victim: inputs x and targets y, as the set has them."""
  pixels = map_host(problem.transform.invert, np.asarray(x))
  ends = [np.asarray(fn(x, axis=(0, 1, 2)))[None, None] for fn in (
      np.min, np.max)]
  return victims.Task(
      Dataset(pixels, labels, 10, 'set'), test, np.arange(len(pixels)),
      problem.transform, Examples(jnp.asarray(x), jnp.asarray(y)), *ends)


whole = problem.examples(problem.train)
tasks = {'the images': task_of(*whole, problem.train.y)} | {
    name: task_of(*m.learned.examples,
                  np.asarray(m.learned.examples.y).argmax(axis=1))
    for name, m in made.items()}
module = victims.build(config, 10)
theta_0 = module.init(key, whole.x[:1])['params']
trained = {name: train.solve_linearised(module, theta_0, task.examples)
           for name, task in tasks.items()}


def released_of(name):
  task, victim = tasks[name], trained[name]
  return release.parameters(
      module, victim.theta_0, victim.theta_T, linearised=True,
      num_train=len(task.train), input_shape=task.examples.x.shape[1:],
      num_outputs=10, low=task.low, high=task.high)


released = {name: released_of(name) for name in tasks}
NOISE = 1e-3  # Deviation, in every weight.
released['the images, noise 0.001'] = release.with_noise(
    key, released['the images'], NOISE)

# %% [markdown]
# ## 2. Differentially private training
#
# DP-SGD clips the gradient of each image to length 1 and adds noise of deviation
# $\sigma$ to their sum, at each of $T=300$ steps on all twenty images. The network
# is no longer linearised, which DP-SGD does not ask for. Who compares the outcomes
# with and without one image sees two Gaussians $\mu=\sqrt T/\sigma$ apart, so that
# no attack on membership has a larger AUC than $\Phi(\mu/\sqrt2)$
# ([arXiv:1905.02383](https://arxiv.org/abs/1905.02383)).

# %%
STEPS = 300
DEVIATIONS = {'the images, DP-SGD, noise 1': 1.0,
              'the images, DP-SGD, noise 20': 20.0}
for name, deviation in DEVIATIONS.items():
  private = victims.train_victim(dataclasses.replace(
      config, dp_clip=1.0, dp_noise=deviation, learning_rate=0.05 / deviation,
      momentum=0.0, max_steps=STEPS), tasks['the images'])
  released[name] = release.parameters(
      module, private.theta_0, private.theta_T, linearised=False, num_train=NUM,
      input_shape=images.shape[1:], num_outputs=10, low=tasks['the images'].low,
      high=tasks['the images'].high)
ceiling = {name: float(stats.norm.cdf(np.sqrt(STEPS / 2) / deviation))
           for name, deviation in DEVIATIONS.items()}
print({name: round(most, 3) for name, most in ceiling.items()})

# %% [markdown]
# ## 3. What comes back
#
# An image counts as given back if a candidate is within a root mean squared error
# of 0.05 of it (pixels go from 0 to 1); candidates are assigned one to one. For
# comparison: how many images of the set that it *was* trained on come back?

# %%
def attacked(name):
  """(M, 8, 8, 1) candidates in pixels; none if the attack gives up."""
  try:
    found = first_layer.reconstruct(
        key, released[name], first_layer.Config(max_rounds=20, patience=4),
        progress=False)
  except ValueError as error:
    print(f'{name}: {error}')
    return np.zeros((0, *images.shape[1:]))
  return map_host(problem.transform.invert, np.asarray(found.candidates))


candidates = {name: attacked(name) for name in released}

# %%
def outputs(name, pixels):
  """What the released network says about images."""
  own = released[name]
  x = map_host(problem.transform.apply, pixels)
  if not own.linearised:
    return np.asarray(module.apply({'params': own.theta_T}, x))
  return np.asarray(nets.linearize(module, own.theta_0).apply(
      {'params': own.theta_T}, x))


def told(name):
  """Squared errors tell members: RMS of members and of others, and the AUC."""
  labels = np.concatenate([problem.train.y, test.y])
  targets = np.asarray(problems.encoded(Dataset(
      np.concatenate([images, test.x]), labels, 10, 'both')))
  said = outputs(name, np.concatenate([images, test.x]))
  score = scores.negative_squared_error(said, targets)
  return (*(np.sqrt(-part.mean() / 10) for part in (score[:NUM], score[NUM:])),
          membership.evaluate(key, score, np.arange(len(labels)) < NUM).auc)


none = np.zeros((1, *images.shape[1:]))
rows = []
for name in released:
  leak = leaks.score(0, tasks[name.split(',')[0]], images,
                     candidates[name] if len(candidates[name]) else none)
  members, others, auc = told(name)
  right = outputs(name, test.x).argmax(axis=1) == test.y
  rows.append({
      'name': name,
      'given back': intervals.wilson(int((leak.train < 0.05).sum()), NUM),
      'own': (leak.own < 0.05).sum(), 'size': len(leak.own),
      'accuracy': intervals.wilson(int(right.sum()), len(right)),
      'members': members, 'others': others, 'membership': auc})
percent = lambda m: f'{100 * m.value:.0f} [{100 * m.low:.0f}, {100 * m.high:.0f}]'
notebook.table(
    [{'trained on': row['name'],
      'given back of the twenty (%)': percent(row['given back']),
      'of its own set': f'{row["own"]} of {row["size"]}',
      'test accuracy (%)': percent(row['accuracy']),
      'of kernel regression (%)': percent(
          made[row['name']].metrics['krr_accuracy']) if row['name'] in made
          else '',
      'RMS error, members': f'{row["members"]:.3f}',
      'others': f'{row["others"]:.3f}',
      'AUC of membership': f'{row["membership"].value:.2f} '
          f'[{row["membership"].low:.2f}, {row["membership"].high:.2f}]'}
     for row in rows],
    ('trained on', 'given back of the twenty (%)', 'of its own set',
     'test accuracy (%)', 'of kernel regression (%)', 'RMS error, members',
     'others', 'AUC of membership'))

# %%
def nearest(name):
  """For each of the first twelve images the candidate that is nearest."""
  if not len(candidates[name]):
    return np.full((12, *images.shape[1:]), 0.85)
  found = np.clip(candidates[name], 0, 1)
  return found[match.distances(images[:12], found).argmin(axis=1)]


notebook.picture(
    figures.image_grid, np.stack(
        [images[:12]] + [nearest(name) for name in released]),
    ['training images', *released],
    title='The nearest candidate to each image; grey: the attack gave up',
    alt='Rows of twelve digits: training images, and below them the nearest '
        'candidate of the attack for each victim. Those of the network trained '
        'on the images are equal to them by eye; all others are other images, '
        'noise, or grey.')

# %%
notebook.picture(
    dots.intervals,
    {'given back': {r['name']: r['given back'] for r in rows},
     'AUC of membership': {r['name']: r['membership'] for r in rows},
     'test accuracy': {r['name']: r['accuracy'] for r in rows}},
    xlabel='percent', title='Leakage and accuracy',
    alt='Dots with 95 % intervals for six victims: the share of images given '
        'back, the AUC of membership, and the test accuracy. Noise in the '
        'weights stops reconstruction and leaves the other two; distilled '
        'images lower all three; DP-SGD with much noise leaves an AUC and an '
        'accuracy near chance.')

# %% [markdown]
# ## 4. Why that is no defence against membership inference
#
# Reconstruction needs the *exact* shape of $\Delta W$: its rank, and its zeros.
# Little noise hides both. Membership needs the outputs alone: a network that was
# trained to the end is right on its members to many digits, and on others it is
# not. Noise of deviation $\sigma$ in all weights moves an output at $x$ by some
# $\sigma\lVert\nabla_\theta f(x)\rVert$, which stays far below the error on others
# (the columns "RMS error" above), so whoever was in the set is still told apart.
# A distilled set was made so that regression on it fits its members, and fits them
# better than others; a network that learned the set inherits some of that. What
# protects against both attacks is noise that is large against the influence of one
# image, at every step, and that is what costs accuracy.

# %% [markdown]
# ## What this does not say
#
# - "Stops" means: *this* attack found nothing. DP-SGD alone comes with a theorem
#   against all attacks, if its noise is large for the number of steps. Noise of 1 is
#   not: after three hundred steps it promises next to nothing, and the errors tell
#   members as well as without it. Noise of 20 does promise something, and with
#   twenty images leaves little to learn; thousands of images bear it better.
#   [The results](results.md) have budgets.
# - The ceiling of DP-SGD is for one image that is in the set or not, over the noise
#   of training; the AUC beside it compares images within one run.
# - The attack on membership is the weakest there is, the squared error alone,
#   without shadow models. `08_membership` has a stronger one, to which sets of KIP
#   give much more away.
# - Frozen pixels stop both attacks here, and the training of this network as well;
#   kernel regression gets more out of such images.
# - A distilled set is not the images, yet the network gives back the set, and
#   whoever holds the set holds all that a repeated distillation can tell of it.
# - One seed, twenty images, one width, victims in the kernel regime (but for
#   DP-SGD); intervals are over images.
#
# ## Checks

# %%
by_name = {row['name']: row for row in rows}
back = {name: row['given back'] for name, row in by_name.items()}
auc = {name: row['membership'] for name, row in by_name.items()}
accuracy = {name: row['accuracy'].value for name, row in by_name.items()}
notebook.verify(
    notebook.Check('given back without a defence, share: lower end',
                   back['the images'].low, least=0.6),
    notebook.Check('given back at noise 0.001, upper end',
                   back['the images, noise 0.001'].high, most=0.25),
    notebook.Check('given back by KIP, upper end', back['KIP'].high, most=0.25),
    notebook.Check('given back by KIP with frozen pixels, upper end',
                   back['KIP 90 % frozen'].high, most=0.25),
    notebook.Check('given back by DP-SGD with noise 1, upper end',
                   back['the images, DP-SGD, noise 1'].high, most=0.25),
    notebook.Check('images of KIP\'s own set that come back', by_name['KIP']['own'],
                   least=8),
    notebook.Check('AUC of membership at noise 0.001, lower end',
                   auc['the images, noise 0.001'].low, least=0.9),
    notebook.Check('RMS error of members over that of others, noise 0.001',
                   float(by_name['the images, noise 0.001']['members']
                         / by_name['the images, noise 0.001']['others']),
                   most=0.5),
    notebook.Check('AUC of membership, DP-SGD with noise 20, lower end, less the '
                   'ceiling of its theorem',
                   auc['the images, DP-SGD, noise 20'].low
                   - ceiling['the images, DP-SGD, noise 20'], most=0.0),
    notebook.Check('AUC of membership on KIP, lower end', auc['KIP'].low,
                   least=0.5),
    notebook.Check('accuracy that noise 0.001 costs', accuracy['the images']
                   - accuracy['the images, noise 0.001'], -0.05, 0.05))
