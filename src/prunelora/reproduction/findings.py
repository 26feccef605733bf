"""What does not reproduce, and why: made from the numbers at hand, not told from memory."""

import statistics
from dataclasses import dataclass

from prunelora.comparison.tables import pair_of
from prunelora.comparison.texts import number_text, share_text, signed
from prunelora.reproduction import paper
from prunelora.reproduction.results import Reproduction, TaskOutcome
from prunelora.reproduction.tables import inference_shares, loss_to_full, step_shares

# Two accuracies in per cent that are printed alike with two decimals.
_PRINTED_ALIKE = 0.00005


@dataclass(frozen=True)
class Finding:
    """One thing that does not reproduce.

    Attributes:
        title: What it is.
        text: The numbers, then the reason as far as it is known.
    """

    title: str
    text: str


def summary(reproduction: Reproduction) -> list[str]:
    """Prune-LoRA beside the other methods, on mean over the tasks."""
    lines = []
    for other, name in (("full", "full fine-tuning"), ("lora", "LoRA"), ("random-prune-lora", "pruning at random")):
        differences = [
            own - than
            for one in reproduction.done
            if (own := one.accuracy("prune-lora")) is not None and (than := one.accuracy(other)) is not None
        ]
        if not differences:
            continue
        beyond = _beyond_noise(reproduction, other)
        lines.append(
            f"Prune-LoRA against {name}: {signed('accuracy', statistics.fmean(differences))} points, mean of "
            f"{_tasks(len(differences))}; more than noise on {', '.join(beyond) if beyond else 'none of them'}"
        )
    return lines


def findings(reproduction: Reproduction) -> list[Finding]:
    """Everything that does not reproduce, most important first."""
    return [
        found
        for found in (
            _majority_cells(reproduction),
            _heads(reproduction),
            _lora_sizes(reproduction),
            _inference(reproduction),
            _training_time(reproduction),
            _loss(reproduction),
            _chosen_on_reported_rows(),
            _few_examples(reproduction),
            _other_model(reproduction),
            _other_files(reproduction),
            _not_at_hand(),
        )
        if found is not None
    ]


def _majority_cells(reproduction: Reproduction) -> Finding:
    rates = {task: correct / rows for task, (correct, rows) in paper.MAJORITY_ROWS.items()}
    lines = []
    for method, cells in paper.ACCURACY.items():
        for task, cell in cells.items():
            rate = rates.get(task)
            if cell.value is None or rate is None or abs(cell.value - round(rate, 4)) > _PRINTED_ALIKE:
                continue
            correct, rows = paper.MAJORITY_ROWS[task]
            ours = next(one for one in reproduction.tasks if one.task == task)
            lines.append(
                f"{task}: the paper's {method} has {cell.printed}, which is {correct} of {rows} validation rows, what "
                f"always answering one class gets{_own_accuracy(ours, method)}."
            )
    reason = (
        "The paper trains LoRA and LayerNorms and lists no task head; in the code that its authors published "
        f"({paper.PUBLISHED_CODE}) pooler and classifier stay as they were initialised. With small data and a small "
        "learning rate nothing was learnt there. " + _own_head(reproduction)
    )
    return Finding("Cells of the paper that equal the majority class", " ".join([*lines, reason]))


def _own_head(reproduction: Reproduction) -> str:
    without = [one.task for one in reproduction.done if not one.settings.train_head]
    if not without:
        return "Here the task head is trained too."
    if len(without) == len(reproduction.done):
        return "Here the task head was not trained either, as the paper has it."
    return f"Here the task head is trained too, but not on {', '.join(without)}."


def _own_accuracy(one: TaskOutcome, method: str) -> str:
    mean, rate = one.accuracy(method), one.majority_rate
    if mean is None:
        return "; not run here"
    text = f"; ours reaches {number_text('accuracy', mean)} %"
    if rate is None:
        return text
    if mean > rate + _PRINTED_ALIKE:
        return f"{text}, {number_text('accuracy', mean - rate)} points above that class"
    return f"{text}, which is no more than the majority class either: on this task our model learnt nothing to report"


def _heads(reproduction: Reproduction) -> Finding:
    counts = reproduction.papers_counts
    cut, said = paper.HEADS_CUT_BY_PARAMETERS, paper.HEADS_CUT_BY_TEXT
    printed = counts.of("prune-lora", heads=paper.ALL_HEADS - cut).total
    by_text = counts.of("prune-lora", heads=paper.ALL_HEADS - said).total
    return Finding(
        f"{cut} heads, not {said}",
        f"The paper's text keeps {paper.HEADS_KEPT_BY_TEXT} of {paper.ALL_HEADS} heads and so cuts {said}. Its "
        f"{paper.PARAMETERS['prune-lora'].printed} parameters are {printed:,}, which is {cut} heads cut; {said} "
        "would be "
        f"{by_text:,}. The published code numbers heads from 0 and cuts those numbered above "
        f"{paper.HEADS_KEPT_BY_TEXT}, which leaves {paper.ALL_HEADS - cut}. We cut {said}.",
    )


