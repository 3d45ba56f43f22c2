"""The API as a pod sees it: its own service account, with a token that changes."""

from pathlib import Path

import pytest
import trustme

from launch.api import Api
from pipeline.errors import CapstanError
from tests.launch.api_server import NAMESPACE, ApiServer
from tests.launch.kubernetes import Cluster


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


@pytest.mark.usefixtures("cluster")
def test_a_pods_own_account(account: Path, server: ApiServer) -> None:
    api = Api(account=str(account))
    assert api.get("job") is None
    server.tokens = {"another"}  # as kubelets renew it, every hour or so
    (account / "token").write_text("another")
    assert api.get("job") is None


def test_a_server_of_another_authority_is_not_asked_again(account: Path, server: ApiServer) -> None:
    trustme.CA().cert_pem.write_to_path(account / "ca.crt")
    with pytest.raises(CapstanError, match="CERTIFICATE_VERIFY_FAILED"):
        Api(account=str(account)).get("job")
    assert server.asked == []


def test_patience_ends(account: Path, server: ApiServer) -> None:
    server.faults += [503] * 99
    with pytest.raises(CapstanError, match="the server is unwell"):
        Api(patience=0.5, account=str(account)).get("job")
    assert len(server.asked) > 1


def test_nobody_there(account: Path, server: ApiServer) -> None:
    server.stop()
    with pytest.raises(CapstanError, match="nothing answers as it should"):
        Api(patience=0.5, account=str(account)).get("job")


def test_only_statuses_that_pass_are_tried_again(account: Path, server: ApiServer) -> None:
    server.faults += [422]
    with pytest.raises(CapstanError, match="the server is unwell"):
        Api(account=str(account)).delete("job")
    assert len(server.asked) == 1


def test_pods_that_are_gone(account: Path, server: ApiServer, cluster: Cluster) -> None:
    api = Api(account=str(account))
    assert api.pod("none") is None
    assert api.pods("job") == []
    with pytest.raises(CapstanError, match='pods "none" not found'):
        list(api.log("none", "train"))
