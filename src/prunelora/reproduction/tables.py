"""The paper's four tables beside ours, and the counts, as data shared by terminal, Markdown and HTML."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prunelora.comparison.results import Estimate, LatencyFacts, MethodFacts
from prunelora.comparison.tables import inference_size, largest_size, latency_at
from prunelora.comparison.texts import NONE, number_text, quality_text, share_text, signed, size_text
from prunelora.report.reading import in_units, milliseconds
from prunelora.report.tables import Table
from prunelora.reproduction import paper
from prunelora.reproduction.counts import Counts, extra_of_a_head
from prunelora.reproduction.results import Reproduction, TaskOutcome

NOT_RUN = "not run"
NOT_TIMED = "not timed"


@dataclass(frozen=True)
class Named:
    """A table under its title.

    Attributes:
        title: What it shows, with the model that our numbers are of.
        text: What a reader must know to read it.
        table: The table.
        folded: Whether it is shown closed where a page can do that.
    """

    title: str
    text: tuple[str, ...]
    table: Table
    folded: bool = False


def all_tables(reproduction: Reproduction) -> list[Named]:
    """Tables 1 to 4, then the parameter counts behind tables 2 and 3."""
    label = reproduction.label
    missing = (f"Not run: {', '.join(reproduction.missing)}.",) if reproduction.missing else ()
    scope = (*missing, *notes_text(reproduction))
    beside = () if reproduction.is_papers_model else (f"The paper's are of {paper.MODEL}, ours of {label}.",)
    tables = [
        Named(
            f"Table 1: accuracy on six tasks, ours ({label})",
            (
                "Mean and standard deviation over seeds, in per cent, on GLUE's validation rows. Most frequent class: "
                "what always answering the most frequent class of the training rows gets. The mean takes a "
                "task's first "
                "rows: MNLI's matched ones.",
                *scope,
            ),
            accuracy_table(reproduction),
        ),
        Named(
            f"Table 1: the paper ({paper.MODEL}) beside ours ({label})",
            (*beside, *scope),
            beside_paper_table(reproduction),
        ),
        Named(
            f"Table 1: what is lost to full fine-tuning, ours ({label})",
            (
                f"Accuracy minus that of full fine-tuning, in points, on mean over tasks; the paper's mean over "
                f"{', '.join(paper.LOSS_TASKS)}.",
                *beside,
                *scope,
            ),
            loss_table(reproduction),
        ),
        Named(
            f"Table 2: inference memory and parameters, ours ({label})",
            (
                f"Memory: weights and the most activations alive at once, for {_memory_size(reproduction)}; ours are "
                f"means over the tasks. Counted: from the configuration of {paper.MODEL}. Time: of a forward pass "
                f"({_size_text(reproduction)}), the dense model's = 100 %.",
                *beside,
                *scope,
            ),
            inference_table(reproduction),
        ),
        Named(
            f"Table 3: trained parameters, ours ({label})",
            (
                f"Counted: from the configuration of {paper.MODEL}, no weights needed. Ours: in the trainings on "
                f"{label}, mean over the tasks, and their share of the model.",
                *scope,
            ),
            trained_table(reproduction),
        ),
        Named(
            f"Table 4: time of a training step, full fine-tuning = 100 %, ours ({label})",
            (
                "The paper gives training times as 49 : 36 : 32. Ours: the median of steps on equal batches, timed in "
                "turn, mean over the tasks with the lowest and highest task.",
                *beside,
                *scope,
            ),
            time_table(reproduction),
        ),
        Named(
            f"Parameter counts of {paper.MODEL}, from its configuration",
            _counting_text(reproduction.papers_counts),
            counts_table(reproduction.papers_counts),
        ),
    ]
    if reproduction.own_counts is not None and not reproduction.is_papers_model:
        tables.append(
            Named(
                f"Parameter counts of {label}, from its configuration",
                ("The same for the model that was trained; the paper's numbers of heads in proportion.",),
                counts_table(reproduction.own_counts),
                folded=True,
            )
        )
    return tables


def accuracy_table(reproduction: Reproduction) -> Table:
    """A row a task (and reported split), a column a method."""
    methods = reproduction.methods
    rows = [
        (
            name,
            *(quality_text("accuracy", _figure(one.method(method), split)) for method in methods),
            _rate_text(one.comparison.task["majority_rate"].get(split) if one.comparison else None),
        )
        for one in reproduction.tasks
        for name, split in _places(one)
        if one.comparison is not None
    ]
    rows += [(task, *[NOT_RUN] * len(methods), NONE) for task in reproduction.missing]
    done = reproduction.done
    if len(done) > 1:
        means = [_mean(one.accuracy(method) for one in done) for method in methods]
        rates = _mean(one.majority_rate for one in done)
        texts = [NONE if mean is None else number_text("accuracy", mean) for mean in means]
        rows.append((f"mean of {len(done)} tasks", *texts, _rate_text(rates)))
    return Table(("task", *methods, "most frequent class"), tuple(rows))


def beside_paper_table(reproduction: Reproduction) -> Table:
    """A row a task and method: the paper's accuracy, ours, difference, majority rate, seeds and rows."""
    rows = [_beside_paper(one, method) for one in reproduction.tasks for method in paper.METHODS]
    columns = ("task", "method", "paper", "ours", "difference", "most frequent class", "seeds", "rows: train, reported")
    return Table(columns, tuple(rows))


