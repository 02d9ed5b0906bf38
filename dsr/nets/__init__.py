"""Finite networks (Flax Linen): functions `apply(params, x)` of their inputs.

Linen, not NNX: its modules are frozen descriptions without state, hence
hashable static arguments of `jax.jit`, and parameters are a plain pytree that
`vmap` stacks over random starts and `jvp` / `vjp` differentiate.
"""
from dsr.nets.alexnet import AlexNet as AlexNet
from dsr.nets.convnet import ConvNet as ConvNet
from dsr.nets.efficientnet import EfficientNetLite0 as EfficientNetLite0
from dsr.nets.frepo_convnet import FRePoConvNet as FRePoConvNet
from dsr.nets.lenet import LeNet as LeNet
from dsr.nets.linearize import (
    Linearised as Linearised,
    linear_apply as linear_apply,
    linearize as linearize,
    taylor_expand as taylor_expand,
)
from dsr.nets.mlp import MLP as MLP
from dsr.nets.norms import BATCH_STATS as BATCH_STATS, NORMS as NORMS
from dsr.nets.registry import (
    NETWORKS as NETWORKS,
    Network as Network,
    build as build,
    check_name as check_name,
    describe as describe,
    names as names,
)
from dsr.nets.resnet import ResNet as ResNet
from dsr.nets.resnet18 import ResNet18 as ResNet18
from dsr.nets.vgg import VGG11 as VGG11
