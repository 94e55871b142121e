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
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from sequencer2d.analysis.blocks import block_names
from sequencer2d.analysis.erf import receptive_fields
from sequencer2d.analysis.figure_files import figure_bytes
from sequencer2d.analysis.figures import hidden_state_figure, receptive_field_grid
from sequencer2d.analysis.found_page import add_found, found_in
from sequencer2d.analysis.hidden_states import hidden_states, mixers
from sequencer2d.analysis.page_guard import guard
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.images import BrokenImageError, decode, to_rgb
from sequencer2d.data.words import readable
from sequencer2d.errors import ConfigError, InputError, NumericalError, UserError, how_to_install
from sequencer2d.evaluation.outcomes import logits_of
from sequencer2d.evaluation.pixels import check_photo
from sequencer2d.evaluation.subject import Subject
from sequencer2d.tasks import CLASSIFICATION
from sequencer2d.terminal import printable

HOST = "127.0.0.1"
LARGEST_UPLOAD_MIB = 20
WAITING = 16
"""Requests that may wait for the model."""
SWEEP_S, KEPT_S = 60, 600
"""How often uploads are swept, and how old they get, in seconds."""

EXPLANATION = (
    "**Receptive field**: how strongly each pixel moves the token in the middle of the block's output (a token is one "
    "cell of the block's map; *energy* is that strength squared, not the quantity of the paper's Figure 5); Sequencers "
    "see a cross. "
    "**Hidden states**: the most active channels of the vertical and the horizontal LSTMs and of their fusion."
)


def look(
    subject: Subject, image: Image.Image | None, block: str
) -> tuple[dict[str, float], Image.Image, Image.Image | None, str]:
    """What the page shows for an image.

    Returns:
        probabilities of the five best classes, a picture of the receptive field of `block`, one of its hidden states
        (None for models without recurrences), and a sentence on the field's shape.

    Raises:
        InputError: no image, or one too small for the model.
        ConfigError: no such block.
    """
    if image is None:
        raise InputError("drop an image first")
    check_photo(image, subject.data, "the image")
    pixels = np.asarray(eval_transform(subject.data)(to_rgb(image, subject.data.decoding)))
    probabilities = logits_of(subject, pixels[None]).softmax(dim=-1)[0]
    top = probabilities.topk(min(5, len(probabilities)))
    classes = {
        readable(subject.class_names[i]): float(p) for i, p in zip(top.indices.tolist(), top.values, strict=True)
    }
    field = receptive_fields(subject, pixels[None], [block])[0]
    shape = field.shape
    sentence = (
        f"{block}: {shape.cross_share:.0%} of the energy lies in the middle token's row and column; half of it in "
        f"{shape.area_50:.1%} of the image. {'A cross.' if shape.cruciform else 'No cross.'}"
    )
    try:
        states = _picture(hidden_state_figure(hidden_states(subject, pixels, block)))
    except ConfigError:
        states = None
    return classes, _picture(receptive_field_grid([[field]])), states, sentence


def serve(subject: Subject, port: int) -> None:
    """Serve the page on this machine alone, until Ctrl-C or SIGTERM.

    Other sites that are open in the browser can't use it (`page_guard.OwnPageOnly`). Uploads have at most
    `LARGEST_UPLOAD_MIB`, lie in a folder that only this user can read, and are removed in the end.

    Raises:
        UserError: gradio is not installed.
    """
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="sequencer2d-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of mode 0700; gradio reads its name when it is imported
        page = build_app(subject)
        page.queue(max_size=WAITING)
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            max_file_size=f"{LARGEST_UPLOAD_MIB}mb",
            app_kwargs={"middleware": [guard(port, LARGEST_UPLOAD_MIB * 2**20)]},
        )


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def build_app(subject: Subject) -> Any:
    """The page, a `gradio.Blocks` for `serve`. Nothing is sent anywhere: it runs and stays on this machine.

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
            classes, field, states, sentence = look(subject, image, block)
        return classes, _html(field, "effective receptive field"), _html(states, "hidden states"), sentence

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
    with new_page() as page:
        gradio.Markdown(f"# How {subject.name} sees\n\nDrop an image.")
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(
                    # The file, not gradio's pixels: it would drop transparency and clip deep grayscale.
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    label="image",
                    elem_id="image",
                )
                block = gradio.Dropdown(list(names), value=names[0], label="block", elem_id="block")
                classes = gradio.Label(num_top_classes=5, label="prediction", elem_id="prediction")
            with gradio.Column():
                # gradio.Image would lay its label and buttons, one of which uploads, over the figures' titles.
                field = gradio.HTML(elem_id="field")
                shape = gradio.Markdown(elem_id="shape")
        states = gradio.HTML(elem_id="states")
        gradio.Markdown(EXPLANATION)
        outputs = [classes, field, states, shape]
        gradio.on([image.upload, block.input], show, [image, block], outputs)
    return page


def _blocks(subject: Subject) -> tuple[str, ...]:
    try:
        return tuple(name for name, _ in mixers(subject.model))
    except ConfigError:
        return block_names(subject.model)


def _html(picture: Image.Image | None, title: str) -> str:
    """A picture as an element of the page, as wide as there is room; nothing for none."""
    if picture is None:
        return ""
    picture.save(buffer := io.BytesIO(), format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{title}" style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'


def _picture(figure: Any) -> Image.Image:
    return Image.open(io.BytesIO(figure_bytes(figure, "png", 110))).convert("RGB")
