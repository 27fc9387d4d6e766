"""Database servers: a study on one survives its being stopped, killed, full, and away for a minute."""

import pytest
from small_study import history, open_small, run

SERVERS = ["postgres", "mariadb", "redis"]


@pytest.fixture(params=SERVERS)
def server(request):
    return request.getfixturevalue(request.param)


def test_a_study_on_a_server_equals_one_in_a_file(server, url, space):
    studies = [open_small(where, space, exclusive=False) for where in (server.url, url)]
    for study in studies:
        run(study, space, 6)
    assert history(studies[0]) == history(studies[1])
