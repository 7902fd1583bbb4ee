"""Move LoRA adapters from a deprecated base model to its successor, and prove what survived."""

__version__ = "0.1.0"
