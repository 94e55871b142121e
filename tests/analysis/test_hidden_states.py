"""Hidden states and memory: what the mixers really compute, for every variant."""

import numpy as np
import pytest
import torch
from torch import nn

from sequencer2d.analysis.hidden_states import check_channels, hidden_states, most_active, running_states
from sequencer2d.analysis.memory import _add, forget_gates, memory_reach
from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.pixels import normalized
from sequencer2d.evaluation.subject import Subject
from sequencer2d.models import create_model
from sequencer2d.nn.rnn2d import RNN2D

SMALL = {"depths": (2, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (4, 2), "num_classes": 3}


def subject(**overrides):
    torch.manual_seed(0)
    model = create_model("sequencer2d_n", **{**SMALL, **overrides}).eval()
    return Subject("small", model, DataConfig(image_size=24), ("a", "b", "c"))


def image(seed=0, height=24, width=24):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_states_are_those_of_a_plain_lstm_on_the_same_tokens():
    s = subject()
    states = hidden_states(s, image())
    assert states.block == "stages.0.blocks.1"
    block = s.model.stages[0].blocks[1]
    tokens = block.norm1(s.model.stages[0].blocks[0](s.model.stem(normalized(image()[None], s))))
    lstm = nn.LSTM(16, 4, batch_first=True, bidirectional=True)
    lstm.load_state_dict(dict(block.rnn_tokens.rnn_v.named_parameters()))
    column = lstm(tokens[0].transpose(0, 1))[0].transpose(0, 1).detach().numpy()
    np.testing.assert_allclose(np.concatenate([states.states[0], states.states[1]], axis=-1), column, atol=1e-6)
    np.testing.assert_allclose(states.fused, block.rnn_tokens(tokens)[0].detach().numpy(), atol=1e-6)
    assert [title for title, _ in states.rows()] == ["vertical", "horizontal", "fusion"]


@pytest.mark.parametrize(
    "options, titles",
    [({"axes": "vertical", "fusion": "none", "hidden_dims": (8, 8)}, ["vertical", "fusion"]),
     ({"axes": "flatten", "fusion": "none", "hidden_dims": (8, 8)}, ["flattened sequence", "fusion"]),
     ({"bidirectional": False}, ["vertical", "horizontal", "fusion"]),
     ({"fusion": "add"}, ["vertical", "horizontal", "fusion"])],
)  # fmt: skip
def test_every_kind_of_mixer_shows_its_states(options, titles):
    states = hidden_states(subject(**options), image(), "stages.0.blocks.0")
    assert [title for title, _ in states.rows()] == titles
    assert len(list(running_states(states))) == 6


def test_the_animation_runs_each_scan_its_way():
    states = hidden_states(subject(), image())
    frames = list(running_states(states))
    first, last = frames[0], frames[-1]
    known = ~np.isnan(first[..., 0])
    assert known[0, 0].all()
    assert not known[0, 1:].any()
    assert known[1, -1].all()
    assert known[2, :, 0].all()
    assert known[3, :, -1].all()
    assert known.sum() == 4 * 6
    np.testing.assert_array_equal(last, states.states)


@pytest.mark.parametrize(("axes", "size", "frames"), [
    ("both", (24, 40), 10), ("both", (40, 24), 10), ("flatten", (24, 40), 6), ("flatten", (40, 24), 10),
])  # fmt: skip
def test_the_animation_ends_when_the_longest_scan_does(axes, size, frames):
    """On 6 rows and 10 columns of tokens or the reverse. A flattened sequence shows a row at a time."""
    options = {"fusion": "none", "hidden_dims": (8, 8)} if axes == "flatten" else {}
    states = hidden_states(subject(axes=axes, **options), image(0, *size), "stages.0.blocks.0")
    found = list(running_states(states))
    assert len(found) == frames
    assert [bool(np.isnan(frame).any()) for frame in found] == [True] * (frames - 1) + [False]


def test_the_memory_of_a_mixer_in_bf16_is_summed_in_fp32():
    sums = {}
    mixer = RNN2D(8, 4).eval()
    tokens = torch.randn(2, 3, 5, 8)
    _add(sums, "b", mixer, tokens, 24)
    _add(sums, "rounded", mixer.bfloat16(), tokens.bfloat16(), 24)
    assert [sums["b", scan].tokens for scan in mixer.scans] == [3, 3, 5, 5]
    assert {total.stride for total in sums.values()} == {8}
    assert {total.count for total in sums.values()} == {2 * 3 * 5}
    for scan in mixer.scans:
        torch.testing.assert_close(sums["rounded", scan].log_gate, sums["b", scan].log_gate, rtol=0.02, atol=0)
        assert sums["rounded", scan].histogram.sum() == 2 * 3 * 5 * 4


def test_channels_are_ranked_by_how_much_they_vary_and_checked():
    maps = np.zeros((4, 4, 3))
    maps[0, 0, 1], maps[0, 0, 2] = 5, 1
    assert most_active(maps, 2).tolist() == [1, 2]
    check_channels([0, 2], 3)
    for wrong in (3, -1):
        with pytest.raises(ConfigError, match=f"no channel {wrong}: this block has channels 0 to 2"):
            check_channels([1, wrong], 3)


def test_a_block_without_recurrence_and_one_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"no recurrences; blocks that do: stages.0.blocks.0"):
        hidden_states(subject(), image(), "stages.0.blocks.0.mlp_channels")
    with pytest.raises(ConfigError, match=r"no block 'stages.9.blocks.0'"):
        hidden_states(subject(), image(), "stages.9.blocks.0")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("axes", ["both", "flatten"])
