"""The schema registry, through the Confluent API that Confluent, Apicurio and others serve."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx

from streams.errors import InvalidInputError, RefusedError, RewindowError, UnreachableError
from streams.schema.compat import LEVELS, incompatibilities

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
MAX_SCHEMA_ID = 2**31 - 1
_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA, _NO_LEVEL = 40401, 40402, 40403, 40408
_NORMALIZED = {"normalize": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A schema as the registry holds it under a subject."""

    subject: str
    version: int
    schema_id: int
    schema: dict[str, Any]


class Registry:
    """A client of one registry; blocking.

    `basic_auth` is (user, password), `verify` a context with the trusted certificates.
    Every method raises UnreachableError if the registry can't be asked, or is not what
    answers at `url`; what else they raise is named there.
    """

    def __init__(
        self,
        url: str,
        *,
        basic_auth: tuple[str, str] | None = None,
        timeout_s: float = 10,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InvalidInputError(f"registry url {url!r} must begin with http:// or https://")
        self._client = httpx.Client(
            auth=basic_auth,
            timeout=timeout_s,
            headers={"Accept": f"{CONTENT_TYPE}, application/json", **(headers or {})},
            verify=verify,
            transport=transport,
            follow_redirects=True,
        )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From librdkafka-style names: `url`, `basic.auth.user.info`, `bearer.auth.token`,
        `ssl.ca.location`, `ssl.certificate.location`, `ssl.key.location`, `timeout.ms`.

        Raises InvalidInputError if `url` is absent or a file can't be read.
        """
        if not settings.get("url"):
            raise InvalidInputError("no registry: set `url` in [registry], or --registry-url")
        user, separator, password = str(settings.get("basic.auth.user.info") or "").partition(":")
        token = settings.get("bearer.auth.token")
        return cls(
            str(settings["url"]),
            basic_auth=(user, password) if separator else None,
            timeout_s=float(settings.get("timeout.ms") or 10_000) / 1_000,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            verify=_certificates(settings),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ping(self) -> None:
        """Ask for anything at all: raises UnreachableError with advice if that fails."""
        self._call("GET", "/subjects")

    def subjects(self) -> list[str]:
        """Names of all subjects."""
        return list(self._call("GET", "/subjects"))

    def versions(self, subject: str) -> list[int]:
        """Versions of a subject, ascending; none if there is no such subject."""
        found = self._call("GET", f"/subjects/{quote(subject, safe='')}/versions", none=_NO_SUBJECT)
        return sorted(found or [])

    def latest(self, subject: str) -> Registered:
        """The newest schema of a subject. InvalidInputError if there is none."""
        found = self.schema(subject, "latest")
        if found is None:
            raise InvalidInputError(
                f"the registry at {self.url} has no subject {subject!r}: "
                "register its schema first, or mend the name"
            )
        return found

    def schema(self, subject: str, version: int | str) -> Registered | None:
        """One version of a subject; None if there is none. InvalidInputError if it is not Avro
        or refers to other subjects."""
        path = f"/subjects/{quote(subject, safe='')}/versions/{version}"
        found = self._call("GET", path, none=(_NO_SUBJECT, _NO_VERSION))
        return None if found is None else _registered(found)

    def schema_by_id(self, schema_id: int) -> dict[str, Any] | None:
        """The schema with an id; None only if the registry itself says that it has none, or
        the id is beyond those that a registry gives.

        A schema of another kind than Avro comes back as `{"type": <kind>}`, which no Avro
        reader takes: what is wrong with it is for the decoder to say, record by record.
        """
        if schema_id > MAX_SCHEMA_ID:
            # Registries answer it like a wrong path: one such record would look like an outage.
            return None
        try:
            found = self._call("GET", f"/schemas/ids/{schema_id}", none=_NO_SCHEMA)
        except InvalidInputError as error:
            # An id that came with a record is no user's input; only asking again may help.
            raise UnreachableError(str(error)) from error
        if found is None:
            return None
        if not isinstance(found, dict) or "schema" not in found:
            raise UnreachableError(
                f"the schema registry at {self.url} answers for schema {schema_id} without it: "
                "check what stands between it and us"
            )
        kind = found.get("schemaType", "AVRO")
        return _parse(found["schema"]) if kind == "AVRO" else {"type": str(kind)}

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Id of the schema under the subject, registered if it is new.

        RefusedError if it may not follow the earlier ones, with the reasons;
        InvalidInputError if it is not valid.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        try:
            found = self._call("POST", path, body=_body(schema), params=_NORMALIZED)
        except _ConflictError as error:
            level = self.compatibility(subject) or "FULL_TRANSITIVE"
            reasons = self.check(subject, schema, level) or [str(error)]
            raise RefusedError(
                f"the registry refuses the schema of {subject!r} ({level}): {'; '.join(reasons)}"
            ) from error
        return int(found["id"])

    def lookup(self, subject: str, schema: Mapping[str, Any]) -> int | None:
        """Id of the schema if it is registered under the subject."""
        path = f"/subjects/{quote(subject, safe='')}"
        found = self._call(
            "POST", path, body=_body(schema), params=_NORMALIZED, none=(_NO_SUBJECT, _NO_SCHEMA)
        )
        return None if found is None else int(found["id"])

    def compatibility(self, subject: str) -> str | None:
        """The level set on the subject itself; None if it has none of its own."""
        path = f"/config/{quote(subject, safe='')}"
        found = self._call("GET", path, none=(_NO_SUBJECT, _NO_LEVEL))
        return None if found is None else str(found["compatibilityLevel"])

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the level of one subject. The registry's global level is never touched."""
        if level not in LEVELS:
            raise InvalidInputError(f"unknown compatibility level {level!r}")
        path = f"/config/{quote(subject, safe='')}"
        try:
            self._call("PUT", path, body={"compatibility": level})
        except RewindowError:
            # Two at once: a registry may refuse the second one.
            if self.compatibility(subject) != level:
                raise

    def check(self, subject: str, schema: Mapping[str, Any], level: str) -> list[str]:
        """Why the schema may not follow what the subject holds, by our own reading.

        Of one that the subject holds already, why it may not follow those before it.
        """
        known = self.lookup(subject, schema)
        earlier: list[dict[str, Any]] = []
        for number in self.versions(subject):
            held = self.schema(subject, number)
            if held is None:
                continue
            if held.schema_id == known:
                break
            earlier.append(held.schema)
        return incompatibilities(schema, earlier, level)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        none: int | tuple[int, ...] = (),
    ) -> Any:
        """The answer's JSON, or None for the registry's own error codes `none`."""
        try:
            response = self._client.request(
                method,
                self.url + path,
                content=None if body is None else json.dumps(body),
                headers=None if body is None else {"Content-Type": CONTENT_TYPE},
                params=params,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(
                f"the schema registry at {self.url} does not answer "
                f"({type(error).__name__}: {error}): is it running, and is the address right?"
            ) from error
        answer = _json(response)
        if response.is_success:
            if answer is None:
                raise self._not_a_registry(response)
            return answer
        code, message = _fault(answer)
        if code in ((none,) if isinstance(none, int) else none):
            return None
        raise self._failure(response, code, message)

    def _failure(self, response: httpx.Response, code: int, message: str) -> RewindowError:
        status = response.status_code
        if status in (401, 403):
            return UnreachableError(
                f"the schema registry at {self.url} refuses us ({status}): "
                "check `basic.auth.user.info` in [registry]"
            )
        if status >= 500 or status in (408, 429):
            return UnreachableError(
                f"the schema registry at {self.url} is in trouble ({status}): "
                f"{message or response.reason_phrase}; try again later"
            )
        if status == 409:
            return _ConflictError(message)
        if code < 1_000:
            return self._not_a_registry(response)
        return InvalidInputError(f"the schema registry refuses the request ({code}): {message}")

    def _not_a_registry(self, response: httpx.Response) -> UnreachableError:
        return UnreachableError(
            f"what answers at {self.url} is no schema registry ({response.status_code} for "
            f"{response.request.url.path}): check the path of the address; Apicurio's ends in "
            "/apis/ccompat/v7"
        )


class _ConflictError(RefusedError):
    """The registry's bare refusal, before its reasons are found."""


def _registered(found: Mapping[str, Any]) -> Registered:
    subject = str(found["subject"])
    if found.get("schemaType", "AVRO") != "AVRO":
        raise InvalidInputError(f"subject {subject!r} holds {found['schemaType']}, not Avro")
    if found.get("references"):
        raise InvalidInputError(
            f"the schema of {subject!r} refers to other subjects, which is not supported: "
            "put their definitions into it"
        )
    return Registered(
        subject=subject,
        version=int(found["version"]),
        schema_id=int(found["id"]),
        schema=_parse(found["schema"]),
    )


def _parse(text: str) -> dict[str, Any]:
    """The schema in its object form: a bare name such as "string" becomes one."""
    try:
        schema = json.loads(text)
    except json.JSONDecodeError:
        schema = text
    return schema if isinstance(schema, dict) else {"type": schema}


def _body(schema: Mapping[str, Any]) -> dict[str, str]:
    return {"schema": json.dumps(schema)}


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _fault(answer: Any) -> tuple[int, str]:
    """Error code and message of a registry's answer; 0 if it is none of its own."""
    if not isinstance(answer, dict):
        return 0, ""
    code = answer.get("error_code")
    return code if isinstance(code, int) else 0, str(answer.get("message") or "")


def _certificates(settings: Mapping[str, Any]) -> ssl.SSLContext | bool:
    authority = settings.get("ssl.ca.location")
    certificate = settings.get("ssl.certificate.location")
    if not authority and not certificate:
        return True
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if certificate:
            context.load_cert_chain(certificate, settings.get("ssl.key.location") or None)
    except OSError as error:
        raise InvalidInputError(f"a certificate of [registry] can't be read: {error}") from error
    return context
