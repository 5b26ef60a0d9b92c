"""The `.mlpackage` of a Core ML artefact: two files of a bundle, and a table of contents that is always the same."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

_PLACE = "com.apple.CoreML"
_ENTRIES = (
    ("00000000-0000-4000-8000-000000000001", "CoreML Model Specification", "model.mlmodel"),
    ("00000000-0000-4000-8000-000000000002", "CoreML Model Weights", "weights"),
)


def write_package(files: Mapping[str, Path], package: Path) -> Path:
    """Write the folder that Xcode and Core ML take, of `files["model"]` and `files["weights"]`."""
    data = package / "Data" / _PLACE
    (data / "weights").mkdir(parents=True)
    shutil.copyfile(files["model"], data / "model.mlmodel")
    shutil.copyfile(files["weights"], data / "weights" / "weight.bin")
    entries = {
        key: {"author": _PLACE, "description": about, "name": name, "path": f"{_PLACE}/{name}"}
        for key, about, name in _ENTRIES
    }
    contents = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": _ENTRIES[0][0]}
    (package / "Manifest.json").write_text(json.dumps(contents, indent=4))
    return package
