"""Names for what Avalanche hands over: it is untyped, and a bare ``Any`` would not tell what."""

from __future__ import annotations

from typing import Any, TypeAlias

Benchmark: TypeAlias = Any
"""A ``CLScenario``: streams by name."""

Experiences: TypeAlias = Any
"""A ``CLStream`` of experiences, or a single one where Avalanche takes either."""

Experience: TypeAlias = Any
"""One experience of a stream."""

Dataset: TypeAlias = Any
"""An ``AvalancheDataset``."""

AvalancheStrategy: TypeAlias = Any
"""A ``SupervisedTemplate``."""

Evaluator: TypeAlias = Any
"""An ``EvaluationPlugin``."""

Logger: TypeAlias = Any
"""A ``BaseLogger``."""

Logits: TypeAlias = Any
"""What a multi-head network returns: a tensor, or tensors by task label."""
