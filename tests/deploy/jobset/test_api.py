"""The API as a pod sees it: its own service account, with a token that changes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from capstan.deploy.jobset.api import Api
from capstan.errors import CapstanError
from tests.deploy.jobset.api_server import NAMESPACE, ApiServer
from tests.deploy.jobset.local_cluster import Cluster


@pytest.fixture
def account(
    tmp_path: Path,
    server: ApiServer,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """What a kubelet mounts into a pod, and the variables that go with it."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("token")
    (tmp_path / "namespace").write_text(NAMESPACE)
    return tmp_path


Connect = Callable[..., Api]


@pytest.fixture
def connect(account: Path) -> Iterator[Connect]:
    """An `Api` by that account, closed in the end."""
    with ExitStack() as stack:

        def connect(patience: float = 30.0) -> Api:
            api = Api(patience, str(account))
            stack.callback(api.close)
            return api

        yield connect


def test_a_pods_own_account(account: Path, connect: Connect, server: ApiServer) -> None:
    api = connect()
    assert api.get("job") is None
    server.tokens = {"another"}  # as kubelets renew it, every hour or so
    (account / "token").write_text("another")
    assert api.get("job") is None


def test_a_server_of_another_authority_is_not_asked_again(
    account: Path, connect: Connect, server: ApiServer
) -> None:
    trustme.CA().cert_pem.write_to_path(account / "ca.crt")
    with pytest.raises(CapstanError, match="CERTIFICATE_VERIFY_FAILED"):
        connect().get("job")
    assert server.asked == []


def test_patience_ends(connect: Connect, server: ApiServer) -> None:
    server.faults += [503] * 99
    with pytest.raises(CapstanError, match="the server is unwell"):
        connect(0.5).get("job")
    assert len(server.asked) > 1


def test_nobody_there(connect: Connect, server: ApiServer) -> None:
    server.stop()
    with pytest.raises(CapstanError, match="nothing answers as it should"):
        connect(0.5).get("job")


def test_only_statuses_that_pass_are_tried_again(connect: Connect, server: ApiServer) -> None:
    server.faults += [422]
    with pytest.raises(CapstanError, match="the server is unwell"):
        connect().delete("job")
    assert len(server.asked) == 1


def test_pods_that_are_gone(connect: Connect, server: ApiServer, cluster: Cluster) -> None:
    api = connect()
    assert api.pod("none") is None
    assert api.pods("job") == []
    with pytest.raises(CapstanError, match='pods "none" not found'):
        list(api.log("none", "train"))
