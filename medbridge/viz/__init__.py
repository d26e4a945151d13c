"""Plots, widgets and the HTML report."""
