"""What `import edgeloop` costs: nothing, until a name is asked for."""

import subprocess
import sys

import pytest

HEAVY = {"pandas", "numpy", "pyarrow", "sklearn", "skl2onnx", "torch", "onnx", "rich", "IPython"}
SERVER = {"edgeloop_controller", "edgeloop_agent", "fastapi", "sqlalchemy"}
ASK = "import sys\n{statement}\nprint(*sorted(sys.modules))"


def imported_by(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_imports_nothing_else() -> None:
    assert not imported_by("import edgeloop") & (HEAVY | SERVER | {"httpx", "pydantic"})


@pytest.mark.parametrize("name", ["Fleet", "Client", "EdgeloopError"])
def test_the_front_needs_neither_the_server_nor_any_extra(name: str) -> None:
    # Where rich is installed, httpx imports it for a command line of its own.
    assert not imported_by(f"from edgeloop import {name}") & (HEAVY - {"rich"} | SERVER)


def test_documents_need_no_http() -> None:
    assert "httpx" not in imported_by("import edgeloop.documents.rollouts")


def test_a_name_that_is_not_there() -> None:
    import edgeloop

    with pytest.raises(AttributeError, match="nothing_such"):
        edgeloop.nothing_such  # noqa: B018
    assert "Fleet" in dir(edgeloop)
