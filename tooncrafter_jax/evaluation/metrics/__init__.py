"""Metrics of generated clips, one file each; `metric.Metric` says what all of them have in common."""
