"""Templates of pages."""

import jinja2
import pytest

from text2token.utils.page import page_environment


@pytest.mark.parametrize(
    "source", ["{{ run.sead }}", "{{ gone }}", "{{ run.sead.deeper }}", "{% for row in gone %}{% endfor %}"]
)
def test_a_wrong_name_in_a_template_is_an_error(source):
    with pytest.raises(jinja2.UndefinedError):
        page_environment().from_string(source).render(run={"seed": 0})
