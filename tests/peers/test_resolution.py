"""The paper's Figure 3 a, b takes the peers: resampled, as they are, or refused in one line."""

from typing import Any

import numpy as np
import pytest
import torch

from sequencer2d.data.config import DataConfig
from sequencer2d.errors import InputError
from sequencer2d.evaluation.resolution import default_sizes, model_stride, resolution_sweep
from sequencer2d.evaluation.subject import Subject, load_subject, subject_of
from tests.peers.small import small_peer

SIDES = {"vip_m7": 28, "cyclemlp_b2": 32, "gfnet_s": 32, "gfnet_h_s": 32, "t2t_vit_t_19": 32, "pvt_small": 32}


class Squares:
    """Six images of one color each, in three classes."""

    class_names = ("class 0", "class 1", "class 2")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        color = [0, 0, 0]
        color[index % 3] = 120 + 20 * index
        return Image.new("RGB", (40, 40), tuple(color)), index % 3


def subject(name: str) -> Subject:
    side = SIDES[name]
    model = small_peer(name, img_size=side, num_classes=3)
    return Subject(name, model, DataConfig(image_size=side), Squares.class_names)


@pytest.mark.parametrize("name", SIDES)
def test_every_size_is_taken_or_refused(name: str) -> None:
    found = resolution_sweep(subject(name), Squares(), sizes=(28, 32, 48, 64))  # type: ignore[arg-type]
    if name == "vip_m7":
        assert found.sizes.tolist() == [28]
        assert set(found.refused) == {32, 48, 64}
        assert found.refused[48].startswith("vip_m7 takes images of 28×28 pixels only, not 48×48")
    else:
        assert found.sizes.tolist() == [28, 32, 48, 64]
        assert found.refused == {}
    assert np.isfinite(found.top1).all()


@pytest.mark.parametrize("name", ["gfnet_h_s", "pvt_small"])
def test_a_fitted_model_is_a_copy(name: str) -> None:
    given = subject(name)
    before = {key: tensor.clone() for key, tensor in given.model.state_dict().items()}
    fitted = given.adapted(48)
    assert fitted.model is not given.model
    assert all(torch.equal(tensor, before[key]) for key, tensor in given.model.state_dict().items())
    assert fitted.model.config.img_size == (48, 48)  # type: ignore[union-attr]


def test_a_size_that_vip_refuses_is_a_mistake_of_the_input() -> None:
    with pytest.raises(InputError, match="vip_m7 takes images of 28×28 pixels only"):
        subject("vip_m7").adapted(56)


def test_sizes_follow_the_models_stride() -> None:
    with torch.device("meta"):
        from sequencer2d.peers import build_peer

        models = {name: build_peer(name) for name in ("vip_s7", "cyclemlp_b2", "gfnet_s", "t2t_vit_t_19", "pvt_small")}
    strides = {name: model_stride(model) for name, model in models.items()}
    assert strides == {"vip_s7": 14, "cyclemlp_b2": 32, "gfnet_s": 16, "t2t_vit_t_19": 16, "pvt_small": 32}
    assert default_sizes(subject_of(models["pvt_small"], name="pvt"))[:2] == (128, 160)


def test_untrained_peers_are_subjects_by_their_name() -> None:
    found = load_subject("mine@random:cyclemlp_b1", num_classes=3)
    assert (found.name, found.architecture, found.data.size) == ("mine", "cyclemlp_b1", (224, 224))
    assert (found.data.crop_pct, found.data.mean) == (0.9, (0.485, 0.456, 0.406))
