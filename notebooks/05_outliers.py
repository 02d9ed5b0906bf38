# %% [markdown]
# # Who is rebuilt first: the outliers
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/05_outliers.ipynb)
#
# **Claim.** What an attack gains by finding training image $j$ is exactly
# $\alpha_j^2/[K^{-1}]_{jj}$, the squared dual coefficient over an entry of the
# inverse kernel matrix. Images that have most of it, the outliers of their
# classes, are rebuilt first.
#
# **Source.** [arXiv:2302.01428](https://arxiv.org/abs/2302.01428) finds that
# reconstructed images tend to be outliers, in experiments and by an argument
# about large coefficients. The exact value below is not in the paper: it is the
# leave-one-out identity of kernel regression, applied to the attack's loss.
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

from dsr import krr
from dsr.attack import match, ntk_limit, outliers
from dsr.attack.drive import drive
from dsr.report import figures, notebook
from dsr.studies.reconstruction import cases, reconstruct, scoring
from dsr.studies.reconstruction.attacks import resolve

jax.config.update('jax_enable_x64', True)
NUM = 40

# %% [markdown]
# ## 1. The value of an image
#
# A network in the kernel regime, trained on $x_1,\dots,x_N$, is
# $f=\sum_i\alpha_i k(x_i,\cdot)$ with $K\alpha=y$. An attacker who has all
# images but the $j$-th, and the best coefficients for them, misses
#
# $$v_j=\min_\beta\Big\|f-\sum_{i\ne j}\beta_i\,k(x_i,\cdot)\Big\|^2
# =\frac{\alpha_j^2}{[K^{-1}]_{jj}}=\alpha_j\,e_j\le\alpha_j^2\,k(x_j,x_j).$$
#
# $e_j=\alpha_j/[K^{-1}]_{jj}$ is the leave-one-out residual: by how much the
# regression on the other images misses the label of $x_j$. So an image is worth
# much if the others do not predict it, which is what an outlier is. All values
# come from one factorisation.
#
# | in the formulas | in the code |
# | --- | --- |
# | $K$, $\alpha$ (for each of ten outputs) | `case.kernel`, `case.duals` |
# | $v_j$, summed over outputs | `outliers.leave_one_out(duals, kernel)` |
# | $e_j$ | $y_j$ less `krr.leave_one_out` |

# %%
case = cases.make_case(resolve(reconstruct.Config(
    dataset='digits', num_train=NUM, regime='infinite')), None)
kernel, duals = case.kernel, case.duals  # (N, N), (N, 10)
value = outliers.leave_one_out(duals, kernel)

targets = np.asarray(case.task.examples.y)


def refitted(j):
  """What is left of |f|² when all images but the j-th are fitted anew."""
  rest = np.arange(NUM) != j
  beta = np.linalg.solve(kernel[np.ix_(rest, rest)], targets[rest])
  return case.norm_squared - np.sum(beta * targets[rest])


by_refits = np.array([refitted(j) for j in range(NUM)])
identity = float(np.abs(value / by_refits - 1).max())
predicted = jax.jit(lambda data: krr.leave_one_out(
    case.kernel_fn, data, ridge=0.0))(case.task.examples)
residual = targets - np.asarray(predicted)
by_residuals = float(np.abs(np.sum(duals * residual, axis=1) / value - 1).max())
bound = float((value / np.sum(duals**2, axis=1) / np.diag(kernel)).max())
print(f'{NUM} refits: largest relative difference {identity:.0e}')
print(f'duals times leave-one-out residuals:      {by_residuals:.0e}')
print(f'value over its bound, largest: {bound:.3f}')
print(f'values over |f|²: {value.min() / case.norm_squared:.4f} to '
      f'{value.max() / case.norm_squared:.4f}')

# %% [markdown]
# ## 2. What the images with most and with least value look like

# %%
images, order = case.task.train.x, np.argsort(-value)
rows = np.stack([images[order[:10]], images[order[-10:]]])
notebook.picture(
    figures.image_grid, rows, ['most', 'least'], title='Value of an image',
    alt='Two rows of ten handwritten digits. Above, those of most value: '
        'unusual shapes of many classes. Below, those of least value: plain '
        'ones.')

# %% [markdown]
# "Outlier" needs a word more. The value does not follow from how far an image is
# from the mean of all images, nor much from how far it is from its neighbours.
# What counts is whether the neighbours have its *label*: an image is worth much
# if the nearest image of its own class is far, compared with the nearest image
# of another class.

# %%
key = jax.random.key(0)
table = outliers.per_image(
    images, np.zeros(NUM), duals=duals, kernel=kernel)
