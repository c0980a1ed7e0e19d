"""SI in the loops of other libraries, which are the real ones here."""

import os

# Before any of them is imported: nothing is looked for in a network.
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ[_name] = "1"
