"""Optional dependencies: the extras of pyproject.toml, imported only by what needs them."""

from importlib import import_module

from mksgn.common.errors import BadInputError


class MissingExtraError(BadInputError):
    """A package of an extra that is not installed."""


def require(purpose: str, extra: str, *modules: str) -> None:
    """Check that optional modules can be imported.

    Args:
        purpose: What needs them, as the subject of a sentence.
        extra: The extra of mksgn that installs them.
        modules: Names to import.

    Raises:
        MissingExtraError: One line with the first module that is missing and the pip command.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise MissingExtraError(
                f"{purpose} needs {module}, which cannot be imported ({error}); pip install 'mksgn[{extra}]'"
            ) from error
