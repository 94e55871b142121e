"""The page in a real browser, headless; and what it shows, without one."""

import asyncio
import contextlib
import dataclasses
import http.client
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.analysis import app
from sequencer2d.analysis.app import LARGEST_UPLOAD_MIB, look
from sequencer2d.analysis.page_guard import OwnPageOnly
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.evaluation.pixels import normalized
from sequencer2d.models import save_weights
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import to_dict, with_overrides
from tests.analysis.test_hidden_states import image, subject
from tests.data.test_parts import make_photos

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1400",
)


def test_what_the_page_shows():
    seen = look(subject(), Image.fromarray(image(0, 40, 30)), "stages.0.blocks.0")
    assert sum(seen.classes.values()) == pytest.approx(1, abs=1e-5)
    assert set(seen.classes) == {"a", "b", "c"}
    assert min(seen.field.size) > 100
    assert seen.evidence is not None
    assert seen.states is not None
    assert re.search(r"half of it in \d+ of 576 pixels\. A cross\.$", seen.sentence)
    with pytest.raises(InputError, match="drop an image"):
        look(subject(), None, "stages.0.blocks.0")
    with pytest.raises(InputError, match="the image is too small: it has 2×30 pixels"):
        look(subject(), Image.fromarray(image(0, 2, 30)), "stages.0.blocks.0")
    with pytest.raises(ConfigError, match="no block 'stage9'"):
        look(subject(), Image.fromarray(image()), "stage9")


def test_the_page_begins_with_a_photo_of_the_runs_own(tmp_path):
    photos = make_photos(tmp_path / "photos", {"red": 5, "green": 5}, (20, 16))
    data = {"data.source": str(photos), "data.train_split": "", "data.val_split": "val", "data.val_fraction": 0.2}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_dict(with_overrides(TrainConfig(), data))))
    assert app.example_image(str(tmp_path / "run"), tmp_path).is_relative_to(photos)
    shutil.rmtree(photos)
    assert app.example_image(str(tmp_path / "run"), tmp_path) == tmp_path / "example.png"
    with Image.open(app.example_image("timm:resnet18", tmp_path)) as made:
        assert min(made.size) > 200


def test_the_page_shows_the_five_best_classes():
    seven = dataclasses.replace(subject(num_classes=7), class_names=tuple("abcdefg"))
    torch.nn.init.normal_(seven.model.head.fc.weight)
    photo = Image.fromarray(image())
    classes = look(seven, photo, "stages.0.blocks.0").classes
    pixels = np.asarray(eval_transform(seven.data)(photo))
    with torch.no_grad():
        probabilities = seven.model(normalized(pixels[None], seven)).softmax(dim=-1)[0]
    expected = sorted(zip(probabilities.tolist(), "abcdefg", strict=True), reverse=True)[:5]
    assert list(classes) == [name for _, name in expected]
    assert list(classes.values()) == pytest.approx([value for value, _ in expected], abs=1e-4)


def test_pictures_of_the_page_have_110_pixels_an_inch():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.add_axes([0, 0, 1, 1]).set(xticks=[], yticks=[])
    around = 2 * 0.1  # inches, which matplotlib adds
    assert app._picture(figure).size == pytest.approx((110 * (3 + around), 110 * (2 + around)), abs=2)


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed (extra app)")
@pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed")
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Debian's chromium and chromium-driver are not installed")
def test_a_person_drops_an_image_in_a_browser(tmp_path):
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    photo, checkpoint = tmp_path / "photo.png", tmp_path / "small.safetensors"
    Image.fromarray(image(1, 48, 48)).save(photo)
    model = subject().model
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 24, 24)}
    save_weights(model, checkpoint)
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "sequencer2d",
        "analyze",
        "app",
        str(checkpoint),
        "--device",
        "cpu",
        "--port",
        str(port),
    ]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    browser = None
    try:
        _wait_for(port, server)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        browser.get(f"http://127.0.0.1:{port}")
        wait = WebDriverWait(browser, 60)
        field = wait.until(lambda b: b.find_element(By.CSS_SELECTOR, "#image input[type=file]"))
        field.send_keys(str(photo))
        wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#field img"))
        wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#states img"))
        assert "A cross." in browser.find_element(By.ID, "shape").text
        assert browser.find_element(By.ID, "prediction").text.strip()
        assert browser.save_screenshot(str(tmp_path / "page.png"))
    finally:
        if browser is not None:
            browser.quit()
        server.terminate()
        server.communicate(timeout=30)


