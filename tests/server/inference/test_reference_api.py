"""The examples of the API as it was asked for run unchanged, but for the port, given a model that is up."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import running_server, scripted_model

PYTHON = """
import requests
import base64

# Load and encode image
with open('image.jpg', 'rb') as f:
    image_b64 = base64.b64encode(f.read()).decode()

# Make inference request
response = requests.post('http://localhost:5000/api/claude4', json={
    'text': 'What is in this image?',
    'frames': [image_b64],
    'max_tokens': 1024,
    'temperature': 0.1
})

print(response.json())
"""

JAVASCRIPT = """
const fileToBase64 = (file) => {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(',')[1]);
    reader.readAsDataURL(file);
  });
};

const inferenceRequest = async (imageFile) => {
  const imageB64 = await fileToBase64(imageFile);
  
  const response = await fetch('/api/claude4', {
    method: 'POST',
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({
      text: 'Analyze this image',
      frames: [imageB64],
      max_tokens: 1024,
      temperature: 0.1
    })
  });
  
  return response.json();
};
"""  # noqa: W293 - word for word

# What a browser has and Node has not: a reader of files, and a page's own address.
BROWSER = """
import {readFile} from 'node:fs/promises';
globalThis.FileReader = class {
  async readAsDataURL(blob) {
    this.result = `data:${blob.type};base64,${Buffer.from(await blob.arrayBuffer()).toString('base64')}`;
    this.onload();
  }
};
const nodeFetch = globalThis.fetch;
globalThis.fetch = (path, options) => nodeFetch('ADDRESS' + path, options);
"""
USE = """
const image = new Blob([await readFile('image.jpg')], {type: 'image/jpeg'});
console.log(JSON.stringify(await inferenceRequest(image)));
"""


async def run_and_capture(folder: Path, *command: str) -> str:
    child = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    assert child.returncode == 0
    return out.decode()


@pytest.mark.parametrize("language", ["python", "javascript"])
@async_test
async def test_reference_example_gets_documented_envelope(tmp_path: Path, language: str) -> None:
    (tmp_path / "image.jpg").write_bytes(plain_picture(8, 8, "jpeg").data)
    async with running_server(tmp_path, models={"claude4": scripted_model("say:A grey square")}) as server:
        if language == "python":
            code = PYTHON.replace("http://localhost:5000", server.url)
            out = await run_and_capture(tmp_path, sys.executable, "-c", code)
        else:
            node = shutil.which("node")
            if node is None:
                pytest.skip("Node is not installed")
            code = BROWSER.replace("ADDRESS", server.url) + JAVASCRIPT + USE
            out = await run_and_capture(tmp_path, node, "--input-type=module", "-e", code)
    assert "A grey square" in out
    assert all(name in out for name in ("time", "request", "frames_count", "response", "content", "usage"))
