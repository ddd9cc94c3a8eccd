"""Figures that hold for one machine at one time: run by hand, never in the suite."""
