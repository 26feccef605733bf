"""Shared pieces of the tests: tiny random models of every family, batches, and the embedded MiniLM."""

import datetime
import gc
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest
import torch

from prunelora.cli import main as entry
from prunelora.data.embedded import embedded_data_path, embedded_model_path
from prunelora.errors import MissingExtraError
from prunelora.evaluation import feasibility, latency_cache
from prunelora.evaluation.latency_cuts import cuts
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.planning.latency_model import LatencyModel, LatencyPoint

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

# Tiny models: more threads only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Latency models that tests measure do not go into the user's cache, nor do tests find those that are there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNELORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen_modules():
    """Python's collector skips objects from before the module's tests: each training would look at all of them."""
    gc.collect()
    gc.freeze()


# One family of every layout is tried every time; those that share their layout with one of these are slow tests.
LIKE_ANOTHER = {"xlm-roberta", "camembert", "deit", "nomic_bert", "mistral", "qwen2", "qwen3", "gemma", "mbart"}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow) if name in LIKE_ANOTHER else name for name in sorted(FAMILIES)]
)
def family(request) -> str:
    return request.param


@pytest.fixture(params=["sdpa", "eager"])
def attention(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def minilm_path():
    try:
        return embedded_model_path()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def reviews_path():
    try:
        return embedded_data_path()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture
def prunelora(capsys, monkeypatch):
    """Run a command in this process; gives exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prunelora", *arguments])
        code = 0
        try:
            entry.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def latency_asked(monkeypatch):
    """Made-up times in place of measured ones, for what must not depend on the clock; gives the settings asked for."""
    asked = []

    def made_up(model, settings, **_):
        asked.append(settings)
        found = dissect(model).architecture
        points = tuple(
            LatencyPoint(heads=cut.heads, neurons=cut.neurons, ms=ms, q25_ms=ms, q75_ms=ms)
            for cut in cuts(found)
            for ms in [2 + cut.heads + cut.neurons / 10]
        )
        now = datetime.datetime.now(datetime.UTC)
        settings = settings.model_copy(update={"threads": 1})
        return LatencyModel(architecture=found, settings=settings, points=points, measured_at=now)

    monkeypatch.setattr(feasibility, "latency_model_for", made_up)
    monkeypatch.setattr(latency_cache, "latency_model_for", made_up)
    return asked
