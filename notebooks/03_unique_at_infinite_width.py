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

from dsr import kernels
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
# | $k$, two hidden layers, biases of deviation 0.1 or 0 | `kernels.fcn(2, b_std=...)` |
# | $x\mapsto f_T(x)-f_0(x)$ | `case.released.query` |
# | $\hat x_j$ | `found.candidates` |

# %%
x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 64)))
factors = jnp.array([0.25, 0.5, 1.0, 2.0, 4.0])


@jax.jit
def of_ray(x):
  """k(c x_1, .), divided by c, at six points; and the Gram matrix of the ray."""
  out = {}
  for b_std in (0.1, 0.0):
    kernel_fn = kernels.fcn(2, b_std=b_std)
    ray = factors[:, None] * x[:1]
    out[b_std] = (kernel_fn(ray, x) / factors[:, None], kernel_fn(ray))
  return out


rays, least = of_ray(x), {}
for b_std, (_, gram) in rays.items():
  values = np.linalg.eigvalsh(np.asarray(gram))
  least[b_std] = float(values[0] / values[-1])
ambiguity = {b: float(jnp.max(jnp.abs(s / s[2:3] - 1))) for b, (s, _)
             in rays.items()}
notebook.table(
    [{'biases': 'with' if b else 'without',
      '(cx, a/c) against (x, a), c from 1/4 to 4': f'{ambiguity[b]:.1e}',
      'least eigenvalue of five points on a ray, over the largest':
          f'{abs(least[b]):.1e}'} for b in rays],
    ('biases', '(cx, a/c) against (x, a), c from 1/4 to 4',
     'least eigenvalue of five points on a ray, over the largest'))

# %% [markdown]
# Without biases the two sides agree to rounding. With biases of deviation 0.1
# they differ, and the kernel matrix of five points on one ray is invertible:
# the length is determined, if by small eigenvalues.
#
# ## 2. With biases: twenty of twenty
#
# Twenty digits of ten classes. The attacker knows that there are at most twenty
# images of 8 x 8 pixels, the architecture, and the answers to queries. Forty
# candidates start as noise. They are moved by the gradient of the loss without
# coefficients, $\|f\|^2-v^\top\hat K^{-1}v$, $v=f(\hat X)$.

# %%
def attacked(b_std, seed, steps=1500):
  """(case, what the attack found, the candidates at each look)."""
  config = resolve(reconstruct.Config(
      dataset='digits', num_train=NUM, regime='infinite', kernel_b_std=b_std))
  case, looks = cases.make_case(config, None), []
  found = ntk_limit.reconstruct(
      jax.random.key(seed), case.released,
      ntk_limit.Config(steps=steps, dtype='float64'),
      kernel_fn=case.kernel_fn, progress=False,
      on_chunk=lambda step, z: looks.append((step, z)) and None)
  return case, found, looks


case, found, looks = attacked(0.1, seed=0)
images = case.task.train.x
score = match.score(images, scoring.to_pixels(case, found.candidates))
print(f'{score.recovered[0.01]} of {NUM} images below an error of 0.01; '
      f'largest error {score.rmse.max():.1e} (pixels go from 0 to 1)')

# %%
shown = sorted({0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 25, len(looks) - 1})
last = match.distances(images, scoring.to_pixels(case, looks[-1][1]))
chosen = match.assign(last).candidate  # The truth orders the pictures only.


def frame(step, candidates):
  """One picture: training images above the candidates that become them."""
  pixels = scoring.to_pixels(case, candidates)
  near = (match.distances(images, pixels).min(axis=1) < 0.01).sum()
  rows = np.stack([images, np.clip(pixels[chosen], 0, 1)])
  return (rows, ['training', 'candidates']), {
      'title': f'step {step:4d}: {near:2d} of {NUM} images below 0.01'}


