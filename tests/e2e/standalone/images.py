"""Images as another tool sees them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from imgbuilder.standalone.engines.layouts import open_layout
from tests.e2e.standalone.programs import need
from tests.world.baseimage import config_of, files_of


def pulled(ref: str, folder: Path, *, credentials: str = "") -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files and the configuration of the image *ref*, pulled with skopeo into the new *folder*."""
    need("skopeo")
    options = ["--src-tls-verify=false", *(["--src-creds", credentials] if credentials else [])]
    command = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        *options,
        f"docker://{ref}",
        f"oci:{folder}:x",
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    layout = open_layout(folder)
    return files_of(layout), dict(config_of(layout))


def digest_of(ref: str) -> str:
    """The digest of the image *ref*, as skopeo tells it."""
    need("skopeo")
    command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{ref}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["Digest"])
