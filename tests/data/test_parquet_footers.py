"""Footers of Parquet files with one byte more, fewer or other: our errors, where pyarrow would end the process."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import warm_python

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

READ = """
import sys
from pathlib import Path
from flowmo.data import open_images
from flowmo.errors import FlowMoError
path = Path(sys.argv[1])
whole = path.read_bytes()
footer = int.from_bytes(whole[-8:-4], "little")
begin = len(whole) - 8 - footer
refused = 0

def read(changed):
    length = (len(changed) - begin - 8).to_bytes(4, "little")
    path.write_bytes(changed[:-8] + length + changed[-4:])
    try:
        source = open_images(path)
        for i in range(min(2, len(source))):
            source[i]
    except FlowMoError as error:
        assert "a.parquet" in str(error) or ".png" in str(error) or "a picture" in str(error), error
        return 1
    return 0

for place in range(begin, len(whole) - 8, int(sys.argv[2])):
    for value in (0, whole[place] ^ 1, whole[place] ^ 16, 255):
        refused += read(whole[:place] + bytes([value]) + whole[place + 1:])
    refused += read(whole[:place] + whole[place + 1:])
    refused += read(whole[:place] + b"\\x12" + whole[place:])
print(refused)
"""


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False, "compression": "gzip", "row_group_size": 2}])
def test_a_changed_byte_of_the_footer_is_an_error_of_ours(options: dict[str, object], tmp_path: Path) -> None:
    images = [{"bytes": picture(k), "path": f"{k}.png"} for k in range(3)]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2]}), tmp_path / "a.parquet", **options)
    step = "1" if "FLOWMO_SLOW" in os.environ else "3"
    words = [warm_python.python(), "-c", READ, str(tmp_path / "a.parquet"), step]
    done = subprocess.run(words, env=warm_python.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 500
