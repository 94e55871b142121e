"""The page that recognizes photos in a browser: what is in it, and what a real browser makes of it.

The browser's tests need ONNX Runtime Web, which `SEQUENCER2D_ONNXRUNTIME_WEB` names as `--runtime` would, and Chromium
with its driver.
"""

import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.data.config import DataConfig, fields_of_input
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.images import decode
from sequencer2d.data.normalization import normalize
from sequencer2d.errors import CheckpointError, ConfigError, ExportError
from sequencer2d.export import export_model, load_artifact, page
from sequencer2d.export.formats import write_web
from sequencer2d.export.metadata import describe
from sequencer2d.input_spec import InputSpec
from sequencer2d.models.sequencer2d import Sequencer2D
from tests.export.conftest import NAMES, small

RUNTIME = os.environ.get("SEQUENCER2D_ONNXRUNTIME_WEB")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZE = 64
LIMIT = 1e-4
"""Largest difference of logits from the same pixels, over the largest logit."""
JPEG_LEVELS, JPEG_LIMIT = 1, 0.02
"""How many of 255 levels decoders of JPEG may differ by, and by how much the logits then."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the npm package, with other content."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "dist").mkdir()
    (folder / page.SCRIPT).write_text("export const env = '</script>';")
    (folder / page.CODE).write_bytes(bytes(range(256)))
    (folder / page.ABOUT).write_text('{"name": "onnxruntime-web", "version": "1.2.3"}')
    return folder


@pytest.fixture(scope="module")
def written(model: Sequencer2D, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the small model."""
    path = tmp_path_factory.mktemp("page") / "model.html"
    exported = export_model(model, path, "web", runtime=package, sizes=[(16, 16)])
    assert (exported.format, exported.recurrent_nodes) == ("web", 4)
    return path


def test_a_page_holds_the_model_its_runtime_and_its_classes_and_loads_nothing(written: Path, package: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert [path.name for path in written.parent.iterdir()] == ["model.html"]
    assert json.dumps(NAMES[-1]) in text
    assert "ONNX Runtime Web 1.2.3" in text
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "{{" not in text
    assert text.count("</script>") == 6  # none of them from the runtime
    assert page._packed((package / page.CODE).read_bytes()) in text


def test_a_page_stands_in_place_of_a_model(model: Sequencer2D, written: Path) -> None:
    artifact = load_artifact(written)
    assert (artifact.kind, artifact.num_classes) == ("web", len(NAMES))
    assert artifact.pretrained_cfg["label_names"] == list(NAMES)


def test_a_name_cannot_end_the_script_that_it_stands_in(package: Path, tmp_path: Path) -> None:
    model = small()
    names = ["</script><b>", "<!--", "a", "b", "c"]
    model.pretrained_cfg = model.pretrained_cfg | {"label_names": names}
    runtime = page.read_runtime(package)
    page.write_page(model, b"", tmp_path / "m.html", describe(model, "web", "fp32"), runtime)
    text = (tmp_path / "m.html").read_text(encoding="utf-8")
    described = text.partition('<script id="description" type="application/json">')[2].partition("</script>")[0]
    assert json.loads(described)["classes"] == names
    assert "<b>" not in text


def test_a_runtime_is_read_from_an_archive_as_from_a_folder(package: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "r.tgz", "w:gz") as archive:
        archive.add(package, "package")
    assert page.read_runtime(tmp_path / "r.tgz") == page.read_runtime(package)
    assert page.read_runtime(package).version == "1.2.3"


def test_what_is_no_runtime_is_said_with_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "no.tgz").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/package.json"), io.BytesIO())
    for name in ("no.tgz", "empty", "other.tgz", "missing"):
        with pytest.raises(ConfigError, match=f"{name}.*npm pack onnxruntime-web"):
            page.read_runtime(tmp_path / name)
    with pytest.raises(ConfigError, match="npm pack onnxruntime-web"):
        export_model(small(), tmp_path / "m.html", "web")
    with pytest.raises(ConfigError, match="holds no runtime"):
        export_model(small(), tmp_path / "m.onnx", "onnx", runtime=tmp_path / "no.tgz")


def test_pages_are_for_photos_and_other_pages_are_no_models(package: Path, tmp_path: Path) -> None:
    gray = small(in_chans=1)
    with pytest.raises(ExportError, match="3 channels"):
        write_web(gray, tmp_path / "m.html", describe(gray, "web", "fp32"), page.read_runtime(package))
    (tmp_path / "report.html").write_text("<p>a report</p>")
    with pytest.raises(CheckpointError, match="holds no model"):
        load_artifact(tmp_path / "report.html")


