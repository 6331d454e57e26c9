"""Predict what marketing content brings on an e-commerce platform: clicks, conversions and sales.

Public names are loaded when they are first used, so that reading a market needs no deep-learning framework.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "Market": "market",
    "MarketError": "market",
    "load_market": "market",
    "MarketConfig": "simulate",
    "simulate_market": "simulate",
    "example_market": "datasets",
    "clean": "prepare",
    "split_by_time": "prepare",
    "ConvVAE": "vae",
    "MultimodalVAE": "multimodal",
    "ModelConfig": "predictor",
    "EffectPredictor": "predictor",
    "score": "evaluate",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"vaecm.{_HOME[name]}"), name)
    raise AttributeError(f"module 'vaecm' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