notebook.animation(
    figures.image_grid, [frame(*looks[i]) for i in shown], seconds=0.5,
    hold=3.0,
    alt='Animation in two rows. Above, the twenty training images, fixed. '
        'Below, twenty candidates: noise at first, they turn into the images '
        'above them one after the other; at the last step all are equal.')

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
    log=True, title='All twenty images fall to the rounding of the optimizer',
    alt='Curves of the error of the worst, the median and the best image over '
        'the steps, on a logarithmic axis. All three fall, one after the '
        'other, from 0.3 to about one in a million.')

# %% [markdown]
# ## 3. Without biases: every image up to its length
#
# The same attack on the same network without biases. Now the loss is zero on
# whole rays, and lengths of candidates mean nothing. Inputs are pixels less
# their mean, so a ray passes through the mean image; what can come back is the
# *direction* of each image, compared by the cosine with the true one.

# %%
bare, bare_found, _ = attacked(0.0, seed=0)
flat = lambda z: np.asarray(z).reshape(len(z), -1)
unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
truth = flat(bare.task.examples.x)
cosines = unit(truth) @ unit(flat(bare_found.candidates)).T
nearest = cosines.argmax(axis=1)
off = np.sqrt(np.maximum(2 - 2 * cosines.max(axis=1), 0))  # Angles, in radians.
directions = int((off < 0.01).sum())
scaled = flat(bare_found.candidates)[nearest]
raw = np.linalg.norm(scaled, axis=1) / np.linalg.norm(truth, axis=1)
bare_pixels = match.score(
    images, scoring.to_pixels(bare, bare_found.candidates))
print(f'{directions} of {NUM} directions within 0.01 rad, the worst '
      f'{off.max():.0e}')
print(f'{bare_pixels.recovered[0.01]} of {NUM} images below an error of 0.01; '
      f'lengths are {raw.min():.2f} to {raw.max():.2f} times the true ones')

# %%
pixels = np.clip(scoring.to_pixels(bare, bare_found.candidates), 0, 1)[nearest]
notebook.picture(
    figures.pairs, images, pixels, off,
    title='Without biases: the nearest direction, and its angle in radians',
    alt='Twenty pairs of digits: training images above what was rebuilt '
        'without biases. Shapes are the same, the contrast of some differs.')

# %% [markdown]
# Candidates were stretched until they fill the range of pixels (`scale`), which
# is a guess at the length: it is right for an image with a pure white or black
# pixel, and for no other.
#
# ## What this does not say
#
# - It is about infinite width, or a linearised network with such a kernel. At
#   finite width the answers differ from those of the limit by $1/\sqrt W$, and
#   the training set is no exact zero of the loss any more.
# - A unique zero is not an easy one. That descent finds it, all twenty of
#   twenty, is measured here for one seed and one data set; it takes more
#   candidates than images and restarts of the idle ones.
# - Training must be to the end. Stopped early, or with a ridge, the network is
#   still a sum of kernel functions at the training images, but with other
#   coefficients; we do not show that case here.
# - Two equal images, or an image with coefficient zero, cannot come back as two
#   or at all.
#
# ## Checks

# %%
notebook.verify(
    notebook.Check('with biases: images below an error of 0.01',
                   score.recovered[0.01], NUM, NUM),
    notebook.Check('with biases: largest error of an image',
                   float(score.rmse.max()), most=1e-4),
    notebook.Check('without biases: (cx, a/c) against (x, a), relative '
                   'difference', ambiguity[0.0], most=1e-12),
    notebook.Check('with biases: the same', ambiguity[0.1], least=1e-3),
    notebook.Check('without biases: least eigenvalue on a ray, relative',
                   abs(least[0.0]), most=1e-12),
    notebook.Check('with biases: the same', least[0.1], least=1e-10),
    notebook.Check('without biases: directions within 0.01 rad', directions,
                   NUM, NUM),
    notebook.Check('without biases: images below an error of 0.01',
                   bare_pixels.recovered[0.01], most=NUM - 1))
