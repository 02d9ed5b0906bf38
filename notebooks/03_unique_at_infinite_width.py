# %% [markdown]
# # At infinite width the whole training set comes back
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/03_unique_at_infinite_width.ipynb)
#
# **Claim.** An infinitely wide network that was trained to the end gives its
# whole training set back, exactly, to an attacker who may only ask for its
# outputs. Without biases each image comes back up to a positive factor.
#
# **Source.** Theorem 1 of [arXiv:2302.01428](https://arxiv.org/abs/2302.01428):
# in the infinite width regime the entire training set can provably be
# recovered. The edge of it, kernels without biases, is worked out here.
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
import jax.numpy as jnp
import numpy as np

from dsr.attack import match, ntk_limit
from dsr.report import figures, notebook
from dsr.studies.reconstruction import cases, reconstruct, scoring
from dsr.studies.reconstruction.attacks import resolve

jax.config.update('jax_enable_x64', True)
NUM = 20

# %% [markdown]
# ## 1. Why the training set is determined
#
# Training to the end gives $f_T-f_0=\sum_{i=1}^N\alpha_i\,k(x_i,\cdot)$ with the
# neural tangent kernel $k$. Suppose that other images $\hat x_j$ with
# coefficients $\hat\alpha_j$ give the same function. Then
#
# $$\sum_i\alpha_i\,k(x_i,\cdot)-\sum_j\hat\alpha_j\,k(\hat x_j,\cdot)=0,$$
#
# a linear relation between kernel functions at different points. If the kernel
# matrix of any different points is invertible, there is none: the points and
# coefficients agree (as measures, see `02_attack_is_mmd`). So the squared
# distance of the two functions has one zero, the training set.
#
# Without biases a network of ReLUs is homogeneous, $k(cx,x')=c\,k(x,x')$ for
# $c>0$. Then $x$ and $cx$ give linearly dependent functions, the kernel matrix
# of the two is singular, and $(x,\alpha)$ cannot be told from $(cx,\alpha/c)$.
# With biases the kernel acts on $[x;1]$, whose second part fixes the length.
#
# | in the formulas | in the code |
# | --- | --- |
# | $k$, one hidden layer, biases of deviation 0.1 or 0 | `kernels.fcn(1, b_std=...)`, `case.kernel_fn` |
# | $x\mapsto f_T(x)-f_0(x)$ | `case.released.query` |
# | $\hat x_j$ | `found.candidates` |

# %%
def made(b_std):
  """The infinitely wide network with such biases, trained on the images."""
  return cases.make_case(resolve(reconstruct.Config(
      dataset='digits', num_train=NUM, regime='infinite', kernel='fcn1',
      kernel_b_std=b_std)), None)


case_of = {0.1: made(0.1), 0.0: made(0.0)}  # With and without biases.
factors = {'1/4': 0.25, '1/2': 0.5, '2': 2.0, '4': 4.0}


def moved(case):
  """The loss once the first image is c x and its coefficient alpha / c.

  Relative to |f|²; the other images and coefficients are the true ones.
  """
  x = jnp.asarray(case.task.examples.x[:1])
  points = jnp.concatenate([x, *(c * x for c in factors.values())])
  k = np.asarray(jax.jit(lambda z: case.kernel_fn(z))(points))
  left = [k[0, 0] - 2 * k[0, j] / c + k[j, j] / c**2
          for j, c in enumerate(factors.values(), start=1)]
  return np.array(left) * np.sum(case.duals[0]**2) / case.norm_squared


ray = {b_std: np.abs(moved(case)) for b_std, case in case_of.items()}
notebook.table(
    [{'biases': 'with' if b_std else 'without'} |
     {f'c = {c}': f'{loss:.1e}' for c, loss in zip(factors, losses)}
     for b_std, losses in ray.items()],
    ('biases', *(f'c = {c}' for c in factors)))

# %% [markdown]
# The loss, relative to $\|f\|^2$. Without biases it does not see that the first
# image was made four times as long, or four times as short: it stays at zero, to
# rounding. With biases of deviation 0.1 it does.
#
# ## 2. With biases: twenty of twenty
#
# Twenty digits of ten classes. The attacker knows that there are at most twenty
# images of 8 x 8 pixels, the architecture, and the answers to queries. Forty
# candidates start as noise. They are moved by the gradient of the loss without
# coefficients, $\|f\|^2-v^\top\hat K^{-1}v$, $v=f(\hat X)$.

# %%
def attacked(case):
  """(what the attack found, the candidates at each look)."""
  looks = []
  found = ntk_limit.reconstruct(
      jax.random.key(0), case.released,
      ntk_limit.Config(
          steps=1000, ratio=2.0, restart_every=0, dtype='float64'),
      kernel_fn=case.kernel_fn, progress=False,
      on_chunk=lambda step, z: looks.append((step, z)) and None)
  return found, looks


case = case_of[0.1]
found, looks = attacked(case)
images = case.task.train.x
score = match.score(images, scoring.to_pixels(case, found.candidates))
print(f'{score.recovered[0.01]} of {NUM} images below an error of 0.01; '
      f'largest error {score.rmse.max():.1e} (pixels go from 0 to 1)')

# %%
last = match.distances(images, scoring.to_pixels(case, looks[-1][1]))
chosen = match.assign(last).candidate  # The truth orders the pictures only.


def in_tens(*rows):
  """Rows of twenty images as twice as many rows of ten, for small screens."""
  shape = images.shape[1:]
  return np.stack(rows).reshape(-1, 2, 10, *shape).swapaxes(0, 1).reshape(
      -1, 10, *shape)


