"""The commands of `cross-lora`, one file per noun."""
