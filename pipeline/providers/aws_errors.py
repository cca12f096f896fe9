"""What AWS and its SDK raise, before and in the middle of an answer, turned into our tree of errors.

No provider of its own: all that talk to AWS translate here. Nothing of what comes out shows an account, a key, a
token or a signed address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from botocore import exceptions as sdk
from botocore.eventstream import ParserError

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.providers.chat_errors import clean, read_retry_after

SIGN_IN: Final = (
    "Forgeline uses AWS's own chain: environment variables, the profile in AWS_PROFILE, SSO (aws sso login), a role"
)
NO_CREDENTIALS: Final = f"No AWS credentials were found. {SIGN_IN}."

# What an error's code means, whichever service says it; a stream says the same with a small first letter.
_MEANS: Final = {
    **dict.fromkeys(("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"), "busy"),
    **dict.fromkeys(("ServiceQuotaExceededException", "LimitExceededException"), "quota"),
    "ModelNotReadyException": "not ready",
    **dict.fromkeys(("ServiceUnavailableException", "ServiceUnavailable"), "down"),
    **dict.fromkeys(("InternalServerException", "InternalFailure", "InternalDependencyException"), "failed"),
    **dict.fromkeys(("ModelErrorException", "ModelError"), "failed"),
    **dict.fromkeys(("ModelStreamErrorException", "ModelStreamError", "InternalStreamFailure"), "failed"),
    **dict.fromkeys(("ModelTimeoutException", "RequestTimeout", "RequestTimeoutException"), "timed out"),
    **dict.fromkeys(("ValidationException", "ValidationError", "SerializationException"), "invalid"),
    "ResourceNotFoundException": "not there",
    **dict.fromkeys(("AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "OptInRequired"), "denied"),
    **dict.fromkeys(("ExpiredTokenException", "ExpiredToken", "RequestExpired"), "expired"),
    **dict.fromkeys(("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"), "refused"),
    **dict.fromkeys(("InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed"), "refused"),
    **dict.fromkeys(("IncompleteSignature", "IncompleteSignatureException"), "refused"),
    **dict.fromkeys(("MissingAuthenticationToken", "MissingAuthenticationTokenException"), "refused"),
}
_STATUS_MEANS: Final = {
    401: "refused",
    403: "denied",
    404: "not there",
    408: "timed out",
    429: "busy",
    503: "down",
    504: "timed out",
}
_SENTENCES: Final = {
    "busy": "is throttled by AWS",
    "quota": "is at the limit that AWS sets this account",
    "not ready": "is not ready yet",
    "down": "is not available now",
    "failed": "failed",
    "timed out": "timed out at AWS",
    "invalid": "refused the request",
    "not there": "is not there",
}
_CREDENTIALS: Final = {
    "denied": "AWS does not allow {what} with these credentials: they need access to the model, and the permission to "
    "invoke it in this region.",
    "expired": "The AWS credentials for {what} have expired: renew them, and start Forgeline again if they are fixed "
    f"keys. {SIGN_IN}.",
    "refused": f"AWS refused the credentials for {{what}}: the keys, or this machine's clock, are wrong. {SIGN_IN}.",
}
_CREDENTIALS_CALLS: Final = {"AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken"}

_NO_CREDENTIALS: Final = (
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.UnknownCredentialError,
    sdk.RefreshWithMFAUnsupportedError,
    sdk.NoAuthTokenError,
    sdk.TokenRetrievalError,
    sdk.MetadataRetrievalError,
    sdk.SSOError,
    sdk.LoginError,
    sdk.MissingDependencyException,  # `aws login` needs botocore[crt]
)
_WRONG_SETTINGS: Final = (
    sdk.ProfileNotFound,
    sdk.ConfigParseError,
    sdk.ConfigNotFound,
    sdk.InvalidConfigError,
    sdk.InvalidRegionError,
    sdk.UnknownRegionError,
    sdk.EndpointProviderError,
    sdk.InvalidEndpointConfigurationError,
    sdk.InvalidRetryConfigurationError,
    sdk.InvalidProxiesConfigError,
)
_Kinds = type[BaseException] | tuple[type[BaseException], ...]
_NOT_ASKED: Final[tuple[tuple[_Kinds, str], ...]] = (
    (sdk.NoCredentialsError, NO_CREDENTIALS),
    (_NO_CREDENTIALS, f"AWS credentials can't be had ({{words}}). {SIGN_IN}."),
    (sdk.NoRegionError, "No AWS region is known for {what}: set region in its preset, or AWS_DEFAULT_REGION."),
    (_WRONG_SETTINGS, "The AWS settings that {what} needs can't be used: {words}"),
    (sdk.ReadTimeoutError, "{what} did not answer in time."),  # it may be working still: not to be asked again
    (sdk.SSLError, "{what} can't be reached: no TLS connection to AWS could be made."),
)
_NOT_REACHED: Final[tuple[tuple[_Kinds, str], ...]] = (
    (sdk.ConnectTimeoutError, "no connection in time"),
    (sdk.ProxyConnectionError, "the proxy can't be reached"),
    (sdk.ConnectionClosedError, "AWS closed the connection without an answer"),
    (sdk.EndpointConnectionError, "no connection to AWS could be made"),
)


def translate(error: BaseException, what: str) -> ForgelineError:
    """The error of ours that this one is. `what` names the model in its sentence."""
    what = masked(what)
    match error:
        case ForgelineError():
            return error
        case sdk.ClientError():
            return _said(error, what)
        case sdk.ParamValidationError():
            return InvalidRequest(f"The request to {what} can't be sent: {_words(error)}")
        case sdk.BotoCoreError() if not isinstance(error, sdk.ResponseStreamingError):
            return _unanswered(error, what)
    return _broken(error, what)


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Every error of the SDK inside is raised as ours; `what` names the model in its sentence."""
    try:
        yield
    except ForgelineError:
        raise
    except Exception as error:  # whatever the SDK makes of what it can't read
        raise translate(error, what) from harmless(error)


