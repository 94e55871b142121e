"""The local page of a model for segmentation or detection: drop an image, see what is found in it."""

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from sequencer2d.data.images import BrokenImageError
from sequencer2d.evaluation.predict import picture_of, predict
from sequencer2d.evaluation.subject import Subject


def found_in(subject: Subject, file: str | os.PathLike[str]) -> tuple[Image.Image, list[Sequence[str]]]:
    """The picture of what a model finds in an image file, and the rows of its table.

    Raises:
        BrokenImageError: the file cannot be read.
        NumericalError: outputs of the model that are not finite.
    """
    (prediction,) = predict(
        subject.model,
        [file],
        subject.data,
        subject.task,
        class_names=subject.class_names,
        device=subject.device,
    )
    if prediction.found is None:
        raise BrokenImageError(prediction.error)
    return picture_of(prediction, subject.data), list(prediction.found.rows())


def add_found(gradio: Any, subject: Subject, show: Any) -> None:
    """Fill a page of gradio's: an image to drop on the left, the picture and its table on the right.

    `show` maps the image's file to the values of the picture and of the table.
    """
    gradio.Markdown(f"# What {subject.name} finds\n\nDrop an image.")
    with gradio.Row():
        with gradio.Column():
            image = gradio.Image(
                type="filepath", image_mode=None, sources=["upload", "clipboard"], label="image", elem_id="image"
            )
            table = gradio.Dataframe(headers=list(subject.task.columns), label="found", elem_id="found")
        with gradio.Column():
            picture = gradio.HTML(elem_id="picture")
    gradio.on([image.upload], show, [image], [picture, table])
