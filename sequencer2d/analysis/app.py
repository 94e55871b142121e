"""A local web page (Gradio): drop an image, see what a model predicts, what its blocks see, what its LSTMs hand on.

For segmentation and detection it shows what the model finds in the image.
"""

import base64
import contextlib
import functools
import io
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image

from sequencer2d.analysis.about import model_text, weights_text
from sequencer2d.analysis.attribution import grad_cam
from sequencer2d.analysis.blocks import block_names
from sequencer2d.analysis.erf import receptive_fields
from sequencer2d.analysis.figure_files import figure_bytes
from sequencer2d.analysis.figures import attribution_figure, hidden_state_figure, receptive_field_grid
from sequencer2d.analysis.found_page import add_found, found_in
from sequencer2d.analysis.hidden_states import hidden_states, mixers
from sequencer2d.analysis.page_guard import guard
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.images import BrokenImageError, decode, to_rgb
from sequencer2d.data.opening import open_split
from sequencer2d.data.words import readable
from sequencer2d.errors import ConfigError, InputError, NumericalError, UserError, how_to_install
from sequencer2d.evaluation.outcomes import logits_of
from sequencer2d.evaluation.pixels import check_photo
from sequencer2d.evaluation.subject import Subject
from sequencer2d.models.specs import split_label
from sequencer2d.tasks import CLASSIFICATION
from sequencer2d.terminal import printable
from sequencer2d.training.runfiles import find_config

HOST = "127.0.0.1"
LARGEST_UPLOAD_MIB = 20
WAITING = 16
"""Requests that may wait for the model."""
SWEEP_S, KEPT_S = 60, 600
"""How often uploads are swept, and how old they get, in seconds."""

EXPLANATION = (
    "**Receptive field**: how strongly each pixel moves the token in the middle of the block's output (a token is one "
    "cell of the block's map; *energy* is that strength squared, not the quantity of the paper's Figure 5); Sequencers "
    "see a cross; the white frame is the token. "
    "**Hidden states**: the most active channels of the vertical and the horizontal LSTMs and of their fusion. "
    "**Grad-CAM**: the brighter, the more a region speaks for the predicted class."
)
EXAMPLE_SIDE = 256
"""Pixels of the example where no photo is at hand."""


class Seen(NamedTuple):
    """What the page shows for an image.

    Attributes:
        classes: probabilities of the five best classes.
        evidence: a picture of Grad-CAM at `block`; None where the library is not installed.
        field: a picture of the receptive field of the block.
        states: one of its hidden states; None for models without recurrences.
        sentence: on the field's shape.
    """

    classes: dict[str, float]
    evidence: Image.Image | None
    field: Image.Image
    states: Image.Image | None
    sentence: str


def look(subject: Subject, image: Image.Image | None, block: str) -> Seen:
    """What the page shows for an image.

    Raises:
        InputError: no image, or one too small for the model.
        ConfigError: no such block.
    """
    if image is None:
        raise InputError("drop an image first")
    check_photo(image, subject.data, "the image")
    pixels = np.asarray(eval_transform(subject.data)(to_rgb(image, subject.data.decoding)))
    probabilities = logits_of(subject, pixels[None]).softmax(dim=1)[0]
    top = probabilities.topk(min(5, len(probabilities)))
    classes = {
        readable(subject.class_names[i]): float(p) for i, p in zip(top.indices.tolist(), top.values, strict=True)
    }
    field = receptive_fields(subject, pixels[None], [block])[0]
    shape = field.shape
    height, width = pixels.shape[:2]
    sentence = (
        f"{block}: {shape.cross_share:.0%} of the energy lies in the middle token's row and column; half of it in "
        f"{shape.side_50**2:.0f} of {height * width:,} pixels. {'A cross.' if shape.cruciform else 'No cross.'}"
    )
    try:
        states = _picture(hidden_state_figure(hidden_states(subject, pixels, block)))
    except ConfigError:
        states = None
    return Seen(classes, _evidence(subject, pixels), _picture(receptive_field_grid([[field]])), states, sentence)


def _evidence(subject: Subject, pixels: np.ndarray) -> Image.Image | None:
    try:
        result = grad_cam(subject, pixels[None])
    except ConfigError:
        return None
    except UserError as error:
        if "grad-cam" not in str(error):
            raise
        return None
    return _picture(attribution_figure(result, subject.class_names))