def _beside_paper(one: TaskOutcome, method: str) -> tuple[str, ...]:
    printed, facts, mean = paper.ACCURACY[method][one.task], one.method(method), one.accuracy(method)
    if one.comparison is None or facts is None:
        return (_marked(one), method, printed.text, NOT_RUN, NONE, NONE, NONE, NONE)
    counts = one.comparison.task["rows"]
    return (
        _marked(one),
        method,
        printed.text,
        quality_text("accuracy", _figure(facts, one.split)),
        NONE if printed.value is None or mean is None else signed("accuracy", mean - printed.value),
        _rate_text(one.majority_rate),
        str(len(facts.seeds)),
        f"{counts['train']:,}, {counts[one.split]:,}",
    )


def notes_text(reproduction: Reproduction) -> tuple[str, ...]:
    """What is special about the tasks' files, in one paragraph; none where nothing is."""
    notes = [f"{one.task}: {one.note}" for one in reproduction.tasks if one.note]
    return (f"Note. {'; '.join(notes)}.",) if notes else ()


def loss_table(reproduction: Reproduction) -> Table:
    """Points lost to full fine-tuning, on mean over the paper's five tasks and over all that were run."""
    rows = []
    for method in reproduction.methods:
        if method == "full":
            continue
        five = loss_to_full(reproduction, method, paper.LOSS_TASKS)
        every = loss_to_full(reproduction, method, paper.TASKS)
        printed = f"\N{MINUS SIGN}{paper.LOSS_TO_FULL.printed}" if method == "prune-lora" else _papers_text(method)
        rows.append((method, printed, _loss_text(five), _loss_text(every)))
    columns = ("method", "paper, five tasks", "ours, of these five", "ours, all six")
    return Table(columns, tuple(rows))


def loss_to_full(reproduction: Reproduction, method: str, tasks: Iterable[str]) -> tuple[float, int] | None:
    """Mean difference to full fine-tuning over the tasks that both were run on, and their number."""
    wanted = set(tasks)
    pairs = [
        (one.accuracy(method), one.accuracy("full")) for one in reproduction.tasks if one.task in wanted
    ]  # fmt: skip
    differences = [own - full for own, full in pairs if own is not None and full is not None]
    return (statistics.fmean(differences), len(differences)) if differences else None


