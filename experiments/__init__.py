"""Synaptic Intelligence beside other continual-learning methods, measured on small streams.

``python -m experiments compare`` runs the comparison, ``python -m experiments tune`` searches
the strengths it uses, ``python -m experiments report`` tells a finished one again.
"""