def _lora_sizes(reproduction: Reproduction) -> Finding:
    counts = reproduction.papers_counts
    papers, ours = counts.of("prune-lora"), counts.of("prune-lora", "ours", task_head=False)
    return Finding(
        "LoRA's size after the cut",
        f"The paper's {paper.TRAINED['prune-lora'].printed} trained parameters come out to the last digit as "
        f"{papers.lora:,} of LoRA, as if no head had been cut and with 8 more rank units in 4 blocks, and "
        f"{papers.norms:,} of LayerNorms. Our LoRA has the sizes after the cut and all four attention matrices, "
        f"{ours.lora:,} for {ours.heads} heads. The published code reads otherwise: it adapts q, k and v only, at the "
        "sizes after the cut, and takes block 1's name to mean blocks 10 and 11 too. That gives the same number where "
        "five blocks have rank 8 and keep 47 heads. Which of the two made the table cannot be told from what is "
        "at hand.",
    )


def _inference(reproduction: Reproduction) -> Finding | None:
    shares = inference_shares(reproduction, "prune-lora")
    if not shares:
        ours = "Ours was not timed."
    else:
        mean = statistics.fmean(shares)
        word = "faster" if mean < 1 else "not faster"
        ours = f"Ours takes {share_text(mean)} of the dense model's time, so it is {word}; the adapter is merged first."
    return Finding(
        "The paper's pruned model is slower at inference",
        "The paper reports slower inference after pruning. In the published code LoRA is not merged: every "
        "forward pass "
        f"multiplies its two matrices and adds them to the weights again. {ours}",
    )


def _training_time(reproduction: Reproduction) -> Finding | None:
    lines = []
    for method in ("prune-lora", "lora"):
        own, printed = step_shares(reproduction, method), paper.time_to_full(method)
        if own and printed is not None and statistics.fmean(own) > printed:
            mean = statistics.fmean(own)
            lines.append(f"{method}: {share_text(mean)} of full fine-tuning's time, the paper {share_text(printed)}.")
    if not lines:
        return None
    lines.append("The model, the machine, and what is timed differ: ours are single steps on equal batches, in turn.")
    return Finding("Training is less fast than the paper's", " ".join(lines))


def _loss(reproduction: Reproduction) -> Finding | None:
    loss = loss_to_full(reproduction, "prune-lora", paper.LOSS_TASKS)
    if loss is None or paper.LOSS_TO_FULL.value is None:
        return None
    difference, count = loss
    if 100 * difference <= -paper.LOSS_TO_FULL.value:
        return None
    reasons = ["the task head is trained"] if all(one.settings.train_head for one in reproduction.done) else []
    if all(one.settings.preset == "best" for one in reproduction.done):
        reasons.append("the learning rate is chosen for each method")
    because = f" Here {' and '.join(reasons)}." if reasons else ""
    return Finding(
        "The paper loses more to full fine-tuning",
        f"The paper's Prune-LoRA loses {paper.LOSS_TO_FULL.printed} points to full fine-tuning, on mean over "
        f"{', '.join(paper.LOSS_TASKS)}; ours {signed('accuracy', difference)} points over {_tasks(count)} of these."
        f"{because}",
    )


def _chosen_on_reported_rows() -> Finding:
    return Finding(
        "Which rows choose the checkpoint",
        "The published code keeps the checkpoint that is best on the very validation rows that are reported. Ours is "
        "chosen on rows cut from training, which costs some of the training rows and gives lower but honest numbers.",
    )


def _few_examples(reproduction: Reproduction) -> Finding:
    counts = sorted(
        {
            int(one.importance.provenance["num_examples"])
            for one in reproduction.tasks
            if one.importance is not None and "num_examples" in one.importance.provenance
        }
    )
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}" if counts else ""
    ours = (
        f"Figure 1 here shows eq. 2 of the scores on {span} training rows." if counts else "Ours are not at hand here."
    )
    return Finding(
        "What heads were scored on",
        f"The published code scores heads on the first three training rows and draws their ranks, not their "
        f"scores. {ours}",
    )


def _other_model(reproduction: Reproduction) -> Finding | None:
    if reproduction.is_papers_model:
        return None
    return Finding(
        "Another model",
        f"The paper trains {paper.MODEL}; everything trained here is {reproduction.label}. Accuracies, memory "
        "and times "
        "of the two are not comparable one to one; parameter counts of the paper's model come from its configuration. "
        f"With its weights at hand, --model {paper.MODEL} (or the path of its folder) runs the same on it.",
    )


def _other_files(reproduction: Reproduction) -> Finding | None:
    notes = [f"{one.task}: {one.note}." for one in reproduction.tasks if one.note]
    if not notes:
        return None
    return Finding("Other rows", f"Not GLUE's official files. {' '.join(notes)} Beside the paper they prove nothing.")


def _not_at_hand() -> Finding:
    cells = [cell for row in paper.ACCURACY.values() for cell in row.values()]
    unknown = sum(cell.value is None for cell in cells)
    return Finding(
        "The paper's numbers that are not at hand",
        f"{unknown} of its {len(cells)} accuracies, inference memory, and the trained parameters of full "
        "fine-tuning as "
        f'printed. They are shown as "{paper.NOT_AT_HAND}": none was guessed.',
    )


def _beyond_noise(reproduction: Reproduction, other: str) -> list[str]:
    """Tasks on which Prune-LoRA and another method are told apart, over seeds and rows; of one seed over rows alone."""
    beyond = []
    for one in reproduction.done:
        pair = pair_of(one.comparison, "prune-lora", other, one.split) if one.comparison is not None else None
        if pair is not None and pair.told_apart:
            alone = ", of one seed's rows alone" if pair.rows_alone else ""
            beyond.append(f"{one.task} ({signed('accuracy', pair.difference)}{alone})")
    return beyond


def _tasks(count: int) -> str:
    return f"{count} {'task' if count == 1 else 'tasks'}"