def harmless(error: BaseException) -> BaseException | None:
    """The error as a cause that may be logged: what it says masked, and without the ones that led to it."""
    if isinstance(error, aiohttp.ClientResponseError):  # its repr shows the request's headers
        return None
    if isinstance(error, sdk.BotoCoreError | sdk.ClientError):
        error.args = tuple(masked(str(said)) for said in error.args)
    error.__cause__, error.__context__ = None, None
    return error


def _said(error: sdk.ClientError, what: str) -> ForgelineError:
    """What AWS itself said: with a status, or (without one) in the middle of a stream."""
    told: Any = error.response.get("Error", {})
    answer: Any = error.response.get("ResponseMetadata", {})
    code, status = str(told.get("Code", "")), answer.get("HTTPStatusCode")
    means = _MEANS.get(code[:1].upper() + code[1:])
    if means is None:
        means = _STATUS_MEANS.get(status, "invalid" if status and 400 <= status < 500 and status != 424 else "failed")
    if error.operation_name in _CREDENTIALS_CALLS and means not in {"busy", "down", "failed"}:
        means = "refused" if means == "invalid" else "denied" if means == "not there" else means
    if means in _CREDENTIALS:  # AWS's own words name the account, and sometimes what was signed
        return Unavailable(_CREDENTIALS[means].format(what=what))
    words = clean(masked(str(told.get("Message") or "")))
    sentence = f"{what} {_SENTENCES[means]}" + (f": {words}" if words else ".")
    match means:
        case "busy" | "quota" | "not ready":
            wait = read_retry_after(answer.get("HTTPHeaders", {}).get("retry-after"))
            return RateLimited(sentence, retry_after=1.0 if wait is None else wait)
        case "down" | "timed out" | "not there":
            # What timed out has worked on it, and may be billed: only what was turned away is asked again.
            return Unavailable(sentence, retryable=means == "down")
        case "invalid":
            return InvalidRequest(sentence)
    return ModelError(sentence)


def _unanswered(error: sdk.BotoCoreError, what: str) -> ForgelineError:
    """What it means that no answer came, or not the whole of it."""
    below = error.kwargs.get("error") if hasattr(error, "kwargs") else None
    if isinstance(below, aiohttp.ClientPayloadError):
        return _broken(below, what)
    if isinstance(below, aiohttp.ClientResponseError | HttpProcessingError):
        return ModelError(f"{what} failed: what was answered is not HTTP.")
    for kinds, sentence in _NOT_ASKED:
        if isinstance(error, kinds):
            return Unavailable(sentence.format(what=what, words=_words(error)))
    for kinds, why in _NOT_REACHED:
        if isinstance(error, kinds):
            return Unavailable(f"{what} can't be reached: {why}.", retryable=True)
    return Unavailable(f"{what} can't be asked: {_words(error)}")


def _broken(error: BaseException, what: str) -> ForgelineError:
    """What broke off or can't be read."""
    match error:
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return Unavailable(f"{what} fell silent.")
        case aiohttp.ClientError() | OSError() | sdk.ResponseStreamingError():
            return ModelError(f"{what} failed: its answer broke off, the connection was lost.")
        case ParserError():
            return ModelError(f"{what} failed: a message of its answer is damaged.")
    return ModelError(f"{what} failed: its answer can't be read.")


def _words(error: BaseException) -> str:
    return clean(masked(str(error)))


# --- secrets ---------------------------------------------------------------------------------------

_SECRETS: Final = (
    (re.compile(r"https?://[^\s\"'<>]*[?&][^\s\"'<>]*"), "[address]"),  # a signed one holds its keys in the query
    (re.compile(r"\b(arn:[\w-]+:(?:iam|sts):[\w-]*:)[^\s\"',;)]*"), r"\1[identity]"),
    (re.compile(r"(?<!\d)\d{12}(?!\d)"), "[account]"),
    (re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA)[A-Z0-9]{12,}\b"), "[key]"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]+"), r"\1[token]"),
    (re.compile(r"(?i)\b((?:x-amz-)?(?:security-token|signature|credential)\s*[=:]\s*)[^\s&\"',;]+"), r"\1[secret]"),
    (re.compile(r"\b(?:ABSK|bedrock-api-key-)[A-Za-z0-9+/=_-]+"), "[token]"),
    (re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{40,}={0,2}(?![A-Za-z0-9+/=])"), "[secret]"),
)
"""What must not be shown, and what stands there instead. The last is how secret keys and session tokens look."""


def masked(text: str) -> str:
    """The text without account ids, keys, tokens and signed addresses."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
