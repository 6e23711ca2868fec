"""Making many images: in batches of one shape, again by rule where one fails, and without losing what is finished.

Every image draws from its own seed, and batches all have the same shape (a short one is filled up), so an image does
not depend on its neighbours; on one processor, not by a bit.
"""

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnviz.errors import LayerError, check_whole
from cnnviz.isolation import exactly
from cnnviz.networks.devices import halved
from cnnviz.networks.network import Network
from cnnviz.networks.progress import Progress
from cnnviz.pictures.reading import Picture
from cnnviz.synthesis.ascent import Augmentation, Step, ascend
from cnnviz.synthesis.judgement import ROUNDING, Judge, Judgement, as_shown, references_for
from cnnviz.synthesis.objectives import Objective
from cnnviz.synthesis.parametrisations import Parametrisation, Size
from cnnviz.synthesis.recipes import Recipe
from cnnviz.synthesis.transforms import draws

OPENING_STEPS = 16  # at first, with redirected ReLUs, from the third try on
FRAMES = 40  # of a film
LARGEST_SEED = 2**63 - 1
PATIENCE, SETTLED = 10, 1e-3  # a score has settled that gained less than this share in so many steps


class _NotFiniteError(LayerError):
    """In bfloat16, not yet a reason to blame the weights."""


@dataclass(frozen=True)
class SynthesizedImage:
    """One image and what is known of it.

    Attributes:
        image: (C, H, W), float32 in [0, 1], as 8 bits make it.
        label: its name.
        start: what it scored before the first step, as shown.
        judgement: of the finished image, as shown.
        curve: (steps,): what it scored as the network saw it, moved about and less the penalty.
        tries: how many it took.
        batch: how many images were made at a time.
        precision: what the network computed in, "float32" or "bfloat16".
        film: (C, H, W), uint8, on the way.
    """

    image: Tensor
    label: str
    start: float
    judgement: Judgement
    curve: Tensor
    tries: int
    batch: int
    precision: str
    film: Sequence[Tensor]

    @property
    def ok(self) -> bool:
        """Whether it succeeded, so that it is not made again."""
        return self.judgement.status == "ok"

    @property
    def improved(self) -> bool:
        """Whether it scores more than before the first step, beyond rounding."""
        return self.judgement.score > self.start + ROUNDING * abs(self.start)


