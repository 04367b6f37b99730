"""Checking this package's components against a folder of reference numbers, each computed by the published code."""
