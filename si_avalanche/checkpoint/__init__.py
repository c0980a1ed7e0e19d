"""A whole training in one file: saved between experiences, resumed bit for bit, without pickle."""

from si_avalanche.checkpoint.training import resume_training, save_training

__all__ = ["resume_training", "save_training"]
