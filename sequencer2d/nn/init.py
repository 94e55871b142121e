"""Initial values of the parameters, as the authors' training code sets them.

Linear layers Xavier uniform with zero bias (biases of the channel MLP normal, std 1e-6), convolutions LeCun normal (see
`CONVOLUTION_INITS`) with zero bias, position embeddings truncated normal (std 0.02), the classifier zero. Recurrent
parameters are uniform ±1/√D and set by the mixer itself; norms start as the identity.
"""

from collections.abc import Callable

from torch import Tensor, nn

from sequencer2d.nn.blocks import ClassifierHead, Mlp
from sequencer2d.nn.embed import PositionEmbedding

MLP_BIAS_STD = 1e-6
POSITION_STD = 0.02
TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal variable that is cut at ±2."""


def lecun_normal_uncut_(weight: Tensor) -> None:
    """Normal with std 1 / (0.8796 √fan-in), in place: LeCun normal as timm 0.5.4 computes it.

    That version divides by the standard deviation of a normal variable cut at two standard deviations, but cuts at ±2
    itself, which no weight of such a width reaches. Hence the weights are 14 % wider than LeCun's.
    """
    nn.init.trunc_normal_(weight, std=weight[0].numel() ** -0.5 / TRUNCATED_STD)


def lecun_normal_(weight: Tensor) -> None:
    """Normal with std 1 / √fan-in after the cut at ±2.27 times that, in place: as today's timm computes it."""
    std = weight[0].numel() ** -0.5 / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


CONVOLUTION_INITS: dict[str, Callable[[Tensor], None]] = {"paper": lecun_normal_uncut_, "timm": lecun_normal_}
"""The weights of convolutions: of the paper's runs, which used timm 0.5.4, and of today's timm."""


def init_weights(model: nn.Module, convolutions: str = "paper") -> None:
    """Initialize every linear layer, convolution, position embedding and classifier of `model`, in place.

    Args:
        model: the model.
        convolutions: a key of `CONVOLUTION_INITS`.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            init_linear(module)
        elif isinstance(module, nn.Conv2d):
            init_convolution(module, convolutions)
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


def init_convolution(layer: nn.Conv2d, kind: str = "paper") -> None:
    """LeCun normal weight as `CONVOLUTION_INITS[kind]` draws it, zero bias."""
    CONVOLUTION_INITS[kind](layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_classifier(head: ClassifierHead) -> None:
    """Zero weight and bias: an untrained model's logits are all 0."""
    if isinstance(head.fc, nn.Linear):
        nn.init.zeros_(head.fc.weight)
        nn.init.zeros_(head.fc.bias)
