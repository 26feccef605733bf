"""Memory and time of repair by its number of calibration rows: MiniLM at half of its heads and neurons.

python -m benchmarks.repair_memory [--rows 256,512] [--tokens 128] [--most-mib 32] [--repeats 3] [--out FILE]
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.resident import peak_above, peak_in_fresh_process

ROOT = Path(__file__).resolve().parents[1]
BATCH_SIZE = 32
MIB = 1024**2


def main() -> int:
    arguments = parsed()
    rows = [int(one) for one in arguments.rows.split(",")]
    if arguments.memory_of:
        print(json.dumps(peak_above(prepared(arguments, [int(arguments.memory_of)])[arguments.memory_of])))
        return 0

    from prunelora.evaluation.machine import describe_machine
    from prunelora.evaluation.timing import interleaved, ratio
    from prunelora.storage import write_json

    # Each in a process of its own, where no other has left anything behind.
    memory = {str(one): peak_in_fresh_process("benchmarks.repair_memory", str(one)) for one in rows}
    timings = interleaved(prepared(arguments, rows), warmup=0, repeats=arguments.repeats)
    first, last = str(rows[0]), str(rows[-1])
    result: dict[str, Any] = {
        "benchmark": "repair_memory",
        "model": "minilm, half of its heads and neurons",
        "settings": {
            "rows": rows,
            "tokens": arguments.tokens,
            "batch_size": BATCH_SIZE,
            "states_in_memory_mib": arguments.most_mib,
            "repeats": arguments.repeats,
            "seed": 0,
        },
        "mib_of_one_hidden_state_of_all_rows": {str(one): one * arguments.tokens * 384 * 4 / MIB for one in rows},
        "peak_memory_bytes_above_loaded_models": memory,
        "times": {name: timing.to_dict() for name, timing in timings.items()},
        "most_rows_over_fewest": {
            "memory": memory[last] / memory[first],
            "time": vars(ratio(timings[last], timings[first])),
        },
        "machine": describe_machine(),
    }
    write_json(arguments.out, result)
    print_table(result, arguments.out)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repair_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="256,512", help="calibration rows, joined by commas, fewest first")
    parser.add_argument("--tokens", type=int, default=128, help="tokens a row")
    parser.add_argument("--most-mib", type=int, default=32, help="MiB of hidden states that repair holds in memory")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "repair_memory.json")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepared(arguments: argparse.Namespace, rows: list[int]) -> dict[str, Callable[[], object]]:
    """A repair by number of rows."""
    import torch
    import transformers

    import prunelora as pl
    from prunelora.data.embedded import embedded_model_path
    from prunelora.pruning import repair

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    repair.MOST_BYTES = arguments.most_mib * MIB
    torch.manual_seed(0)
    dense = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path()).eval()
    plan = pl.make_plan(pl.score(dense, criterion="magnitude"), keep_heads=0.5, keep_ffn=0.5)
    pruned = pl.prune_(copy.deepcopy(dense), plan)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20_000, (max(rows), arguments.tokens), generator=generator)

    def repaired(number: int) -> Callable[[], object]:
        batches = [
            {"input_ids": some, "attention_mask": torch.ones_like(some)} for some in ids[:number].split(BATCH_SIZE)
        ]
        return lambda: repair.repair_(pruned, dense, batches)

    return {str(number): repaired(number) for number in rows}


def print_table(result: dict[str, Any], out: Path) -> None:
    settings, machine = result["settings"], result["machine"]
    print(f"{result['model']}, rows of {settings['tokens']} tokens; {machine['cpu']}, {machine['threads']} threads")
    print(f"at most {settings['states_in_memory_mib']} MiB of hidden states in memory\n")
    print(f"{'rows':>6}{'one state of all':>18}{'peak memory':>14}{'median':>10}{'quartiles':>20}")
    for name, timing in result["times"].items():
        quartiles = f"{timing['q25_ms'] / 1000:.1f} to {timing['q75_ms'] / 1000:.1f}"
        peak = result["peak_memory_bytes_above_loaded_models"][name] / MIB
        state = result["mib_of_one_hidden_state_of_all_rows"][name]
        print(f"{name:>6}{state:>14.0f} MiB{peak:>10.0f} MiB{timing['median_ms'] / 1000:>8.1f} s{quartiles:>20}")
    print(f"\n{out}")


if __name__ == "__main__":
    sys.exit(main())
