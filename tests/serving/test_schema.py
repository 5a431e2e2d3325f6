"""Requests made from the OpenAPI document: no server error, and every answer as the document says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from text2token.model.embedder import Embedder
from text2token.serving import ServerSettings, Service, create_app

pytestmark = pytest.mark.serving
STEADY = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_as_documented(model_folder, index_folder, mode):
    service = Service(ServerSettings(model="tiny", indexes={"docs": index_folder}), Embedder.open(model_folder))
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service))
    failed, seen = {}, 0
    for result in schema.get_all_operations():
        operation = result.ok()
        statuses, error = ask(operation.as_strategy(generation_mode=mode))
        assert 500 not in statuses
        seen += len(statuses)
        failed |= {operation.label: error} if error else {}
    assert failed == {}
    assert seen > 100


def ask(cases):
    """Statuses of the answers to made requests, and the first answer that is not as documented."""
    statuses = []

    @STEADY
    @given(cases)
    def answers(case):
        response = case.call()
        statuses.append(response.status_code)
        case.validate_response(response, excluded_checks=[positive_data_acceptance])  # texts have rules of their own

    try:
        answers()
    except Unsatisfiable:  # a route without parameters takes no wrong request
        return statuses, None
    except (Exception, BaseExceptionGroup) as error:
        return statuses, f"{type(error).__name__}: {error}"
    return statuses, None
