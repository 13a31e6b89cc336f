"""The input of a spec, opened: what it reads, at the lengths and sizes that the rest of the spec asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from gradcli.errors import SpecError, UsageError
from gradcli.prepare.lengths import require_lengths_fit
from gradcli.prepare.limits import require_memory_to_read
from gradcli.prepare.trained import TrainedNetwork
from gradcli.sources.files import FieldError
from gradcli.sources.input_source import Backwards, InputSource
from gradcli.sources.inputs import open_input
from gradcli.sources.recorded import EmbeddingTables
from gradcli.spec.inputs import FileInput
from gradcli.spec.losses import CrossEntropyLoss, FileTarget, GivenLoss, NextSymbol, TargetLoss
from gradcli.spec.models import Spec
from gradcli.spec.reader import LoadedSpec

T = TypeVar("T")


def open_source(
    loaded: LoadedSpec, *, embedding: EmbeddingTables | None = None, max_memory: int | None = None
) -> InputSource:
    """Return the input of a spec; its mistakes are placed at the field.

    embedding: gives the table that tokens are rows of, by its name; by default that of the checkpoint in `weights`.
    max_memory: as for `build`.
    """
    spec = loaded.spec
    model = spec.input
    files = [model, *(one for one in (spec.loss, _target_of(spec)) if isinstance(one, GivenLoss | FileTarget))]
    for file in files:
        require_memory_to_read(file, loaded.folder, max_memory=max_memory)
    require_lengths_fit(loaded)
    trained = loaded.trained if isinstance(loaded.trained, TrainedNetwork) else None
    backwards = trained is not None and trained.reversed
    if trained is not None and embedding is None:
        embedding = partial(trained.embedding, features=spec.input_size, max_memory=max_memory)
    if backwards and isinstance(model, FileInput):
        model = model.model_copy(update={"reverse": not model.reverse})
    source = located(
        loaded,
        "input",
        lambda: open_input(
            model,
            folder=loaded.folder,
            # What a trained layer reads is compared below, in words of its own.
            input_size=spec.input_size if "input_size" in spec.model_fields_set and trained is None else None,
            default_size=spec.input_size,
            seq_len=_steps_read(loaded),
            batch_size=spec.batch_size,
            batch_given="batch_size" in spec.model_fields_set,
            trials=spec.trials,
            seed=spec.seed,
            one_more=isinstance(spec.loss, CrossEntropyLoss) and isinstance(_target_of(spec), NextSymbol | None),
            embedding=embedding,
        ),
    )
    if trained is not None and source.size != spec.input_size:
        message = f"has {source.size} features a step, but {trained.description} reads {spec.input_size}"
        raise SpecError([loaded.problem("input", message)])
    if backwards and not isinstance(model, FileInput):
        if source.lengths is not None:
            message = f"{trained and trained.description} reads backwards, which sequences of different lengths cannot"
            raise SpecError([loaded.problem("input.lengths", message)])
        return Backwards(source)
    return source


def _target_of(spec: Spec) -> object:
    """Return the target of the loss; None where it has none, or leaves it to the input."""
    return spec.loss.target if isinstance(spec.loss, TargetLoss) else None


def _steps_read(loaded: LoadedSpec) -> int:
    """Return how many steps of the input there must be: one where no other enters, unless targets go with them."""
    spec = loaded.spec
    with_targets = isinstance(spec.loss, CrossEntropyLoss) or isinstance(_target_of(spec), FileTarget)
    alone = loaded.input_at == "first" and not with_targets
    return 1 if alone else spec.seq_len


def located(loaded: LoadedSpec, path: str, build_it: Callable[[], T]) -> T:
    """Return what `build_it` returns; a usage error of it is placed at a field of the spec."""
    try:
        return build_it()
    except FieldError as error:
        raise SpecError([loaded.problem((*path.split("."), *error.path), str(error))]) from None
    except UsageError as error:
        raise SpecError([loaded.problem(path, str(error))]) from None
