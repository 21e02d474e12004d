"""The restoration room's tabs; registry.discover takes them in the order of these names."""

from backends.restore.face_task import RESTORE_FACE  # isort: skip
from backends.restore.upscale_task import UPSCALE  # isort: skip
from backends.restore.clean_task import CLEAN_PHOTO  # isort: skip
from backends.restore.cube_task import CUBE  # isort: skip

__all__ = ["CLEAN_PHOTO", "CUBE", "RESTORE_FACE", "UPSCALE"]
