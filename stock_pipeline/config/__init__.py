"""Configuration: one validated settings model, merged from defaults, files, environment and overrides.

Everything that can be set is in `settings`; `loading` merges the layers and turns validation errors into messages that
name the key, the value and what is allowed. Parameters of rules, models, risk and strategies are defined beside the
mathematics that uses them, in ``core``, and only composed here.
"""

from stock_pipeline.config.loading import find_market, load_settings
from stock_pipeline.config.settings import Settings

__all__ = ["Settings", "find_market", "load_settings"]
