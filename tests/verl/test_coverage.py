"""The table of engines and trainers in docs/verl.md is what the checks say."""

from pathlib import Path

from credit.adapters.verl import coverage

PAGE = Path(__file__).parents[2] / "docs" / "verl.md"


def test_the_page_has_the_table_that_the_checks_give():
    _, _, rest = PAGE.read_text().partition("<!-- python -m credit.adapters.verl.coverage -->\n")
    assert rest.partition("<!-- end -->")[0] == coverage.write_markdown(), (
        "put the output of python -m credit.adapters.verl.coverage into docs/verl.md"
    )
