"""The page in a real browser, headless; and what it shows, without one."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from sequencer2d.analysis.app import look
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.models.checkpoints import save_weights
from tests.analysis.test_hidden_states import image, subject

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
    classes, field, states, sentence = look(subject(), Image.fromarray(image(0, 40, 30)), "stages.0.blocks.0")
    assert sum(classes.values()) == pytest.approx(1, abs=1e-5)
    assert set(classes) == {"a", "b", "c"}
    assert min(field.size) > 100
    assert states is not None
    assert sentence.endswith("A cross.")
    with pytest.raises(InputError, match="drop an image"):
        look(subject(), None, "stages.0.blocks.0")
    with pytest.raises(InputError, match="the image is too small: it has 2×30 pixels"):
        look(subject(), Image.fromarray(image(0, 2, 30)), "stages.0.blocks.0")
    with pytest.raises(ConfigError, match="no block 'stage9'"):
        look(subject(), Image.fromarray(image()), "stage9")


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
