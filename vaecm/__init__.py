"""Predict what marketing content brings on an e-commerce platform: clicks, conversions and sales.

Public names are loaded when they are first used, so that reading a market needs no deep-learning framework.
"""

import sys
from importlib import import_module

from vaecm.book.registration import register_with_keras

__version__ = "0.2.0"

_HOME = {
    "Market": "market",
    "MarketError": "market",
    "load_market": "market",
    "MarketConfig": "simulate",
    "simulate_market": "simulate",
    "example_market": "datasets",
    "clean": "cleaning",
    "split_by_time": "splits",
    "ConvVAE": "book.conv_vae",
    "MultimodalVAE": "vae",
    "ModelConfig": "predictor",
    "EffectPredictor": "predictor",
    "score": "metrics",
}
__all__ = sorted(_HOME)
register_with_keras()


def __getattr__(name):
    if name in _HOME:
        found = getattr(import_module(f"vaecm.{_HOME[name]}"), name)
        if "keras" in sys.modules:
            register_with_keras()  # the rest, where a module of the package was what imported Keras
        return found
    raise AttributeError(f"module 'vaecm' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
