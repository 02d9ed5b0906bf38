# %% [markdown]
# # Fairness between classes, and how much of it is chance
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/10_fairness.ipynb)
#
# **Claim.** Kernel regression on small random subsets treats classes less evenly
# than on all images, also with the part of chance taken off; on distilled sets of
# the same size it does so less. The spread between the best and the worst class,
# which is usually reported, is above zero even where nothing differs.
#
# **Source.** That distillation amplifies unfairness between classes is a finding
# of [arXiv:2305.03355](https://arxiv.org/abs/2305.03355), in words, for networks
# and other methods; we could not read its numbers, and it has no theorem. It is not
# what we find here. The share of chance below is the
# expected variance of binomial shares, derived here.
#
# **Time on 2 CPU cores.** About a minute.

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
import jax
import numpy as np

from dsr.distill import shadows
from dsr.probes import fairness
from dsr.report import figures, notebook
from dsr.studies.audit import lira, shadow_sets
from dsr.studies.distillation import evaluation, problem as problems

jax.config.update('jax_enable_x64', True)
key = jax.random.key(0)

# %% [markdown]
# ## 1. Accuracies that differ by chance alone
#
# Let $a_g$ be the measured accuracy of class $g$, on $n_g$ test images. If all
# classes had one true accuracy $p$, the measured ones would differ all the same:
#
# $$\mathbb E\,\Big[\frac1{G-1}\sum_g(a_g-\bar a)^2\Big]
# =\frac1G\sum_g\frac{p(1-p)}{n_g}\;>\;0.$$
#
# So a spread says nothing unless it is held against what chance makes.
# `fairness.evaluate` reports the usual numbers, and `between`: the standard
# deviation of the classes' accuracies without that share, zero where nothing
# differs.
#
# We simulate it: thirty-six test images of each of ten classes, as digits has
# them, and a model that is right with probability 0.8 whatever the class.
#
# | in the formulas | in the code |
# | --- | --- |
# | $a_g$ | `accuracy` of a `Fairness` |
# | $\max_g a_g-\min_g a_g$ | `spread` |
# | deviation without chance's share | `between` |

# %%
classes = np.repeat(np.arange(10), 36)


def simulated(seed, shares):
  """Fairness of a model that is right with such a probability in each class."""
  rng = np.random.default_rng(seed)
  right = rng.random(len(classes)) < np.asarray(shares)[classes]
  said = np.where(right, classes, (classes + 1) % 10)
  return fairness.evaluate(
      jax.random.key(seed), classes, said, num_resamples=200)


even, uneven = np.full(10, 0.8), np.linspace(0.6, 1.0, 10)
worlds = {'all classes 80 %': even, '60 % to 100 %': uneven}
drawn = {name: [simulated(seed, shares) for seed in range(60)]
         for name, shares in worlds.items()}
true = {name: (np.ptp(shares), np.std(shares))
        for name, shares in worlds.items()}


def covered(results, value):
  """Share of the intervals of `between` that hold the true one."""
  return float(np.mean([r.between.low <= value <= r.between.high
                        for r in results]))


chance = {name: {
    'spread': float(np.mean([r.spread.value for r in results])),
    'between': float(np.sqrt(np.mean(
        [r.between.value**2 for r in results]))),
    'covered': covered(results, true[name][1])}
          for name, results in drawn.items()}
variance = np.mean([np.var([a.value for a in r.accuracy], ddof=1)
                    for r in drawn['all classes 80 %']])
expected = 0.8 * 0.2 / 36
notebook.table(
    [{'true accuracies': name, 'true spread': f'{true[name][0]:.2f}',
      'measured spread, mean': f'{c["spread"]:.2f}',
      'true deviation': f'{true[name][1]:.3f}',
      'between, root mean square': f'{c["between"]:.3f}',
      'intervals of between that hold it': f'{c["covered"]:.0%}'}
     for name, c in chance.items()],
    ('true accuracies', 'true spread', 'measured spread, mean',
     'true deviation', 'between, root mean square',
     'intervals of between that hold it'))

# %% [markdown]
# A model that treats all classes alike is measured to have a spread of about
# twenty points. `between` has no such offset in its square, and its intervals
# hold the truth about as often as they should.
#
# ## 2. Distilled sets of growing size
#
# From 400 digits: eight sets by kernel inducing points (KIP, sixty steps),
# each of a random half of the images, and eight random subsets of the same sizes;
# and the halves themselves. Kernel regression on each is tested on 360 images.
# Intervals are over sets and test images at once.

# %%
problem = problems.prepare(
    'digits', data_dir=None, transform='standardise', images_per_class=1,
    max_train=400, validation=0, seed=0)
kernel_fn = evaluation.kernel_named('fcn1')
x_test, y_test = np.asarray(problem.inputs(problem.test)), problem.test.y
SIZES = (1, 5, 20)


