"""After ``import vaecm``, Keras finds the package's models in saved files, and no framework is loaded before its time.

Keras looks a saved class up among those that were registered, and never imports the module that a file names. So the
models are registered as soon as both packages are there.
"""

import importlib.util
import sys
from importlib import import_module

HOMES = ("vaecm.vae", "vaecm.experts", "vaecm.book.conv_vae")


def register_with_keras() -> None:
    """Register the package's models with Keras: at once, or when Keras is imported.

    Examples
    --------
    >>> register_with_keras()
    >>> import keras
    >>> keras.saving.get_registered_object("vaecm>ConvVAE").__name__
    'ConvVAE'
    """
    if "keras" in sys.modules:
        _register()
    elif not any(isinstance(finder, AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, AfterKeras())


def _register() -> None:
    for home in HOMES:
        import_module(home)


def _importing() -> bool:
    """Whether a module of the package is being imported just now: then its models would be read half made."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("vaecm.")]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in modules)


class AfterKeras:
    """A finder that lets the others find Keras, and registers the models once it is executed."""

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("keras")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                if not _importing():
                    _register()

            spec.loader.exec_module = execute_and_register
        return spec