def test_forget_gates_rebuild_the_recurrence(cell, axes):
    """Stepping the cell by hand with the state before each token must give the same gate."""
    torch.manual_seed(1)
    mixer = RNN2D(5, 3, cell=cell, axes=axes)
    tokens = torch.randn(2, 4, 6, 5)
    gates = forget_gates(mixer, tokens)
    assert gates.shape == (2, 4, 6, len(mixer.scans), 3)
    slot = len(mixer.scans) - 2  # left to right
    weights = mixer.rnn_h if axes == "both" else mixer.rnn
    cls = nn.LSTMCell if cell == "lstm" else nn.GRUCell
    step = cls(5, 3)
    step.load_state_dict(
        {name.removesuffix("_l0"): p for name, p in weights.named_parameters() if "reverse" not in name}
    )
    sequence = tokens[0, 1] if axes == "both" else tokens[0].reshape(24, 5)
    state, expected = None, []
    for token in sequence:
        h = torch.zeros(3) if state is None else (state[0] if cell == "lstm" else state)
        row = slice(3, 6)
        pre = step.weight_ih[row] @ token + step.bias_ih[row] + step.weight_hh[row] @ h + step.bias_hh[row]
        expected.append(pre.sigmoid())
        state = step(token, state)
    got = gates[0, 1, :, slot] if axes == "both" else gates[0, :, :, slot].reshape(24, 3)
    torch.testing.assert_close(got, torch.stack(expected).detach(), rtol=1e-5, atol=1e-6)


def test_half_life_of_a_constant_gate(tmp_path):
    """Without weights the forget gate is σ(b): a half-life of −ln 2 / ln σ(b) tokens, times the stride in pixels."""
    s = subject()
    with torch.no_grad():
        for module in s.model.modules():
            if isinstance(module, RNN2D):
                for name, parameter in module.named_parameters():
                    if "rnn_" in name:
                        parameter.zero_()
                    if name.endswith(("bias_ih_l0", "bias_ih_l0_reverse")):
                        parameter[4:8] = 2.0
    reach = memory_reach(s, np.stack([image(0), image(1)]), batch_size=1)
    assert [(r.block, r.scan) for r in reach.scans[:4]] == [("stages.0.blocks.0", scan) for scan in range(4)]
    forget = 1 / (1 + np.exp(-2.0))
    for r in reach.scans:
        np.testing.assert_allclose(r.half_life, -np.log(2) / np.log(forget), rtol=1e-6)
        assert r.histogram[int(forget * 50)] == pytest.approx(1)
        assert r.stride == (4 if r.block.startswith("stages.0") else 8)
    reach.save(tmp_path / "memory.npz")
    with np.load(tmp_path / "memory.npz") as file:
        assert file["half_life_tokens"].shape == (12, 4)


def test_a_cell_without_gates_has_no_memory_reach():
    with pytest.raises(ConfigError, match="no forget gate"):
        memory_reach(subject(cell="rnn"), image()[None])
