"""The tasks' sample data: one folder a task, with the script that made it and the hidden judge of it."""

from importlib.resources import files

PARTS = ("train", "validation", "test", "preferences", "preferences_test")


def sample_files(task: str) -> dict[str, str]:
    """Paths of a task's sample rows, by what they are for (`PARTS`), as `load_task_data` takes them."""
    return {part: str(files("rlhf_lightning.tasks") / task / f"{part}.jsonl") for part in PARTS}
