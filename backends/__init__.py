"""The door: everything the page, the API and the command line use of the backends."""

from backends.registry import METHODS, TASKS, discover
from backends.spec import Arm, ArmEvent, BadInput, Job, Method, Outcome, Stacked, Task


def run(recipe, pictures=None, stop=lambda: False, pause=lambda: False):
    """Run a recipe (dict or JSON text), yielding ArmEvents; raises BadInput before anything starts.

    `pictures`: hash -> (H, W, 3) uint8 or Audio for the pictures and sounds the recipe names. `stop()`, `pause()`: asked after each step
    (runner.run).
    """
    from backends import recipe as recipes
    from backends import runner

    discover()
    return runner.run(*recipes.parse(recipe, pictures), stop=stop, pause=pause)


compare = run  # running one arm is a comparison of one

discover()

__all__ = ["METHODS", "TASKS", "Arm", "ArmEvent", "BadInput", "Job", "Method", "Outcome", "Stacked", "Task", "compare", "run"]
