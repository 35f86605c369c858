"""Models: training sets, boosted trees, scorecard, calibration, explanation, evaluation; the bundle."""