def inference_table(reproduction: Reproduction) -> Table:
    """Inference memory, parameters, and time beside the dense model's."""
    counts = reproduction.papers_counts
    rows = []
    for method in reproduction.methods or paper.METHODS:
        known = method in paper.METHODS
        memory = _over_tasks(reproduction, method, lambda facts: facts.memory.inference)
        parameters = _over_tasks(reproduction, method, lambda facts: facts.parameters)
        rows.append(
            (
                method,
                paper.INFERENCE_MEMORY[method].text if known else paper.NOT_IN_PAPER,
                NOT_RUN if memory is None else in_units(memory, "B"),
                paper.PARAMETERS[method].text if known else paper.NOT_IN_PAPER,
                f"{counts.of(method).total:,}" if known else NONE,
                NOT_RUN if parameters is None else in_units(parameters),
                _shares_text(inference_shares(reproduction, method)),
            )
        )
    columns = (
        "method", "memory, paper", "memory, ours", "parameters, paper", "the same, counted", "parameters, ours",
        "time, ours",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def inference_shares(reproduction: Reproduction, method: str) -> list[float]:
    """Time of a forward pass over the dense model's at the largest size that was timed, a number a task."""
    found: list[LatencyFacts] = []
    for one in reproduction.done:
        facts = one.method(method)
        latency = latency_at(facts, largest_size(one.comparison)) if facts and one.comparison else None
        found += [latency] if latency is not None else []
    return [one.to_dense.median for one in found]


def trained_table(reproduction: Reproduction) -> Table:
    """Trained parameters: the paper's, its way of counting, our way for its model, and what was trained here."""
    counts = reproduction.papers_counts
    rows = []
    for method in reproduction.methods or paper.METHODS:
        known = method in paper.METHODS
        ours = "prune-lora" if method == "random-prune-lora" else method
        trained = _over_tasks(reproduction, method, lambda facts: facts.trained)
        parameters = _over_tasks(reproduction, method, lambda facts: facts.parameters)
        rows.append(
            (
                method,
                paper.TRAINED[method].text if known else paper.NOT_IN_PAPER,
                f"{counts.of(method).trained:,}" if known else NONE,
                *(
                    _trained_text(counts, ours, task_head=task_head)
                    for task_head in (False, True)
                ),
                NOT_RUN
                if trained is None or parameters is None
                else f"{trained:,.0f} ({share_text(trained / parameters)})",
            )
        )  # fmt: skip
    columns = (
        "method", "paper", "counted, its way", "counted, our LoRA", "counted, with task head", "trained, ours",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def time_table(reproduction: Reproduction) -> Table:
    """Time of a training step over full fine-tuning's."""
    rows = []
    for method in reproduction.methods or paper.METHODS:
        known = method in paper.METHODS
        ratio = paper.time_to_full(method) if known else None
        own = step_shares(reproduction, method)
        steps = _over_tasks(reproduction, method, lambda facts: facts.step_ms)
        difference = NONE
        if ratio is not None and own:
            difference = f"{100 * (statistics.fmean(own) - ratio):+.0f} points".replace("-", "\N{MINUS SIGN}")
        rows.append(
            (
                method,
                f"{share_text(ratio)} ({paper.TRAINING_TIME[method].printed})" if ratio else paper.NOT_IN_PAPER,
                _shares_text(own),
                difference if method != "full" else NONE,
                NOT_TIMED if steps is None else milliseconds(steps),
            )
        )
    return Table(("method", "paper", "ours", "difference", "a step, ours"), tuple(rows))


def step_shares(reproduction: Reproduction, method: str) -> list[float]:
    """Time of a training step over full fine-tuning's, a number a task."""
    shares = [facts.step_to_full for one in reproduction.done if (facts := one.method(method)) is not None]
    return [share.median for share in shares if share is not None]


def counts_table(counts: Counts) -> Table:
    """Every count to the last digit, with its parts."""
    rows = tuple(
        (
            f"{row.method}, {'the paper' if row.way == 'paper' else 'ours'}: {row.how}",
            f"{row.heads} of {counts.architecture.total_heads}",
            _count_text(row.lora),
            _count_text(row.norms),
            _count_text(row.task_head),
            f"{row.trained:,}",
            f"{row.total:,}",
        )
        for row in counts.rows
    )
    return Table(("method", "heads", "LoRA", "LayerNorms", "task head", "trained", "in all"), rows)


def _counting_text(counts: Counts) -> tuple[str, ...]:
    row = counts.of("prune-lora")
    return (
        "In all: encoder, pooler and LoRA; the classifier, whose size depends on the task, is left out. The paper "
        f"counts LoRA as if no head had been cut ({row.lora:,}). Ours has the pruned sizes: models built "
        "without memory, "
        "cut by a plan and given their adapter, then counted. The heads that stay are spread evenly there; every head "
        f"that lies in a block of high rank and not in one of low rank adds {extra_of_a_head(counts.architecture):,}. "
        "The task head is pooler and classifier, for two classes.",
    )


def _places(one: TaskOutcome) -> list[tuple[str, str]]:
    """Reported splits with what a row of each is called: "mnli, matched" where there are several."""
    splits = one.comparison.splits if one.comparison is not None else ()
    return [(f"{_marked(one)}, {split}" if len(splits) > 1 else _marked(one), split) for split in splits]


def _marked(one: TaskOutcome) -> str:
    """A task whose files are special is marked in every table; the notes beside it say how."""
    return f"{one.task} (note)" if one.note else one.task


def _figure(facts: MethodFacts | None, split: str) -> Estimate | None:
    return facts.quality.get(split, {}).get("accuracy") if facts is not None else None


def _rate_text(rate: float | None) -> str:
    return NONE if rate is None else number_text("accuracy", rate)


def _papers_text(method: str) -> str:
    return paper.NOT_AT_HAND if method in paper.METHODS else paper.NOT_IN_PAPER


def _loss_text(loss: tuple[float, int] | None) -> str:
    if loss is None:
        return NOT_RUN
    difference, count = loss
    return f"{signed('accuracy', difference)} ({count} {'task' if count == 1 else 'tasks'})"


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean; None if any is missing, since means over different tasks cannot be compared."""
    found = list(values)
    known = [value for value in found if value is not None]
    return statistics.fmean(known) if found and len(known) == len(found) else None


def _over_tasks(reproduction: Reproduction, method: str, take: Callable[[MethodFacts], float | None]) -> float | None:
    """Mean of a fact over the tasks that a method was run on."""
    facts = [found for one in reproduction.done if (found := one.method(method)) is not None]
    values = [value for value in map(take, facts) if value is not None]
    return statistics.fmean(values) if values else None


def _shares_text(shares: list[float]) -> str:
    if not shares:
        return NOT_TIMED
    mean = share_text(statistics.fmean(shares))
    low, high = (f"{100 * end:.0f}" for end in (min(shares), max(shares)))
    return mean if low == high else f"{mean} ({low}\N{EN DASH}{high})"


def _size_text(reproduction: Reproduction) -> str:
    sizes = [size for one in reproduction.done if one.comparison and (size := largest_size(one.comparison))]
    return size_text(sizes[0]) if sizes else "not timed"


def _memory_size(reproduction: Reproduction) -> str:
    """Of what inference memory is counted: "32 rows of 128 tokens"; all tasks are of one model."""
    found = [inference_size(one.comparison) for one in reproduction.done if one.comparison is not None]
    return found[0] if found else NOT_RUN


def _trained_text(counts: Counts, method: str, *, task_head: bool) -> str:
    if method not in ("lora", "prune-lora"):
        return NONE
    return f"{counts.of(method, 'ours', task_head=task_head).trained:,}"


def _count_text(count: int) -> str:
    return f"{count:,}" if count else NONE
