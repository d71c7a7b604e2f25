"""The documentation's site: README and guides as they are, and the API from its docstrings (`make docs`)."""

import importlib
import re
from pathlib import Path
from typing import Any

from sphinx.util import logging

import vesu

project = "vesu"
author = "vesu's contributors"
project_copyright = "vesu's contributors. MIT OR Apache-2.0"
release = version = vesu.__version__

extensions = [
    "myst_parser",  # Markdown
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinxarg.ext",  # the command line, from its own parser
    "sphinx_copybutton",
]
exclude_patterns = ["figures/*"]

# Guides are plain Markdown, as GitHub shows them; the site only adds anchors to their headings.
myst_heading_anchors = 3
highlight_language = "text"

# The API is documented from the imported package: vesu.distill needs torch for that.
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"vesu {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"  # prompts and answers of an example are not copied

# Where the files around docs/ live in the site, for the links of README, CONTRIBUTING and CHANGELOG.
FROM_ROOT = {
    "docs/": "",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/": "../examples/",
}


def from_root(_app: Any, path: Path, _docname: str, content: list[str]) -> None:
    """Turn the links of a file in the root, which a page includes, into links from docs/."""
    if path.parent != Path(".."):
        return
    for before, after in FROM_ROOT.items():
        content[0] = re.sub(rf"(\]\(){re.escape(before)}", rf"\1{after}", content[0])


def folders_as_text(app: Any, docname: str, source: list[str]) -> None:
    """A link to a folder, which GitHub shows and a site does not have, becomes plain text."""
    page = Path(app.env.doc2path(docname)).parent

    def plain(link: re.Match[str]) -> str:
        return link[1] if (page / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^):#]+)\)", plain, source[0])


def all_public_names(_app: Any, env: Any) -> None:
    """Warn of every public name of a documented module that has no entry (a warning is an error in `make docs`)."""
    python = env.get_domain("py")
    for module in python.modules:
        for name in getattr(importlib.import_module(module), "__all__", ()):
            places = {f"{module}.{name}", f"vesu.{name}"}
            if not places & (python.objects.keys() | {"vesu.__version__"}):
                logging.getLogger(__name__).warning("%s.%s stands on no page of docs/api", module, name)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", folders_as_text)
    app.connect("include-read", from_root)
    app.connect("env-check-consistency", all_public_names)
