"""The pairs of a folder laid out as the published script expects it: a text file of prompts, and two pictures for
each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.ordering import by_numbers, pictures_among
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.batch.entries import read_text
from tooncrafter_jax.sampling.batch.jobs import Job, default_name, with_unique_names
from tooncrafter_jax.sampling.request import Pair

Order = Literal["numbers", "text"]
"""Of the pictures: numbers in names count as numbers, or names are text, as for the published script."""
ORDERS: tuple[Order, ...] = get_args(Order)
PROMPTS = "prompts.txt"


def folder_jobs(directory: Path, template: Pair, *, loop: bool = False, order: Order = "numbers") -> list[Job]:
    """The pairs of a folder: a text file holds a prompt a line, and the pictures go two to a prompt in the order of
    their names; what could have been meant in another way is said on one line.

    Args:
      directory: the folder (spec section 11.1).
      template: seed and fps of every pair.
      loop: whether each prompt has one picture, which is both first and last frame.
      order: of the pictures. Differs from the published code: numbers count as numbers.

    Raises:
      UserError: if the folder, its prompts or enough pictures are missing, or several files could hold the prompts.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a folder")
    try:
        files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {directory}: {error.strerror}") from error
    text = _prompts_file(directory, [path for path in files if path.suffix.lower() == ".txt"])
    prompts = [] if text is None else [line.strip() for line in read_text(text).split("\n") if line.strip()]
    if text is None or not prompts:
        raise UserError(f"{directory} has no prompts: put a .txt file with one prompt a line beside the pictures")
    images = pictures_among(files)
    each = 1 if loop else 2
    if len(images) != each * len(prompts):
        raise UserError(
            f"{directory} has {len(images)} pictures for the {len(prompts)} prompts of {text.name}: "
            f"{each * len(prompts)} are needed, {each} for each, in the order of their names"
        )
    numbered = sorted(images, key=by_numbers)
    if numbered != images:
        first = next(i for i, (a, b) in enumerate(zip(numbered, images, strict=True)) if a != b)
        chosen, other = (numbered, images) if order == "numbers" else (images, numbered)
        note(
            f"the numbers in the names of {directory} are taken as {order}: '{chosen[first].name}' comes before "
            f"'{other[first].name}' (--order={'text' if order == 'numbers' else 'numbers'} turns this around)"
        )
    if order == "numbers":
        images = numbered
    jobs = []
    for i, prompt in enumerate(prompts):
        start, end = images[each * i], images[each * i + each - 1]
        jobs.append(Job(default_name(start), template._replace(first=start, last=end, prompt=prompt)))
    return with_unique_names(jobs)


def shown_pairs(jobs: list[Job]) -> list[str]:
    """A line for each pair: its pictures and the beginning of its prompt."""
    lines = []
    for job in jobs:
        first, last = (printable(Path(str(picture)).name) for picture in (job.pair.first, job.pair.last))
        lines.append(f"{first} -> {last}: {printable(job.pair.prompt, limit=60)}")
    return list(dict.fromkeys(lines))  # of several samples of a pair one


def _prompts_file(directory: Path, texts: list[Path]) -> Path | None:
    """The text file that holds the prompts."""
    if len(texts) < 2:
        return texts[0] if texts else None
    named = [path for path in texts if path.name.lower() == PROMPTS]
    if len(named) != 1:
        names = ", ".join(path.name for path in texts[:4]) + (", ..." if len(texts) > 4 else "")
        raise UserError(
            f"{directory} has {len(texts)} text files ({names}): call the one that holds the prompts {PROMPTS}, and no "
            "other"
        )
    others = ", ".join(path.name for path in texts if path != named[0])
    note(f"the prompts of {directory} are those of {named[0].name}; {others} is not read")
    return named[0]