@contextlib.contextmanager
def served(tmp_path):
    """The page of a small model in a process of its own: its address, and the folder of its uploads."""
    pytest.importorskip("gradio", reason="gradio is not installed (extra app)")
    checkpoint, port = tmp_path / "small.safetensors", _free_port()
    save_weights(subject().model, checkpoint)
    command = (sys.executable, "-m", "sequencer2d", "analyze", "app", checkpoint, "--device", "cpu", "--port", port)
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    server = subprocess.Popen(
        [str(part) for part in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        # The address is printed when the page answers, so no request has to be repeated.
        assert server.stdout.readline().decode().startswith(f"http://127.0.0.1:{port} ")
        (folder,) = tmp_path.glob("sequencer2d-page-*")
        yield f"http://127.0.0.1:{port}", folder
    finally:
        server.terminate()
        server.communicate(timeout=30)


def ask(address, path, *, data=None, **headers):
    """(status, body) of a request."""
    request = urllib.request.Request(address + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def announce(address, path, length):
    """Status of a request that states the length of its body, before it sends any."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def form(content):
    """An upload as a browser sends it."""
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    return {"data": body, "Content_Type": "multipart/form-data; boundary=x"}


def described(config):
    """The properties of the page's parts by their names, as the server tells them to a browser."""
    parts = (part["props"] for part in config["components"])
    return {part["elem_id"]: part for part in parts if part.get("elem_id")}


def upload(address, content, **headers):
    fields = form(content)
    return ask(
        address, "/gradio_api/upload", data=fields["data"], **{"Content-Type": fields["Content_Type"]}, **headers
    )


def test_the_page_keeps_uploads_to_itself(tmp_path):
    with served(tmp_path) as (address, folder):
        assert ask(address, "/")[0] == 200
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        parts = described(json.loads(ask(address, "/config")[1]))
        assert set(parts) == {"image", "block", "prediction", "evidence", "field", "shape", "states"}
        assert all("<img" in parts[name]["value"] for name in ("evidence", "field", "states")), "filled from the start"
        assert parts["image"]["value"]
        names = [name for name, _ in parts["block"]["choices"]]
        assert names == ["stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0"]
        assert parts["block"]["value"] == names[0]
        assert parts["prediction"]["num_top_classes"] == 5
        assert parts["image"].get("image_mode") is None
        Image.fromarray(image()).save(buffer := io.BytesIO(), "PNG")
        status, answer = upload(address, buffer.getvalue(), Origin=address)
        assert status == 200
        (path,) = json.loads(answer)
        assert Path(path).is_relative_to(folder)

        before = sorted(folder.rglob("*"))
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": address.replace("http:", "https:")},
            {"Origin": "http://127.0.0.1:1"},
            {"Host": "evil.example"},
            {"Host": f"evil.example:{address.rpartition(':')[2]}"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            assert upload(address, buffer.getvalue(), **headers)[0] == 403, headers
        assert ask(address, "/config", Origin="http://evil.example")[0] == 403
        for path in ("/gradio_api/upload", "/gradio_api/queue/join", "/"):
            assert announce(address, path, (LARGEST_UPLOAD_MIB + 2) * 2**20) == 413
        assert sorted(folder.rglob("*")) == before
    assert not list(tmp_path.glob("sequencer2d-page-*"))


@pytest.mark.parametrize("stated", [True, False])
def test_bodies_end_at_the_limit(stated):
    received = []

    async def application(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            received.append(len(message["body"]))
            if not message["more_body"]:
                break

    async def receive():
        return {"type": "http.request", "body": bytes(10), "more_body": True}

    async def send(message):
        sent.append(message)

    sent = []
    length = [(b"content-length", b"1000000")] if stated else []
    scope = {"type": "http", "method": "POST", "headers": [(b"host", b"localhost:7"), *length]}
    asyncio.run(OwnPageOnly(application, port=7, largest_body=95)(scope, receive, send))
    assert sum(received) == (0 if stated else 90)
    assert [message.get("status") for message in sent[:1]] == ([413] if stated else [])


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_for(port, server, seconds=120):
    """Until the page answers; the server's words if it ends before."""
    for _ in range(seconds * 2):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            raise AssertionError(server.communicate()[0].decode())
        time.sleep(0.5)
    raise AssertionError(f"nothing answers on port {port}")
