"""Models: training sets, boosted trees, scorecard, calibration, explanation, evaluation; the bundle.

Only the lender's config is imported here; training, bundle and report are imported where they are used.
"""

from obligor.models.model import Model

__all__ = ["Model"]
