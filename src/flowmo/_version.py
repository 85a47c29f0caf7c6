"""The version of the package, said once: pyproject.toml, results and ``flowmo --version`` read it here."""

__version__ = "0.1.0"
