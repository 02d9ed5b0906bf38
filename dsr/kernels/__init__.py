"""Kernels: infinite-width layers, empirical NTKs, and their large matrices."""
from dsr.kernels import empirical, stax
from dsr.kernels.architectures import by_name, convnet, fcn, myrtle
from dsr.kernels.combinators import (
    FanInConcat,
    FanInProd,
    FanInSum,
    FanOut,
    parallel,
)
from dsr.kernels.convolutions import (
    AvgPool,
    Conv,
    GlobalAvgPool,
    GlobalSumPool,
    SumPool,
)
from dsr.kernels.elementwise import Elementwise, Hermite, Polynomial
from dsr.kernels.gram import gram
from dsr.kernels.layers import Dense, Flatten, Identity, Layer, Pair, nonlinear
from dsr.kernels.monte_carlo import monte_carlo
from dsr.kernels.network import Kernels, serial
from dsr.kernels.nonlinearities import (
    ABRelu,
    Abs,
    Erf,
    LeakyRelu,
    Relu,
    Sign,
)
from dsr.kernels.products import matvec
from dsr.kernels.residual import resnet, wide_resnet
from dsr.kernels.smooth import Cos, Exp, Gaussian, Gelu, LayerNorm, Rbf, Sin

__all__ = [
    'ABRelu', 'Abs', 'AvgPool', 'Conv', 'Cos', 'Dense', 'Elementwise', 'Erf',
    'Exp', 'FanInConcat', 'FanInProd', 'FanInSum', 'FanOut', 'Flatten',
    'Gaussian', 'Gelu', 'GlobalAvgPool', 'GlobalSumPool', 'Hermite', 'Identity',
    'Kernels', 'Layer', 'LayerNorm', 'LeakyRelu', 'Pair', 'Polynomial', 'Rbf',
    'Relu', 'Sign', 'Sin', 'SumPool', 'by_name', 'convnet', 'empirical', 'fcn',
    'gram', 'matvec', 'monte_carlo', 'myrtle', 'nonlinear', 'parallel',
    'resnet', 'serial', 'stax', 'wide_resnet']