def example_image(spec: str, folder: str | os.PathLike[str]) -> Path:
    """A photo to begin with: of the run's own validation images, or one of scikit-learn's; else colors that run over.

    Args:
        spec: where the model was loaded from; of a run's folder, whose images may be here still.
        folder: where a picture that is made here is written.
    """
    with contextlib.suppress(UserError, OSError):
        config = find_config(Path(split_label(spec)[1]))
        first = open_split(config.data, config.data.val_split).describe(0) if config else ""
        if Path(first).is_file():
            return Path(first)
    path = Path(folder) / "example.png"
    try:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image("flower.jpg")
    except ImportError:
        ramp = np.linspace(0, 255, EXAMPLE_SIDE)
        pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1, None]), axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def serve(subject: Subject, port: int, spec: str = "", *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve the page on this machine alone, until Ctrl-C or SIGTERM.

    Other sites that are open in the browser can't use it (`page_guard.OwnPageOnly`). Uploads have at most
    `LARGEST_UPLOAD_MIB`, lie in a folder that only this user can read, and are removed in the end.

    Args:
        subject: the model.
        port: of the page.
        spec: where the model was loaded from, for the page's head.
        on_ready: called with the page's address once it answers.

    Raises:
        UserError: gradio is not installed.
    """
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="sequencer2d-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of mode 0700; gradio reads its name when it is imported
        example = example_image(spec, folder) if subject.task is CLASSIFICATION else None
        page = build_app(subject, spec, example)
        page.queue(max_size=WAITING)
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            max_file_size=f"{LARGEST_UPLOAD_MIB}mb",
            app_kwargs={"middleware": [guard(port, LARGEST_UPLOAD_MIB * 2**20)]},
            prevent_thread_lock=True,
        )
        try:
            if on_ready is not None:
                on_ready(f"http://{HOST}:{port}")
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def build_app(subject: Subject, spec: str = "", example: Path | None = None) -> Any:
    """The page, a `gradio.Blocks` for `serve`. Nothing is sent anywhere: it runs and stays on this machine.

    Args:
        subject: the model.
        spec: where it was loaded from, for the page's head.
        example: a photo that the page is filled with from the start.

    Raises:
        UserError: gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the page needs gradio: {how_to_install('app')} ({error})") from error

    @contextlib.contextmanager
    def telling() -> Iterator[None]:
        """Show mistakes on the page."""
        try:
            yield
        except BrokenImageError as error:
            raise gradio.Error(f"the image cannot be read ({printable(error)})") from error
        except (UserError, NumericalError) as error:
            raise gradio.Error(str(error)) from error

    def show(file: str | None, block: str) -> tuple[Any, ...]:
        with telling():
            image = decode(file, subject.data.decoding) if file else None
            seen = look(subject, image, block)
        return (
            seen.classes,
            _html(seen.evidence, "Grad-CAM"),
            _html(seen.field, "effective receptive field"),
            _html(seen.states, "hidden states", wide=True),
            seen.sentence,
        )

    def show_found(file: str | None) -> tuple[Any, ...]:
        with telling():
            if not file:
                raise InputError("drop an image first")
            picture, rows = found_in(subject, file)
        return _html(picture, "what was found"), [[printable(cell) for cell in row] for row in rows]

    new_page = functools.partial(
        gradio.Blocks, title=f"How {subject.name} sees", analytics_enabled=False, delete_cache=(SWEEP_S, KEPT_S)
    )
    if subject.task is not CLASSIFICATION:
        with new_page() as page:
            add_found(gradio, subject, show_found)
        return page
    names = _blocks(subject)
    first: tuple[Any, ...] = (None, "", "", "", "")
    with contextlib.suppress(gradio.Error):
        first = show(str(example), names[0]) if example else first
    with new_page() as page:
        gradio.Markdown(f"# How {subject.name} sees\n\n{_head(subject, spec)}")
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(
                    # The file, not gradio's pixels: it would drop transparency and clip deep grayscale.
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    label="image: drop one of yours here",
                    height=280,
                    value=str(example) if example else None,
                    elem_id="image",
                )
                block = gradio.Dropdown(list(names), value=names[0], label="block", elem_id="block")
                classes = gradio.Label(first[0], num_top_classes=5, label="prediction", elem_id="prediction")
            with gradio.Column():
                # gradio.Image would lay its label and buttons, one of which uploads, over the figures' titles.
                evidence = gradio.HTML(first[1], elem_id="evidence")
                field = gradio.HTML(first[2], elem_id="field")
                shape = gradio.Markdown(first[4], elem_id="shape")
        states = gradio.HTML(first[3], elem_id="states")
        gradio.Markdown(EXPLANATION)
        outputs = [classes, evidence, field, states, shape]
        gradio.on([image.upload, block.input], show, [image, block], outputs)
    return page


def _blocks(subject: Subject) -> tuple[str, ...]:
    try:
        return tuple(name for name, _ in mixers(subject.model))
    except ConfigError:
        return block_names(subject.model)


def _head(subject: Subject, spec: str) -> str:
    """The model, its weights, their day; what to do."""
    said = [model_text(subject), *([weights_text(spec)] if spec else [])]
    return "\n\n".join([*(printable(text) for text in said), "Drop an image of yours in place of this one."])


def _html(picture: Image.Image | None, title: str, *, wide: bool = False) -> str:
    """A picture as an element of the page, as wide as there is room; nothing for none.

    `wide` keeps its letters readable on a phone, where one then moves it sidewards.
    """
    if picture is None:
        return ""
    size = "min-width:680px;max-width:100%" if wide else "max-width:100%"
    picture.save(buffer := io.BytesIO(), format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img alt="{title}" style="{size};height:auto" src="data:image/png;base64,{data}">'
    return f'<div style="overflow-x:auto">{image}</div>'


def _picture(figure: Any) -> Image.Image:
    return Image.open(io.BytesIO(figure_bytes(figure, "png", 110))).convert("RGB")
