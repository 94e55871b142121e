"""What peft, torchao and FSDP do to a model: it works and computes the same, or it is refused in one line."""

import copy
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.fx
from timm.models.sequencer import Sequencer2d
from torch import distributed, nn
from torch.nn.utils import parametrizations, prune
from torchvision.models.feature_extraction import create_feature_extractor

import sequencer2d
from sequencer2d.errors import CheckpointError, ImplementationError, InputError
from sequencer2d.models import load_model, save_weights
from sequencer2d.models.inference import to_inference_form
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.nn.inference import InPlaceBlock
from tests.models.small import randomize, small_model
from tests.models.test_fusing import SMALL

RECURRENT = ["weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse"]


def images() -> torch.Tensor:
    return torch.randn(2, 3, 28, 42)


def with_lora(model: nn.Module, **targets: Any) -> Any:
    """The model with adapters of rank 2 that are not zero."""
    peft = pytest.importorskip("peft")
    options = {"target_modules": [], **targets}
    config = peft.LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, **options)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "targets, adapters",
    [
        ({"target_parameters": RECURRENT}, 5 * 2 * 4),
        ({"target_modules": ["rnn_tokens.fc", "fc1", "fc2"]}, 5 * 3),
        ({"target_modules": ["down", "stem.proj", "head.fc"]}, 5),
    ],
    ids=["recurrences", "linear layers", "convolutions and classifier"],
)
@pytest.mark.parametrize("implementation", ["aten", "reference"])
def test_lora_is_trained_merged_and_optimized(tmp_path: Path, targets: Any, adapters: int, implementation: str) -> None:
    model, x = small_model(implementation=implementation), images()
    untouched, before = copy.deepcopy(model), model(x)
    adapted = with_lora(model, **targets)
    after = adapted(x)
    assert (after - before).abs().max() > 0.05
    after.square().sum().backward()
    trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * adapters
    assert all(name.count("lora_") and value.grad.abs().max() > 0 for name, value in trained.items())

    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(sequencer2d.optimize(adapted, compile=False)(x), after, **close)
    adapted.merge_adapter()
    torch.testing.assert_close(adapted(x), after, **close)
    torch.testing.assert_close(sequencer2d.optimize(adapted, compile=False)(x), after, **close)
    adapted.unmerge_adapter()
    torch.testing.assert_close(adapted(x), after, **close)
    with adapted.disable_adapter():
        torch.testing.assert_close(adapted(x), untouched(x), **close)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, Sequencer2D)
    assert merged.state_dict().keys() == untouched.state_dict().keys()
    torch.testing.assert_close(merged(x), after, **close)
    save_weights(merged, tmp_path / "merged.safetensors")
    torch.testing.assert_close(load_model(tmp_path / "merged.safetensors")(x), after, **close)


@pytest.mark.filterwarnings("ignore")
def test_lora_on_a_whole_recurrent_layer_is_refused_by_peft() -> None:
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match="Target module RecurrentWeights"):
        with_lora(small_model(), target_modules=["rnn_v"])


@pytest.mark.filterwarnings("ignore")
def test_adapters_on_timms_layers_come_after_fuse() -> None:
    model, x = randomize(Sequencer2d(**SMALL)).eval(), images()
    adapted = with_lora(copy.deepcopy(model), target_parameters=RECURRENT)
    with pytest.raises(InputError, match=r"merge them first|parametrized"):
        sequencer2d.fuse(adapted)
    sequencer2d.fuse(model)
    adapted = with_lora(model, target_parameters=RECURRENT)
    after = adapted(x)
    torch.testing.assert_close(sequencer2d.optimize(adapted, compile=False)(x), after, rtol=1e-4, atol=1e-5)


def pruned(model: Sequencer2D) -> nn.Module:
    prune.l1_unstructured(model.get_submodule("stages.0.blocks.0.rnn_tokens.rnn_v"), "weight_hh_l0", amount=0.5)
    return model


def normed(model: Sequencer2D) -> nn.Module:
    parametrizations.weight_norm(model.get_submodule("stages.0.blocks.0.mlp_channels.fc1"))
    return model


def adapted(model: Sequencer2D) -> nn.Module:
    return with_lora(model, target_parameters=RECURRENT).base_model.model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [pruned, normed, adapted])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_could_not_be_read_back_are_not_written(tmp_path: Path, change: Any, suffix: str) -> None:
    model = change(small_model())
    with pytest.raises(CheckpointError, match=r"computed from others .* merge_and_unload") as caught:
        save_weights(model, tmp_path / f"w{suffix}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_torchaos_models_are_optimized_and_not_written_as_plain_weights(tmp_path: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model, x = small_model(), images()
    before = model(x)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    after = model(x)
    assert 0 < (after - before).abs().max() < 0.1
    torch.testing.assert_close(sequencer2d.optimize(model, compile=False)(x), after, rtol=1e-4, atol=1e-5)
    converted = to_inference_form(copy.deepcopy(model).eval().requires_grad_(False), in_place=True)
    assert not any(isinstance(part, InPlaceBlock) for part in converted.modules()), "its kernels take plain weights"
    torch.testing.assert_close(converted(x), after, rtol=1e-4, atol=1e-5)
    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(CheckpointError, match=r"Int8Tensor.* save the model before it is quantized"):
            save_weights(model, tmp_path / name)
    with pytest.raises(CheckpointError, match="before it is quantized"):
        model.save_pretrained(tmp_path / "hub")


@pytest.mark.filterwarnings("ignore")
def test_torchao_on_an_optimized_model_is_refused_in_one_line() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    fast = sequencer2d.optimize(small_model(), compile=False)
    quantization.quantize_(fast, quantization.Int8WeightOnlyConfig())
    with pytest.raises(ImplementationError, match="quantize the model that it came from"):
        fast(images())


@pytest.fixture
def one_process() -> Generator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("one_process")
def test_sharded_models_are_gathered_before_they_are_written(tmp_path: Path) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    model, x = small_model(), images()
    before = model(x)
    mesh = distributed.init_device_mesh("cpu", (1,))
    for block in (block for stage in model.stages for block in stage.blocks):
        fsdp.fully_shard(block, mesh=mesh)
    fsdp.fully_shard(model, mesh=mesh)
    torch.testing.assert_close(model(x), before)
    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(CheckpointError, match=r"DTensor.*get_model_state_dict with full_state_dict=True"):
            save_weights(model, tmp_path / name)
    with pytest.raises(InputError, match="cannot optimize a sharded model"):
        sequencer2d.optimize(model, compile=False)

    whole = Sequencer2D(model.config, model.variant).eval()
    whole.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    save_weights(whole, tmp_path / "w.safetensors")
    torch.testing.assert_close(load_model(tmp_path / "w.safetensors")(x), before)


@pytest.mark.parametrize("size", [(28, 28), (30, 45)])
def test_a_fused_model_is_traced_by_symbols(size: tuple[int, int]) -> None:
    model = randomize(Sequencer2d(**SMALL)).eval()
    sequencer2d.fuse(model)
    x = torch.randn(2, 3, *size)
    expected = model(x)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), expected)
    taken = create_feature_extractor(model, {"head.fc": "logits"})(x)
    torch.testing.assert_close(taken["logits"], expected)