def decisions(method, size):
  """(8, 360): the classes that kernel regression on eight sets decides on."""
  config = lira.Config(method=method, num_shadows=4, num_targets=4, steps=60)
  sets = shadow_sets.make(config, problem, size)
  outputs = shadows.shadow_outputs(
      kernel_fn, sets.examples, x_test, ridge=config.ridge)
  return outputs.argmax(axis=-1)


said = {(method, size): decisions(method, size)
        for method in ('random', 'kip') for size in SIZES
        if (method, size) != ('kip', 20)}  # 20 is all of a half.

# %%
found = {of: fairness.evaluate(key, y_test, s) for of, s in said.items()}
text = lambda m: f'{100 * m.value:.1f} [{100 * m.low:.1f}, {100 * m.high:.1f}]'
name_of = lambda method, size: (
    'all 200 of the half' if size == 20 else f'{method}, {size} per class')
notebook.table(
    [{'set': name_of(*of), 'accuracy (%)': text(f.mean),
      'worst class (%)': text(f.worst), 'spread': text(f.spread),
      'between': text(f.between)} for of, f in found.items()],
    ('set', 'accuracy (%)', 'worst class (%)', 'spread', 'between'))

# %%
notebook.picture(
    figures.by_group,
    {name_of(*of): (
        f.names, *zip(*((a.value, a.low, a.high) for a in f.accuracy)))
     for of, f in found.items()},
    title='Test accuracy by class, kernel regression',
    alt='Table of test accuracies in percent with intervals, a row for each kind '
        'of set and a column for each of the ten digits, darker where lower. The '
        'row of one random image a class is dark, most of all at 8; those of KIP '
        'and of all images are light.')

# %%
notebook.picture(
    figures.scatter,
    [size for _, size in found],
    [100 * f.between.value for f in found.values()],
    groups=[method for method, _ in found], join=True,
    xlabel='images per class', ylabel='between classes (points of accuracy)',
    title='Unevenness that chance does not explain',
    alt='Two falling lines of the deviation between classes, without the share '
        'of chance, against the number of images a class: random subsets above, '
        'KIP below.')

# %% [markdown]
# ## 3. Is it the size, or the distillation?
#
# `fairness.compare` holds two kinds of sets against each other on the same test
# images, so that what makes an image hard for both falls out.

# %%
def change(of, reference):
  return fairness.compare(key, y_test, said[of], said[reference])


pairs = {
    'random: 1 less 20 per class': (('random', 1), ('random', 20)),
    'KIP: 1 less 5 per class': (('kip', 1), ('kip', 5)),
    'KIP less random, 1 per class': (('kip', 1), ('random', 1)),
    'KIP less random, 5 per class': (('kip', 5), ('random', 5)),
    'KIP, 5 per class, less all of the half': (('kip', 5), ('random', 20))}
changes = {name: change(*pair) for name, pair in pairs.items()}
notebook.table(
    [{'change': name, 'accuracy (points)': text(c.mean),
      'between (points)': text(c.between)} for name, c in changes.items()],
    ('change', 'accuracy (points)', 'between (points)'))

# %% [markdown]
# ## What this does not say
#
# - "Fair" here is equal accuracy over classes of digits. It is not a statement
#   about groups of people, and not about any of the other notions of fairness.
# - That distillation amplifies unfairness is not seen here: KIP with five images a
#   class is as even as all images, as far as 360 test images can tell. It is one
#   method, kernel regression and one data set, so no refutation either.
# - Sets that are more accurate are also more even here. Unevenness at *equal*
#   accuracy would need other experiments.
# - Kernel regression only, one data set; eight sets from halves of the same 400
#   images are not eight data sets.
# - An interval that holds zero does not show that classes are treated alike; with
#   36 test images a class, differences of a few points cannot be seen.
#
# ## Checks

# %%
notebook.verify(
    notebook.Check('simulated, nothing differs: variance between classes over '
                   'that of the formula', float(variance / expected), 0.85, 1.15),
    notebook.Check('simulated, nothing differs: mean spread of accuracy',
                   chance['all classes 80 %']['spread'], least=0.1),
    notebook.Check('simulated, nothing differs: intervals of `between` that '
                   'hold 0', chance['all classes 80 %']['covered'], least=0.85),
    notebook.Check('simulated, classes differ: `between` over the true '
                   'deviation', chance['60 % to 100 %']['between']
                   / true['60 % to 100 %'][1], 0.9, 1.1),
    notebook.Check('random subsets, `between` at 1 per class less at 20: lower '
                   'end', changes['random: 1 less 20 per class'].between.low,
                   least=0.0),
    notebook.Check('`between` of KIP less that of random subsets, 5 per class: '
                   'upper end', changes['KIP less random, 5 per class'
                                        ].between.high, most=0.0),
    notebook.Check('`between` of KIP, 5 per class, less that of all of the half: '
                   'lower end', changes['KIP, 5 per class, less all of the half'
                                        ].between.low, most=0.0))
