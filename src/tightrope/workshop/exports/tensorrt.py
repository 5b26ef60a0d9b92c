"""A folder that TensorRT's own tool builds an engine from: the ONNX file, its weights, and the command."""

import shutil
from pathlib import Path

from tightrope.bundle import Bundle
from tightrope.workshop.exports.content import artefact_of, write_template


def export(source: Bundle, folder: Path) -> Path:
    """Write the folder. Raises `BundleError` for a bundle without a TensorRT artefact, `OutputError`."""
    artefact, files = artefact_of(source, "tensorrt")
    profile = artefact.settings["profile"]
    flags = {
        flag: ",".join(f"{name}:{'x'.join(map(str, shapes[place]))}" for name, shapes in profile.items())
        for flag, place in (("MIN", "least"), ("OPT", "usual"), ("MAX", "most"))
    }
    write_template("tensorrt", folder, flags | {"DIGEST": source.digest})
    shutil.copyfile(files["model"], folder / "model.onnx")
    shutil.copyfile(files["weights"], folder / str(artefact.settings["weights_name"]))
    (folder / "build.sh").chmod(0o755)
    return folder
