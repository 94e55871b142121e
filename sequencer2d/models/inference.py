"""From a trained model to its inference form: which layers are replaced by those of `sequencer2d.nn.inference`."""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from sequencer2d.errors import InputError
from sequencer2d.models.exact import full_name, is_exactly, is_plain, own_hooks, peculiarity, share_hooks
from sequencer2d.models.features import Sequencer2DFeatures
from sequencer2d.models.sequencer2d import Sequencer2D, Stage
from sequencer2d.nn.blocks import ClassifierHead, DropPath, Mlp, SequencerBlock
from sequencer2d.nn.embed import Downsample, PatchEmbed, PositionEmbedding
from sequencer2d.nn.inference import FusedMlp, InPlaceBlock, PackedRNN2D, PatchLinear
from sequencer2d.nn.rnn2d import RNN2D

# Full names of classes whose function is known exactly. A class that inherits one of them may do anything.
# In these models we know in which order the layers run, and that nothing else reads what a block overwrites.
_MODELS = (full_name(Sequencer2D), full_name(Sequencer2DFeatures), "timm.models.sequencer.Sequencer2d")
_STAGES = (full_name(Stage), "timm.models.sequencer.Sequencer2dStage")
_BLOCKS = (
    full_name(SequencerBlock),
    "timm.models.sequencer.Sequencer2dBlock",
    "sequencer2d.models.timm_block.EagerSequencer2dBlock",
)
_STEM, _TIMMS_STEM = full_name(PatchEmbed), "timm.layers.patch_embed.PatchEmbed"
_DOWNSAMPLES = (full_name(Downsample), "timm.models.sequencer.Downsample2d")
_MLPS = (full_name(Mlp), "timm.layers.mlp.Mlp")
# They return their input in eval mode.
_IDENTITIES = (*map(full_name, (nn.Identity, nn.Dropout, DropPath)), "timm.layers.drop.DropPath")

# Layers of a model in its inference form that treat each image, or each token, for itself.
_APART = (
    *_MODELS,
    *_STAGES,
    *_BLOCKS,
    *_DOWNSAMPLES,
    *_MLPS,
    *_IDENTITIES,
    _STEM,
    _TIMMS_STEM,
    *map(full_name, (InPlaceBlock, PackedRNN2D, FusedMlp, PatchLinear, PositionEmbedding, ClassifierHead)),
    *map(full_name, (nn.Linear, nn.LayerNorm, nn.GELU, nn.Conv2d, nn.Sequential, nn.ModuleList)),
    "timm.layers.classifier.ClassifierHead",
    "timm.layers.adaptive_avgmax_pool.SelectAdaptivePool2d",
    "timm.layers.adaptive_avgmax_pool.FastAdaptiveAvgPool",
)


def to_inference_form(module: nn.Module, in_place: bool = False) -> nn.Module:
    """Replace the layers of `module` by their inference forms. Returns it, or its own replacement.

    A mixer's hooks move to what replaces it. Another layer that has hooks, or is not exactly of a class whose function
    is known, stays as it is.

    Args:
        module: in eval mode, without gradients; it is changed.
        in_place: replace the blocks of our models' and timm's stages by `InPlaceBlock`, too. It pays where the sum
            would be a kernel that waits for memory: in 16 bits on CUDA.

    Raises:
        InputError: a mixer that is not exactly an `RNN2D`, before anything is changed.
    """
    for path, mixer in module.named_modules():
        if isinstance(mixer, RNN2D):
            _check_mixer(path or "the model", mixer)
    return _convert(module, in_place)


def _check_mixer(path: str, mixer: RNN2D) -> None:
    """Raise InputError unless its function is that of `RNN2D` with the weights that `weights` returns."""
    if type(mixer) is not RNN2D:
        raise InputError(
            f"cannot pack {path}: it is a {type(mixer).__name__}, which may do more than RNN2D; give the model an RNN2D"
        )
    if replaced := {"forward", "scan", "weights"} & vars(mixer).keys():
        raise InputError(f"cannot pack {path}: its {replaced.pop()} was set on the instance; delete it there")
    for name in mixer.rnn_names:
        for owner in mixer.get_submodule(name).modules():
            hooks = own_hooks(owner, ignore_package="torch.nn.utils.")
            if hooks:
                raise InputError(
                    f"cannot pack {path}.{name}: its hooks ({', '.join(hooks)}) would be lost; remove them"
                )
            for value in (*owner.parameters(recurse=False), *owner.buffers(recurse=False)):
                if is_traceable_wrapper_subclass(value):
                    raise InputError(
                        f"cannot pack {path}.{name}: its weights are {type(value).__name__}s (quantized or sharded); "
                        "take the model with plain weights"
                    )


def _convert(module: nn.Module, in_place: bool) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _convert(child, in_place))
    if in_place:
        _add_in_place(module)
    if isinstance(module, RNN2D):
        return share_hooks(module, PackedRNN2D(module))
    if is_exactly(module, _STEM) and _only_patches(module.proj):
        return PatchLinear(module.proj, from_image=True, stride=module.stride, pad=module.pad)  # type: ignore[arg-type]
    if _is_downsample(module):
        return PatchLinear(module.get_submodule("down"), from_image=False)  # type: ignore[arg-type]
    if _is_timms_stem(module):
        return PatchLinear(module.get_submodule("proj"), from_image=True)  # type: ignore[arg-type]
    if _is_gelu_mlp(module):
        return FusedMlp(module)
    return module