@dataclass(frozen=True, kw_only=True)
class SynthesisProgress(Progress):
    """How far a job is, counted in steps of single images, and what it has.

    Attributes:
        step: the ascent's, of the batch at hand; None where none is optimized.
        tries: how often the images at hand have been begun.
        images: by number in the job, what is finished.
        references: what those are compared with, for people.
    """

    step: Step | None
    tries: int
    images: Mapping[int, SynthesizedImage]
    references: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """Images to be made, described whole; `run` makes them.

    Attributes:
        objective: without the recipe's penalty.
        seeds: one per image.
        labels: a name per image.
        title: what the images are.
        batch: images at a time, if there is memory for so many.
        dtype: what the network computes in; in float32 all over again, if values are not finite otherwise.
        tries: how often an image may be made until it is "ok".
        settings: everything that determines the images, for the record.
        start: (N, C, H, W), images to start from, if any.
        penalty: what is subtracted during optimization, besides the recipe's.
        references: a folder of images, or one image, to compare with besides what `references_for` has.
        film: whether to keep images on the way.
    """

    network: Network
    objective: Objective
    recipe: Recipe
    steps: int
    size: Size
    seeds: Sequence[int]
    labels: Sequence[str]
    title: str
    batch: int
    dtype: torch.dtype
    tries: int
    settings: dict[str, Any]
    start: Tensor | None
    penalty: Objective | None
    references: Path | Picture | None
    film: bool

    @exactly
    @torch.inference_mode(False)  # what is made inside could not be differentiated
    def run(self) -> Iterator[SynthesisProgress]:
        """Make the images; whoever stops early keeps what the last progress has.

        Yields:
            After each step, after each batch, and where memory ran out for a batch, before half as many are begun.

        Raises:
            LayerError: if the network gives values that are not finite.
            ShapeError: if there is no such channel, or images of this size do not fit.
        """
        references = references_for(self.network.channels, self.size, self.references)
        count = len(self.seeds)
        state = SynthesisProgress(0, 0, 0, count, step=None, tries=0, images={}, references=references.text)
        batch, judge = self.batch, None
        for attempt in range(self.tries):
            rows = [row for row in range(count) if row not in state.images or not state.images[row].ok]
            state = replace(state, total=state.total + len(rows) * self.steps, tries=attempt + 1)
            while rows:
                try:
                    judge = judge or Judge(self.network, self.objective, references, count, batch, self.dtype)
                    state = yield from self._batch(state, rows[:batch], batch, judge)
                except _NotFiniteError as error:
                    if self.dtype == torch.float32:
                        raise LayerError(str(error)) from None
                    yield from replace(self, dtype=torch.float32).run()
                    return
                except (RuntimeError, MemoryError) as error:
                    batch, judge = halved(batch, error), None
                    yield replace(state, batch=batch)
                else:
                    rows = rows[batch:]
                    yield state

    def unjudged(self) -> Iterator[Step]:
        """The bare ascent of one batch, from noise, which nothing is compared with."""
        rows = torch.arange(self.batch).clamp(max=len(self.seeds) - 1)
        seeds = [self.seeds[row] for row in rows.tolist()]
        images = self.recipe.image(seeds, self.network.channels, self.size, self.start)
        return self._ascent(images.to(self.network.device), rows, seeds, 0)

    def _batch(
        self, state: SynthesisProgress, rows: Sequence[int], batch: int, judge: Judge
    ) -> Generator[SynthesisProgress, None, SynthesisProgress]:
        """One batch of images, once: yields after each step, and returns what there is then.

        Each image replaces what was made before if it scores more.
        """
        filled = torch.tensor([*rows, *[rows[-1]] * (batch - len(rows))])
        seeds = [seed_of(self.seeds[row], state.tries - 1) for row in filled.tolist()]
        images = self._beginning(state, filled, seeds, judge).to(self.network.device)
        beginning = as_shown(images())
        trajectory = _Trajectory(
            images, settles=self.recipe.settles, every=frame_distance(self.steps) if self.film else None
        )
        for step in self._ascent(images, filled, seeds, state.tries - 1):
            trajectory.note(step)
            if step.number == 0:
                self._check_finite(step.scores)
            yield replace(state, done=state.done + len(rows) * (step.number + 1), step=step)
            if trajectory.settled:
                break
        curves, shown = trajectory.curves(), trajectory.shown()
        self._check_finite(torch.cat(curves))
        starts = judge.scores(beginning, filled)
        self._check_finite(starts)
        if self.start is None:  # a pattern that nothing improves stays as it is
            lost = starts > judge.scores(shown, filled)
            shown[lost.to(shown.device)] = beginning[lost.to(shown.device)]
        finished = dict(state.images)
        for place, row in enumerate(rows):
            (judgement,) = judge(shown[place : place + 1], filled[place : place + 1])
            image = SynthesizedImage(
                image=shown[place].cpu(),
                label=self.labels[row],
                start=starts[place].item(),
                judgement=judgement,
                curve=curves[place],
                tries=state.tries,
                batch=batch,
                precision=str(self.dtype).removeprefix("torch."),
                film=[frame[place] for frame in trajectory.frames],
            )
            better = row not in finished or judgement.score > finished[row].judgement.score
            finished[row] = image if better else replace(finished[row], tries=state.tries)
        done = state.done + len(rows) * self.steps
        return replace(state, done=done, finished=len(finished), images=finished)

    def _beginning(self, state: SynthesisProgress, rows: Tensor, seeds: Sequence[int], judge: Judge) -> Parametrisation:
        """From the starts given; else from noise, or from the best simple pattern if the recipe says so.

        An image that a simple pattern has beaten begins from that pattern in the next try.
        """
        image = partial(self.recipe.image, seeds, self.network.channels, self.size)
        if self.start is not None:
            return image(self.start[rows])
        beaten = [self.recipe.from_patterns or self._beaten(state.images.get(row), judge) for row in rows.tolist()]
        if not any(beaten):
            return image(None)
        start = image(None)().detach()
        chosen = torch.tensor(beaten)
        start[chosen] = judge.best_patterns(rows[chosen]).to(start)
        return image(start)

    def _beaten(self, before: SynthesizedImage | None, judge: Judge) -> bool:
        """Whether a simple pattern scores more than what was made before."""
        names = judge.references.names[: judge.references.patterns]
        if before is None or before.ok or before.judgement.best not in names:
            return False
        return before.judgement.best_score > before.judgement.score

    def _check_finite(self, scores: Tensor) -> None:
        if not scores.isfinite().all():
            raise _NotFiniteError(
                f"{self.network.name} gives values that are not finite; look for NaN among its weights."
            )

    def _ascent(self, images: Parametrisation, rows: Tensor, seeds: Sequence[int], attempt: int) -> Iterator[Step]:
        """The recipe's way up; in later tries with ReLUs that open, in the last one with larger steps."""
        recipe = self.recipe
        looks = [seed_of(seed, "draws", *([view] if view else [])) for seed in seeds for view in range(recipe.views)]
        matrices = draws(recipe.transforms(self.size), looks, self.steps)
        height, width = (round(side * recipe.enlarged) for side in self.size)
        return ascend(
            self.network,
            sum((-penalty for penalty in (recipe.penalty, self.penalty) if penalty is not None), self.objective),
            images,
            steps=self.steps,
            rate=recipe.rate * (2 if attempt > 2 else 1),
            falling=recipe.falling,
            optimiser=recipe.optimiser,
            augmentation=Augmentation(
                matrices,
                (height, width),
                recipe.outside,
                recipe.views,
                recipe.noise,
                seeds=seeds if recipe.noise else (),
            ),
            rows=rows,
            dtype=self.dtype,
            redirected_steps=OPENING_STEPS if attempt > 1 else 0,
        )


