"""A token server as the real registry trusts it: signs JWTs with a key whose certificate it vouches for."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.world.registries.httpd import HttpServer, Respond, Seen

ISSUER = "token-server.test"
SERVICE = "registry.test"


class TokenServer(HttpServer):
    """Gives tokens to users for everything, and to anybody for pulling from ``public/…``."""

    def __init__(self, folder: Path, users: Mapping[str, str]) -> None:
        super().__init__()
        self.users = users
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _certificate(self._key)
        self._bundle = folder / "token-server.pem"
        self._bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def auth(self) -> dict[str, Any]:
        """The section ``auth`` of the configuration of a registry that trusts it."""
        return {
            "token": {
                "realm": f"{self.url}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self._bundle),
            },
        }

    def token(self, actions: Mapping[str, list[str]]) -> str:
        """A token for *actions*, by the scope that names their repository."""
        access = []
        for scope, allowed in actions.items():
            kind, _, rest = scope.partition(":")
            access.append({"type": kind, "name": rest.rpartition(":")[0], "actions": allowed})
        now = int(time.time())
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        claims = {
            "iss": ISSUER,
            "sub": "",
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": str(uuid.uuid4()),
            "access": access,
        }
        headers = {"x5c": [base64.b64encode(der).decode()]}
        return jwt.encode(claims, self._key, algorithm="ES256", headers=headers)

    async def respond(self, request: Seen) -> Respond:
        """Answer a request for a token."""
        wanted = {scope: scope.rpartition(":")[2].split(",") for scope in request.query["scope"]}
        scheme, _, pair = request.authorization.partition(" ")
        if scheme:
            user, _, password = base64.b64decode(pair).decode().partition(":")
            if self.users.get(user) != password:
                return Respond(401)
        else:
            wanted = {
                scope: ["pull"] if scope.startswith("repository:public/") and "pull" in actions else []
                for scope, actions in wanted.items()
            }
        document = {"token": self.token(wanted), "expires_in": 300}
        return Respond(200, {"Content-Type": "application/json"}, json.dumps(document).encode())


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
