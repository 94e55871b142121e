"""Initial values of the parameters, as the authors' training code sets them.

Linear layers Xavier uniform with zero bias (biases of the channel MLP normal, std 1e-6), convolutions LeCun normal with
zero bias, position embeddings truncated normal (std 0.02), the classifier zero. Recurrent parameters are uniform ±1/√D
and set by the mixer itself; norms start as the identity.
"""

import math

from torch import nn

from sequencer2d.nn.blocks import ClassifierHead, Mlp
from sequencer2d.nn.embed import PositionEmbedding

# Standard deviation of a standard normal cut at ±2: divided out, so that the cut distribution has the wanted one.
TRUNCATED_STD = 0.87962566103423978
MLP_BIAS_STD = 1e-6
POSITION_STD = 0.02


def init_weights(model: nn.Module) -> None:
    """Initialise every linear layer, convolution, position embedding and classifier of `model`, in place."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            init_linear(module)
        elif isinstance(module, nn.Conv2d):
            init_convolution(module)
        elif isinstance(module, PositionEmbedding):
            nn.init.trunc_normal_(module.weight, std=POSITION_STD)
    for module in model.modules():
        if isinstance(module, Mlp):
            nn.init.normal_(module.fc1.bias, std=MLP_BIAS_STD)
            nn.init.normal_(module.fc2.bias, std=MLP_BIAS_STD)
        elif isinstance(module, ClassifierHead):
            init_classifier(module)


def init_linear(layer: nn.Linear) -> None:
    """Xavier uniform weight, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_convolution(layer: nn.Conv2d) -> None:
    """LeCun normal weight (variance 1 / fan-in, cut at two standard deviations), zero bias."""
    std = math.sqrt(1.0 / layer.weight[0].numel()) / TRUNCATED_STD
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_classifier(head: ClassifierHead) -> None:
    """Zero weight and bias: an untrained model's logits are all 0."""
    if isinstance(head.fc, nn.Linear):
        nn.init.zeros_(head.fc.weight)
        nn.init.zeros_(head.fc.bias)
