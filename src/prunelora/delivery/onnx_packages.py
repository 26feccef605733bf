"""The packages of the extra "onnx": whether they are installed, asked without importing torch or the packages."""

from prunelora.errors import check_installed

# Advice for errors of a run that cannot export.
WITHOUT_EXPORT = "Or run without the export: prunelora run --no-export; in Python compress(export=False)."


def require_packages(way_out: str = "") -> None:
    """Check that the packages of `export` are installed.

    Args:
        way_out: Part of the error's message: how to do without ONNX.

    Raises:
        MissingExtraError: If the packages of the extra "onnx" are not installed.
    """
    check_installed(("onnx", "onnxruntime", "onnxscript"), "ONNX export", "onnx", way_out)