gaps = match.distances(images, images)
np.fill_diagonal(gaps, np.inf)
same = case.task.train.y[:, None] == case.task.train.y
own, other = (np.where(mask, gaps, np.inf).min(axis=1)
              for mask in (same, ~same))
correlations = {name: outliers.rank_correlation(key, value, with_what)
                for name, with_what in (
    ('distance to the mean of all images', table.from_mean),
    ('mean distance to the five nearest images', table.from_neighbours),
    ('distance to the nearest of its class', own),
    ('the same, over that to the nearest of another class', own / other))}
strange = correlations['the same, over that to the nearest of another class']
notebook.table(
    [{'rank correlation of the value with': name,
      'measured': f'{found.value:.2f}',
      '95 % interval': f'[{found.low:.2f}, {found.high:.2f}]'}
     for name, found in correlations.items()],
    ('rank correlation of the value with', 'measured', '95 % interval'))

# %% [markdown]
# ## 3. Who is rebuilt first
#
# The attack `ntk_limit` asks the network for its values only. With half as many
# candidates as there are images it cannot find all of them; which does it find,
# and when? It runs from three random starts. An image counts as found at the
# first look, one every ten steps, at which some candidate is within a root
# mean squared error of 0.05 of it.

# %%
config = ntk_limit.Config(ratio=0.5, steps=1000, dtype='float64')
solver = ntk_limit.ntk_limit(case.released, case.kernel_fn, config)
ever = np.full((3, NUM), np.inf)  # Step at which an image was first there.
for start in range(3):

  def look(step, candidates, start=start):
    gaps = match.distances(images, scoring.to_pixels(case, candidates))
    near = gaps.min(axis=1) < 0.05
    ever[start, near] = np.minimum(ever[start, near], step)

  drive(jax.random.key(start), solver, None, steps=config.steps,
        name='ntk_limit', chunk=10, progress=False, on_chunk=look)
found = np.isfinite(ever)
middle = np.median(ever, axis=0)  # Infinite if missed from two of the starts.
early = outliers.rank_correlation(key, value, middle)
upper = np.isin(np.arange(NUM), order[:NUM // 2])
share_upper, share_lower = found[:, upper].mean(), found[:, ~upper].mean()
print(f'found from starts 0, 1, 2: {found.sum(axis=1)} of {NUM} images, '
      f'with {NUM // 2} candidates')
print(f'of the {NUM // 2} images of most value {share_upper:.0%} of the time, '
      f'of the others {share_lower:.0%}')
print(f'rank correlation of value and step {early.value:.2f} '
      f'[{early.low:.2f}, {early.high:.2f}]')

# %%
notebook.picture(
    figures.scatter, np.tile(value / case.norm_squared, 3),
    np.where(found, ever, 2 * config.steps).ravel(),
    groups=np.repeat(['start 0', 'start 1', 'start 2'], NUM),
    xlabel='value of the image, share of |f|²',
    ylabel='step at which it is first found', log_x=True, log_y=True,
    title='Images of value come first (top row: never found)',
    alt='Scatter plot of the step at which an image is first found against its '
        'value, for three starts. Images of much value are found within a '
        'hundred steps or so; most of those of little value are never found and '
        'stand in a row at the top.')

# %% [markdown]
# ## What this does not say
#
# - The identity is about an attacker who has *all other* images already. Values
#   do not add up: two look-alikes have little value each, since one stands for
#   the other, but much together.
# - That outliers come first is an observation on these forty images and three
#   starts, not a theorem. Descent on a loss that is not convex owes nobody this
#   order, and the attack finds some images of little value too.
# - It is about infinite width, or a linearised network. A finite network that
#   moves its kernel has no such duals, and its order is not measured here.
# - A low value protects nobody: with more candidates than images the same attack
#   finds all of twenty MNIST images (`notebooks/results.md`).
#
# ## Checks

# %%
notebook.verify(
    notebook.Check('value against refits without each image: relative '
                   'difference', identity, most=1e-10),
    notebook.Check('value against dual times leave-one-out residual: relative '
                   'difference', by_residuals, most=1e-8),
    notebook.Check('value over its bound, largest', bound, most=1.0),
    notebook.Check('rank correlation of value and strangeness in the own class: '
                   'lower end', strange.low, least=0.3),
    notebook.Check('rank correlation of value and step of discovery: upper end',
                   early.high, most=0.0),
    notebook.Check('found among the images of more value less among the others, '
                   'share', share_upper - share_lower, least=0.1))
