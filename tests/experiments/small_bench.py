"""What the bench's tests train."""

from experiments.bench.timing import How
from experiments.bench.workloads import Extent, Workload, mlp

TINY = Workload("tiny", lambda: mlp(5, 7, 3), (5,), 4, 3)
PARAMETERS = 5 * 7 + 7 + 7 * 3 + 3
HOW = How(rounds=2, threads=1, device="cpu")
SMALL = Extent((TINY,), (40, 400), 4, (2, 4), 64, TINY, 20)