class _Trajectory:
    """What happens to a batch: its scores, frames of a film, and images kept as they were when their score settled."""

    def __init__(self, image: Parametrisation, *, settles: bool, every: int | None) -> None:
        self.image, self.settles, self.every = image, settles, every
        self.frames: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._settled: dict[int, tuple[int, Tensor]] = {}

    def note(self, step: Step) -> None:
        self._scores.append(step.scores)
        if self.every and step.number % self.every == 0:
            self.frames.append((self.shown() * 255).to(torch.uint8).cpu())
        if self.settles and step.number >= PATIENCE:
            gained = step.scores - self._scores[step.number - PATIENCE]
            for place in (gained < SETTLED * step.scores.abs()).nonzero().flatten().tolist():
                if place not in self._settled:
                    self._settled[place] = step.number + 1, as_shown(self.image()[place])

    @property
    def settled(self) -> bool:
        """Whether every image has."""
        return bool(self._scores) and len(self._settled) == len(self._scores[0])

    def shown(self) -> Tensor:
        """(N, C, H, W) in [0, 1], at 8 bits."""
        shown = as_shown(self.image())
        for place, (_, image) in self._settled.items():
            shown[place] = image
        return shown

    def curves(self) -> list[Tensor]:
        """The scores of each image, step by step."""
        scores = torch.stack(self._scores, 1).cpu()
        return [
            curve[: self._settled[place][0] if place in self._settled else None] for place, curve in enumerate(scores)
        ]


def frame_distance(steps: int) -> int:
    """How many steps lie between two frames of a film."""
    return steps // FRAMES + 1


def seed_of(seed: int, *parts: object) -> int:
    """A seed in [0, 2**63) that belongs to a seed and these parts: another one if any of them is another.

    Raises:
        ShapeError: if the seed given is no whole number, or not in [0, 2**63) either.
    """
    check_whole(seed, "a seed", LARGEST_SEED, least=0)
    text = "\0".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
