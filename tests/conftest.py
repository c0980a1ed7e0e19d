"""What all tests share."""

import torch

# The tensors are tiny: a second thread would only wait, or take the core of another test run.
torch.set_num_threads(1)
