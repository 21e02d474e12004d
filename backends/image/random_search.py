"""The baseline of the searches for failures: points of the same space, at random."""

from backends.image.failure_spaces import Budget, Confirm, Inner, Low, Mode, Target, enter
from backends.image.sampling import cut_notes
from backends.image.tasks import FIND_FAILURES, FindFailures
from backends.registry import method
from backends.spec import Events, Guidance


@method("random_search", task=FIND_FAILURES, needs={"cfg", "unet", "emoji"}, paper=False)
def random_search(job: FindFailures, model, mode: Mode = "noise", budget: Budget = 40, inner_steps: Inner = 8, scale: Guidance = 5.0, low: Low = 0.1,
                  target: Target = "a burger", confirm: Confirm = "second") -> Events:  # fmt: skip
    """Random search for failures.

    Draws fresh noise, fresh words or a fresh token as often as the budget allows and keeps the picture in which the judges
    see least of the object. Start, cost in pictures and confirmation are the same as those of a guided search.
    """
    space = enter(mode, job, model, budget, inner_steps, scale, low, target, confirm)
    search, point = space.search, space.first
    yield from cut_notes(search.cond)
    while search.open:
        pixels, judged = space.draw(point)
        yield search.step(search.keep(pixels, judged, point if isinstance(point, str) else f"draw {search.spent // search.rows}", point))
        point = space.random()
    yield from space.close()
