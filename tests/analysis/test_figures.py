"""Figures: what stands in them, and colors that mean what their color bar says."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from sequencer2d.analysis.animation import write_animation
from sequencer2d.analysis.attribution import Attribution
from sequencer2d.analysis.drawing import RIGHT, WRONG, prediction_text
from sequencer2d.analysis.figure_files import VISIBLE, figure_bytes
from sequencer2d.analysis.figures import attribution_figure, hidden_state_figure, memory_figure
from sequencer2d.analysis.hidden_states import hidden_states
from sequencer2d.analysis.memory import memory_reach
from sequencer2d.analysis.predictions import predictions_figure
from sequencer2d.evaluation.predict import predict
from tests.analysis.test_hidden_states import image, subject


def photographs_under_maps():
    """Grad-CAM of noise: far more colors than a palette holds."""
    generator = np.random.default_rng(0)
    maps = generator.random((4, 32, 32), dtype=np.float32)
    pixels = generator.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    answers = (np.zeros(4, dtype=int), np.ones(4))
    return attribution_figure(Attribution("m", "b", maps, pixels, *answers, *answers), ["a"], count=4)


@pytest.mark.parametrize(
    "draw", [photographs_under_maps, lambda: memory_figure(memory_reach(subject(), image()[None]))]
)
def test_a_small_png_has_the_colors_of_the_figure(draw):
    full = io.BytesIO()
    draw().savefig(full, format="png", dpi=60, bbox_inches="tight")
    small = np.asarray(Image.open(io.BytesIO(figure_bytes(draw(), "png", 60))).convert("RGB"), dtype=int)
    assert np.abs(small - np.asarray(Image.open(full).convert("RGB"))).max() <= VISIBLE


def test_the_animation_keeps_the_colors_of_the_image(tmp_path):
    states = hidden_states(subject(), image())
    smooth = np.stack(np.broadcast_arrays(*np.meshgrid(np.arange(24) * 10, np.arange(24) * 10), 90), axis=-1)
    states = type(states)(**{**vars(states), "image": smooth.astype(np.uint8)})
    write_animation(states, file := io.BytesIO())
    frames = Image.open(file)
    frames.seek(frames.n_frames - 1)
    shown = np.asarray(frames.convert("RGB"), dtype=int)
    side = states.states.shape[1] * (160 // states.states.shape[1])
    assert shown.shape[1] == 5 * side + 4 * 6
    head, panels = shown[:-side], shown[-side:]
    expected = np.asarray(Image.fromarray(states.image).resize((side, side)), dtype=int)
    assert np.abs(panels[:, :side] - expected).mean() < 8
    for panel in range(5):  # each has its title, within its own width
        title = head[:, panel * (side + 6) : panel * (side + 6) + side]
        assert (title < 100).any()
    frames.seek(0)
    first = np.asarray(frames.convert("RGB"), dtype=int)
    assert (first[-1, side + 6 : 2 * side + 6] == 225).all()  # not yet reached by the scan from the top: plain gray
    for gap in range(1, 5):
        assert (head[:, gap * (side + 6) - 6 : gap * (side + 6)] > 240).all()


def test_a_long_class_name_is_not_cut_in_a_word():
    maps, pixels = np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8, 3), np.uint8)
    answers = (np.zeros(1, dtype=int), np.ones(1))
    result = Attribution("m", "b", maps, pixels, *answers, *answers)
    assert attribution_figure(result, ["European fire salamander"]).axes[0].get_title() == (
        "European fire\nsalamander (100%)"
    )


def test_a_name_takes_two_lines_at_most_and_the_truth_two_more():
    said = prediction_text("one two three four five six", 0.5, "seven eight nine ten eleven twelve", 12)
    assert said == "✗ one two\nthree… (50%)\ntruth: seven\neight nine…"


@pytest.mark.parametrize("name", ["one two three four five six", "a" * 60, "ab " + "c" * 60, "x" * 20])
def test_a_long_name_leaves_room_for_its_probability(name):
    lines = prediction_text(name, 1.0, None, 18).split("\n")
    assert len(lines) == 2
    assert lines[1].endswith(" (100%)")
    assert all(len(line) <= 18 for line in lines)


def test_mistakes_come_first_each_with_its_truth():
    maps, pixels = np.zeros((4, 8, 8), np.float32), np.zeros((4, 8, 8, 3), np.uint8)
    answers = (np.asarray([0, 1, 1, 0]), np.asarray([0.9, 0.6, 0.8, 0.7]))
    result = Attribution("m", "b", maps, pixels, *answers, *answers, truths=np.asarray([0, 0, 0, -1]))
    titles = [(axis.get_title(), axis.title.get_color()) for axis in attribution_figure(result, ["cat", "dog"]).axes]
    assert titles[:4] == [
        ("✗ dog (80%)\ntruth: cat", WRONG),
        ("✗ dog (60%)\ntruth: cat", WRONG),
        ("✓ cat (90%)\ntruth: cat", RIGHT),
        ("cat (70%)", "black"),
    ]


def test_channels_of_the_states_say_which_way_their_scan_ran():
    axes = hidden_state_figure(hidden_states(subject(), image()), channels=[0, 7]).axes
    titles = [axis.get_title() for axis in axes if axis.get_title().startswith("channel")]
    assert titles == ["channel 0 ↓", "channel 7 ↑", "channel 0 →", "channel 7 ←", "channel 0", "channel 7"]


def test_the_line_of_the_memory_is_named_outside_the_bars():
    top = memory_figure(memory_reach(subject(), image()[None])).axes[0]
    (text,) = [text for text in top.texts if "side of" in text.get_text()]
    assert text.get_transform() == top.get_yaxis_transform()
    assert text.get_position()[0] > 1


def test_photos_carry_prediction_and_truth_below_a_title_of_lines(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    model = subject()
    predictions = list(predict(model.model, paths, model.data, class_names=("cat", "dog", "cow")))
    guess = predictions[0].found.guesses[0]
    figure = predictions_figure(predictions, [guess.name, "none\x1b"], columns=2, title="two\nlines")
    assert figure._suptitle.get_text() == "two\nlines"
    assert [(axis.get_title(), axis.title.get_color()) for axis in figure.axes] == [
        (f"✓ {guess.name} ({guess.probability:.0%})\ntruth: {guess.name}", RIGHT),
        (f"✗ {guess.name} ({guess.probability:.0%})\ntruth: none\\x1b", WRONG),
    ]
