"""Comparisons: cells of (method, training films, test films, budget, seed), one store of results, one builder of tables."""