def frame(step, candidates):
  """One picture: training images above the candidates that become them."""
  pixels = scoring.to_pixels(case, candidates)
  near = (match.distances(images, pixels).min(axis=1) < 0.01).sum()
  rows = in_tens(images, np.clip(pixels[chosen], 0, 1))
  return (rows, 2 * ['training', 'candidates']), {
      'title': f'step {step:4d}: {near:2d} of {NUM} images below 0.01'}


notebook.animation(
    figures.image_grid, [frame(*look) for look in looks], seconds=0.5,
    hold=3.0,
    alt='Animation in two pairs of rows. In the upper one of each, ten training '
        'images, fixed. In the lower one, ten candidates: noise at first, they '
        'turn into the images above them one after the other; at the last step '
        'all are equal.')

# %%
curve = [(step, match.distances(
    images, scoring.to_pixels(case, z)).min(axis=1)) for step, z in looks]
steps = np.array([step for step, _ in curve])
errors = np.array([error for _, error in curve])
notebook.picture(
    figures.loss_curve,
    {'worst image': (steps, errors.max(axis=1)),
     'median image': (steps, np.median(errors, axis=1)),
     'best image': (steps, errors.min(axis=1))},
    xlabel='step of the attack', ylabel='error of the nearest candidate (RMSE)',
    log=True, title='All twenty images fall until the rate of the descent ends',
    alt='Curves of the error of the worst, the median and the best image over '
        'the steps, on a logarithmic axis. All three fall, one after the '
        'other, from 0.3 to about one in a million.')

# %% [markdown]
# ## 3. Without biases: every image up to its length
#
# The same attack on the same network without biases. Now the loss is zero on
# whole rays. Inputs are pixels less their mean, so that a ray starts at the mean
# grey, and what the answers determine is the *direction* of each image; where on
# the ray a candidate stops is left to chance.
#
# The direction is compared by the distance of two vectors of length 1, an angle
# in radians.

# %%
bare = case_of[0.0]
bare_found, bare_looks = attacked(bare)
flat = lambda z: np.asarray(z).reshape(len(z), -1)
length = lambda z: np.linalg.norm(flat(z), axis=1)
unit = lambda z: flat(z) / length(z)[:, None]
raw = bare_looks[-1][1]  # Where the descent stopped.
angles = np.linalg.norm(
    unit(bare.task.examples.x)[:, None] - unit(raw), axis=-1)
nearest, angle = angles.argmin(axis=1), angles.min(axis=1)
times = length(raw)[nearest] / length(bare.task.examples.x)
as_found = match.score(images, scoring.to_pixels(bare, raw))
stretched = match.score(
    images, scoring.to_pixels(bare, bare_found.candidates))
print(f'{(angle < 1e-4).sum()} of {NUM} directions within 1e-4 rad, the worst '
      f'{angle.max():.0e}')
print(f'lengths: {times.min():.2f} to {times.max():.2f} times the true ones')
print(f'below an error of 0.01: {as_found.recovered[0.01]} of {NUM} images where '
      f'the descent stopped, {stretched.recovered[0.01]} once stretched')

# %% [markdown]
# "Stretched" is what the attack returns (`scale.fill_range`): if lengths mean
# nothing, each candidate is made as long as the range of pixels allows. That is
# a guess, and here the right one for every image, since each of these digits has
# a pixel of pure black or white. It is not the network that told.

# %%
last = match.distances(
    images, scoring.to_pixels(bare, bare_found.candidates))
best = bare_found.candidates[match.assign(last).candidate]
notebook.picture(
    figures.image_grid,
    np.clip(in_tens(images, scoring.to_pixels(bare, raw[nearest]),
                    scoring.to_pixels(bare, best)), 0, 1),
    2 * ['training', 'as found', 'stretched'],
    title='Without biases the contrast is open, and nothing else',
    alt='Three rows of ten digits, twice: the training images; what the descent '
        'found, the same shapes with a contrast that is off by up to a half; '
        'and the same after stretching, equal to the training images by eye.')

# %% [markdown]
# ## What this does not say
#
# - It is about infinite width, or a linearised network with such a kernel. At
#   finite width the answers differ from those of the limit by $1/\sqrt W$, and
#   the training set is no exact zero of the loss any more.
# - A unique zero is not an easy one. That descent finds it, all twenty of
#   twenty, is measured here for one seed and one data set; there were
#   twice as many candidates as images.
# - Training must be to the end. Stopped early, or with a ridge, the network is
#   still a sum of kernel functions at the training images, but with other
#   coefficients; we do not show that case here.
# - Two equal images, or an image with coefficient zero, cannot come back as two
#   or at all.
# - Lengths are open without biases *to the network's answers*. An attacker who
#   knows more of the images, as here the range of their pixels, may close them.
#
# ## Checks

# %%
notebook.verify(
    notebook.Check('with biases: images below an error of 0.01',
                   score.recovered[0.01], NUM, NUM),
    notebook.Check('with biases: largest error of an image',
                   float(score.rmse.max()), most=1e-4),
    notebook.Check('without biases: loss at (cx, a/c), c from 1/4 to 4, over '
                   '|f|²: largest', float(ray[0.0].max()), most=1e-14),
    notebook.Check('with biases: the same, smallest', float(ray[0.1].min()),
                   least=1e-3),
    notebook.Check('without biases: largest error of a direction, radians',
                   float(angle.max()), most=1e-4),
    notebook.Check('without biases: lengths off by more than 1 %, images',
                   int((np.abs(times - 1) > 0.01).sum()), least=NUM // 2),
    notebook.Check('without biases: images below an error of 0.01 as found',
                   as_found.recovered[0.01], most=NUM // 2),
    notebook.Check('without biases: the same, stretched to the pixel range',
                   stretched.recovered[0.01], NUM, NUM))
