"""Where runs of training are recorded: nowhere, or in MLflow (the extra `obligor[tracking]`)."""

from obligor.tracking.run import UNTRACKED, Run, Tracking, Untracked, tracked

__all__ = ["UNTRACKED", "Run", "Tracking", "Untracked", "tracked"]
