"""Modelcells: what a model file holds, what it will take, which ones this machine knows, where to find more."""
