"""Requests made from the OpenAPI document: no server error, and every answer as the document says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from text2token.model.embedder import Embedder
from text2token.serving import ServerSettings, Service, create_app

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def api(model_folder, index_folder):
    service = Service(ServerSettings(model="tiny", indexes={"docs": index_folder}), Embedder.open(model_folder))
    service.start()
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(service))
    service.stop()


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case):
    case.call_and_validate()