def test_a_page_that_was_cut_off_is_said(written: Path, tmp_path: Path) -> None:
    text = written.read_text(encoding="utf-8")
    before, _, packed = text.partition('<script id="model" type="text/plain">')
    half = packed.partition("</script>")[0][:4000]
    cut = f'{before}<script id="model" type="text/plain">{half}</script>'
    (tmp_path / "m.html").write_text(cut, encoding="utf-8")
    with pytest.raises(CheckpointError, match="cut off"):
        load_artifact(tmp_path / "m.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, with an empty profile."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def shown(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small model with the real runtime, opened in the browser from the disk."""
    if RUNTIME is None:
        pytest.skip("needs ONNX Runtime Web: SEQUENCER2D_ONNXRUNTIME_WEB")
    path = tmp_path_factory.mktemp("shown") / "model.html"
    export_model(small(img_size=(SIZE, SIZE)), path, "web", runtime=RUNTIME, sizes=[(SIZE, SIZE)])
    browser.get(path.as_uri())
    assert wait(browser, "ready") == ""
    return path


def wait(browser: Any, state: str) -> str:
    """Wait until the page is in that state; what its status says then."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = browser.execute_script("return document.documentElement.dataset.state")
        if found in (state, "failed"):
            break
        time.sleep(0.1)
    assert found == state, browser.find_element("id", "status").text
    return str(browser.find_element("id", "status").text)


def photographs(folder: Path) -> dict[str, Path]:
    """Files of many kinds: photographs, upright and turned by EXIF, gray, transparent, WebP, and a narrow one."""
    datasets = pytest.importorskip("sklearn.datasets")
    china, flower = (Image.fromarray(image) for image in datasets.load_sample_images().images)
    turned = Image.Exif()
    turned[274] = 6
    faded = flower.copy()
    faded.putalpha(Image.linear_gradient("L").resize(flower.size))
    images: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "china.jpg": (china, {"quality": 90}),
        "flower.png": (flower, {}),
        "turned.jpg": (china, {"exif": turned, "quality": 90}),
        "gray.png": (china.convert("L"), {}),
        "palette.png": (flower.convert("P"), {}),
        "faded.png": (faded, {}),
        "flower.webp": (flower, {"lossless": True}),
        "narrow.png": (china.crop((0, 0, 40, 400)), {}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    return {name: folder / name for name in images}


RECOGNIZE = """
const done = arguments[arguments.length - 1];
const file = document.getElementById("file").files[0];
const answer = ({pixels, logits}) => done([Array.from(pixels), logits]);
sequencer2d.recognize(file).then(answer, (error) => done(String(error)));
"""


def test_the_browser_sees_in_photographs_what_python_sees(browser: Any, shown: Path, tmp_path: Path) -> None:
    """The same pixels, apart from what decoders of JPEG may differ by, and from the same pixels the same logits."""
    artifact = load_artifact(shown)
    config = DataConfig(**fields_of_input(InputSpec.from_timm(artifact.pretrained_cfg)))
    for name, path in photographs(tmp_path).items():
        pixels, logits = pixels_and_logits(artifact, path, config)
        browser.find_element("id", "file").send_keys(str(path))
        assert "ms for the model" in wait(browser, "done")
        found_pixels, found_logits = browser.execute_async_script(RECOGNIZE)
        off = np.abs(np.array(found_pixels) - pixels.astype(int).ravel()).max()
        assert off <= (JPEG_LEVELS if path.suffix == ".jpg" else 0), name
        limit = LIMIT if off == 0 else JPEG_LIMIT
        np.testing.assert_allclose(found_logits, logits, rtol=0, atol=limit * np.abs(logits).max(), err_msg=name)
        names = [each.text for each in browser.find_elements("css selector", "#classes span")]
        assert names == [NAMES[index] for index in np.argsort(-np.array(found_logits))], name


def pixels_and_logits(artifact: torch.nn.Module, path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """What `predict` makes of a file: uint8 (H, W, 3) and the logits of an image."""
    pixels = eval_transform(config)(decode(path, config.decoding))
    batch = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
    logits = artifact(normalize(batch, config.mean, config.std, device=torch.device("cpu")))
    return pixels, logits[0].numpy()


def test_what_is_no_image_is_said_and_the_next_photo_is_recognized(browser: Any, shown: Path, tmp_path: Path) -> None:
    files = photographs(tmp_path)
    (tmp_path / "note.jpg").write_text("no image")
    browser.find_element("id", "file").send_keys(str(tmp_path / "note.jpg"))
    deadline = time.monotonic() + 30
    while browser.execute_script("return document.documentElement.dataset.state") != "failed":
        assert time.monotonic() < deadline
    assert browser.find_element("id", "status").text == "note.jpg is no image that this browser can read."
    browser.find_element("id", "file").send_keys(str(files["narrow.png"]))
    wait(browser, "done")


def test_the_page_may_load_nothing_and_send_nothing(browser: Any, shown: Path) -> None:
    """Without the page's policy a request for a data URL succeeds, with it none does."""
    script = "fetch('data:,x').then(() => arguments[0]('loaded'), () => arguments[0]('refused'))"
    assert browser.execute_async_script(script) == "refused"


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_screens_of_phones_and_desktops(
    browser: Any, shown: Path, tmp_path: Path, width: int
) -> None:
    """Nothing is wider than the screen, and the photo stands above the classes on a phone, beside them on a desktop."""
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.find_element("id", "file").send_keys(str(photographs(tmp_path)["china.jpg"]))
    wait(browser, "done")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    photo, classes = (browser.find_element("id", name).rect for name in ("photo", "classes"))
    assert (photo["y"] + photo["height"] <= classes["y"]) == (width == 360)
    if folder := os.environ.get("SEQUENCER2D_SCREENSHOTS"):
        browser.get_screenshot_as_file(f"{folder}/page-{width}.png")
