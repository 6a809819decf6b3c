"""AWS as far as a service account with a role goes: its token service, its registries' tokens, a registry.

It knows one role and one web identity, refuses what it is told to, and answers as AWS does.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from typing import Final, Literal
from urllib.parse import parse_qs

from tests.world.registries.httpd import HttpServer, Respond, Seen
from tests.world.registries.misbehaving import FakeRegistry

REGISTRY: Final = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
ROLE: Final = "arn:aws:iam::123456789012:role/image-builder"
IDENTITY: Final = "header.identity-of-the-service-account.signature"
PASSWORD: Final = "token-of-the-registry"

Right = Literal["sts:AssumeRoleWithWebIdentity", "ecr:GetAuthorizationToken", "ecr:BatchGetImage"]

ASSUMED: Final = """\
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
 <AssumeRoleWithWebIdentityResult>
  <Credentials><AccessKeyId>ASIAOFTHEROLE</AccessKeyId><SecretAccessKey>of-the-role</SecretAccessKey>
   <SessionToken>session</SessionToken><Expiration>{expiration}</Expiration></Credentials>
  <AssumedRoleUser><Arn>{role}</Arn><AssumedRoleId>AROA:x</AssumedRoleId></AssumedRoleUser>
 </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
NOT_ASSUMED: Final = """\
<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
 <Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message>
</Error></ErrorResponse>"""


class Amazon(HttpServer):
    """The address of AWS' services. *lacking* is what the role has no right to."""

    def __init__(self, lacking: Right | None = None) -> None:
        super().__init__()
        self.lacking = lacking

    async def respond(self, request: Seen) -> Respond:
        """Answer the two calls that are made."""
        if request.headers.get("x-amz-target", "").endswith(".GetAuthorizationToken"):
            return self._token(request)
        form = parse_qs(request.body.decode())
        assert form["Action"] == ["AssumeRoleWithWebIdentity"]
        known = form["RoleArn"] == [ROLE] and form["WebIdentityToken"] == [IDENTITY]
        xml = {"Content-Type": "text/xml"}
        if not known or self.lacking == "sts:AssumeRoleWithWebIdentity":
            return Respond(403, xml, NOT_ASSUMED.encode())
        expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return Respond(200, xml, ASSUMED.format(expiration=expiration, role=ROLE).encode())

    def _token(self, request: Seen) -> Respond:
        kind = {"Content-Type": "application/x-amz-json-1.1"}
        assert "ASIAOFTHEROLE" in request.authorization
        if self.lacking == "ecr:GetAuthorizationToken":
            refusal = {"__type": "AccessDeniedException", "message": "User is not authorized"}
            return Respond(400, kind, json.dumps(refusal).encode())
        token = b64encode(f"AWS:{PASSWORD}".encode()).decode()
        data = [{"authorizationToken": token, "expiresAt": time.time() + 43200}]
        return Respond(200, kind, json.dumps({"authorizationData": data}).encode())


class AmazonRegistry(FakeRegistry):
    """The registry, behind its own name for who uses this server as a proxy."""

    def __init__(self, lacking: Right | None = None) -> None:
        super().__init__(authentication="basic", users={"AWS": PASSWORD})
        self.lacking = lacking

    async def respond(self, request: Seen) -> Respond:
        """Refuse who may not, once it is known who it is."""
        answer = await super().respond(request)
        if self.lacking == "ecr:BatchGetImage" and answer.status != 401:
            error = {
                "errors": [{"code": "DENIED", "message": "not authorized to perform: ecr:BatchGetImage"}]
            }
            return Respond(403, {"Content-Type": "application/json"}, json.dumps(error).encode())
        return answer
