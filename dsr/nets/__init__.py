"""Finite networks (Flax Linen): functions `apply(params, x)` of their inputs.

Linen, not NNX: its modules are frozen descriptions without state, hence
hashable static arguments of `jax.jit`, and parameters are a plain pytree that
`vmap` stacks over random starts and `jvp` / `vjp` differentiate.
"""
from dsr.nets.convnet import ConvNet as ConvNet
from dsr.nets.mlp import MLP as MLP
from dsr.nets.registry import NAMES as NAMES, build as build