def is_block(module: nn.Module) -> bool:
    """Whether it is exactly our block or timm's."""
    return full_name(type(module)) in _BLOCKS


def _add_in_place(module: nn.Module) -> None:
    """Let the blocks of a stage, and those of a model's first stage, write into what the layer before them returns."""
    children = dict(module.named_modules())
    if full_name(type(module)) in _MODELS and isinstance(children.get("stages.0.downsample"), nn.Identity):
        between = (children["stages"], children["stages.0"], children.get("pos_embed", nn.Identity()))
        if type(between[-1]) in (nn.Identity, PositionEmbedding) and not any(map(peculiarity, between)):
            _give_biases(children["stages.0"], children["stem"])
    elif full_name(type(module)) in _STAGES and "downsample" in children:
        _give_biases(module, children["downsample"])


def _give_biases(stage: nn.Module, previous: nn.Module) -> None:
    """Make the blocks of `stage` `InPlaceBlock`s.

    They overwrite the output of the layer `previous`, whose bias takes theirs in. A stage with blocks of another kind,
    or after a layer of another kind, is left as it is, and so is one where a hook would see what is overwritten.
    """
    blocks = stage.get_submodule("blocks")
    if not (
        isinstance(previous, PatchLinear)
        and type(blocks) is nn.Sequential
        and peculiarity(blocks) is None
        and all(map(_ends_in_linear, blocks))
    ):
        return
    # In 16 bits every sum of the many would be rounded.
    weight = previous.weight
    pending_bias = weight.new_zeros(weight.shape[0], dtype=torch.promote_types(weight.dtype, torch.float32))
    replaced = []
    for block in reversed(blocks):
        pending_bias2 = pending_bias + _bias(block.get_submodule("mlp_channels.fc2"))
        pending_bias = pending_bias2 + _bias(block.get_submodule("rnn_tokens.fc"))
        replaced.append(InPlaceBlock(block, pending_bias.to(weight), pending_bias2.to(weight)))
    previous.bias = (pending_bias + _bias(previous)).to(weight)
    stage.add_module("blocks", nn.Sequential(*reversed(replaced)))


def _bias(layer: nn.Module) -> Tensor | float:
    return layer.bias.detach() if isinstance(layer.bias, Tensor) else 0.0


def _ends_in_linear(block: nn.Module) -> bool:
    """Whether it is our block or timm's with converted branches, a layer norm before both and a linear layer behind."""
    return (
        is_exactly(block, *_BLOCKS)
        and _has_scale_and_bias(block.norm1)
        and _has_scale_and_bias(block.norm2)
        and all(full_name(type(part)) in _IDENTITIES for name, part in block.named_children() if "drop_path" in name)
        and isinstance(block.rnn_tokens, PackedRNN2D)
        and type(block.rnn_tokens.fc) is nn.Linear
        and isinstance(block.mlp_channels, FusedMlp)
        and block.mlp_channels.fc1.bias is not None
    )


def _has_scale_and_bias(norm: object) -> bool:
    """Whether it is a layer norm over channels with both."""
    return type(norm) is nn.LayerNorm and norm.bias is not None and len(norm.normalized_shape) == 1


def _is_downsample(module: nn.Module) -> bool:
    """Ours, timm's or the authors' downsampling of NHWC maps, which permutes around its convolution."""
    known = is_exactly(module, *_DOWNSAMPLES) or (type(module).__name__ == "Downsample2D" and is_plain(module))
    return known and len([*module.children()]) == 1 and _only_patches(getattr(module, "down", None))


def _is_timms_stem(module: nn.Module) -> bool:
    """timm's patch embedding of images of any size to NHWC maps, without a norm."""
    return (
        is_exactly(module, _TIMMS_STEM)
        and _only_patches(module.proj)
        and type(module.norm) is nn.Identity
        and getattr(module, "img_size", 0) is None
        and not getattr(module, "flatten", True)
        and not getattr(module, "dynamic_img_pad", True)
        and getattr(getattr(module, "output_fmt", None), "value", None) == "NHWC"
    )


def _only_patches(conv: object) -> bool:
    """Whether it is a convolution of square patches side by side."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == conv.stride
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.padding == (0, 0)
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )


def _is_gelu_mlp(module: nn.Module) -> bool:
    """Ours or timm's channel MLP: fc1, an exact GELU, fc2, nothing between them that acts in inference."""
    if not is_exactly(module, *_MLPS):
        return False
    layers = dict(module.named_children())
    fc1, act, fc2 = (layers.pop(name, None) for name in ("fc1", "act", "fc2"))
    return (
        type(fc1) is nn.Linear
        and type(fc2) is nn.Linear
        and type(act) is nn.GELU
        and act.approximate == "none"
        and all(type(layer) in (nn.Dropout, nn.Identity) for layer in layers.values())
    )


def treats_images_apart(model: nn.Module) -> bool:
    """Whether an image's output in eval mode is known not to depend on the other images of its batch."""
    known = all(full_name(type(layer)) in _APART for layer in model.modules())
    return known and full_name(type(model)) in _MODELS and is_plain(model)
