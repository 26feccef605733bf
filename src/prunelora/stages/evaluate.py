"""The stage evaluate: keeps the model's answers on the reported rows."""

from typing import TYPE_CHECKING, ClassVar, Literal

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run

ANSWERS = "answers.safetensors"


class EvaluateStage(Stage):
    """Judge the model on the reported rows and keep its answers, for comparisons row by row."""

    stage: Literal["evaluate"] = "evaluate"

    has_command: ClassVar[bool] = False
    makes_model: ClassVar[bool] = False

    def run(self, run: "Run", name: str) -> Facts:
        """Save answers, mostly logits, and labels of every reported split, in the order of its rows."""
        import torch
        from safetensors.torch import save_file

        from prunelora.data.metrics import metrics
        from prunelora.storage import replacing_file

        tensors: dict[str, torch.Tensor] = {}
        quality = {}
        for split in run.task.reported:
            answers, labels = run.answers(split, run.model)
            quality[split] = metrics(answers, labels, run.task.problem_type, run.task.label_names)
            tensors |= {f"{split}.logits": torch.from_numpy(answers), f"{split}.labels": torch.from_numpy(labels)}
        with replacing_file(run.path(name, ANSWERS)) as temporary:
            save_file(tensors, temporary)
        return {"quality": quality}

    def files(self) -> tuple[str, ...]:
        """The answers."""
        return (ANSWERS,)

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """A pass over every reported split."""
        judged = [work.judging(split, work.present) for split in run.task.reported]
        work.memory[name] = work.judging_bytes(work.present)
        return lambda: sum(seconds() for seconds in judged)
