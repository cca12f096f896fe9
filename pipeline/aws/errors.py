"""Errors of AWS and its SDK, before and in the middle of a response, translated into `pipeline.errors`.

For everything that calls AWS. No translated message shows an account, a key, a token or a signed address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from botocore import exceptions as sdk
from botocore.eventstream import ParserError

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable, parse_retry_after
from pipeline.masking import clean_message, mask_identifiers

SIGN_IN: Final = (
    "Forgeline uses AWS's own chain: environment variables, the profile in AWS_PROFILE, SSO (aws sso login), a role"
)
NO_CREDENTIALS: Final = f"No AWS credentials were found. {SIGN_IN}."

# By error code, whichever service sends it; a stream sends the same codes with a small first letter.
_CODE_MEANINGS: Final = {
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
_STATUS_MEANINGS: Final = {
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
_CREDENTIALS_SENTENCES: Final = {
    "denied": "AWS does not allow {subject} with these credentials: they need access to the model, and the permission "
    "to invoke it in this region.",
    "expired": "The AWS credentials for {subject} have expired: renew them, and start Forgeline again if they are "
    f"fixed keys. {SIGN_IN}.",
    "refused": f"AWS refused the credentials for {{subject}}: the keys, or this machine's clock, are wrong. {SIGN_IN}.",
}
_CREDENTIALS_OPERATIONS: Final = {"AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken"}

_CREDENTIALS_ERRORS: Final = (
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
_SETTINGS_ERRORS: Final = (
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
_ErrorTypes = type[BaseException] | tuple[type[BaseException], ...]
_UNSENT_SENTENCES: Final[tuple[tuple[_ErrorTypes, str], ...]] = (
    (sdk.NoCredentialsError, NO_CREDENTIALS),
    (_CREDENTIALS_ERRORS, f"AWS credentials can't be had ({{words}}). {SIGN_IN}."),
    (sdk.NoRegionError, "No AWS region is known for {subject}: set region in its preset, or AWS_DEFAULT_REGION."),
    (_SETTINGS_ERRORS, "The AWS settings that {subject} needs can't be used: {words}"),
)
_NO_RESPONSE_SENTENCES: Final[tuple[tuple[_ErrorTypes, str], ...]] = (
    (sdk.ReadTimeoutError, "{subject} did not answer in time."),  # it may be working still: not to be asked again
    (sdk.SSLError, "{subject} can't be reached: no TLS connection to AWS could be made."),
)
_UNREACHABLE_REASONS: Final[tuple[tuple[_ErrorTypes, str], ...]] = (
    (sdk.ConnectTimeoutError, "no connection in time"),
    (sdk.ProxyConnectionError, "the proxy can't be reached"),
    (sdk.ConnectionClosedError, "AWS closed the connection without an answer"),
    (sdk.EndpointConnectionError, "no connection to AWS could be made"),
)


def to_forgeline_error(error: BaseException, subject: str) -> ForgelineError:
    """The error, translated. `subject` names the model in the message."""
    subject = mask_identifiers(subject)
    match error:
        case ForgelineError():
            return error
        case sdk.ClientError():
            return _from_client_error(error, subject)
        case sdk.ParamValidationError():
            return InvalidRequest(f"The request to {subject} can't be sent: {describe_error(error)}", before_call=True)
        case sdk.BotoCoreError() if not isinstance(error, sdk.ResponseStreamingError):
            return _from_transport_error(error, subject)
    return _from_broken_response(error, subject)


@contextmanager
def translate_errors(subject: str) -> Iterator[None]:
    """Raise each error of the SDK inside as one of `pipeline.errors`; `subject` names the model in the message."""
    try:
        yield
    except ForgelineError:
        raise
    except Exception as error:  # what the SDK raises for a response that it can't read has no common type
        raise to_forgeline_error(error, subject) from sanitize_exception(error)


def sanitize_exception(error: BaseException) -> BaseException | None:
    """The error as a cause that may be logged: its message masked, without its own causes. None: it can't be masked."""
    if isinstance(error, aiohttp.ClientResponseError):  # its repr shows the request's headers
        return None
    if isinstance(error, sdk.BotoCoreError | sdk.ClientError):
        error.args = tuple(mask_identifiers(str(argument)) for argument in error.args)
    error.__cause__, error.__context__ = None, None
    return error


def _from_client_error(error: sdk.ClientError, subject: str) -> ForgelineError:
    """For an error response, with a status, or (without one) in the middle of a stream."""
    body: Any = error.response.get("Error", {})
    metadata: Any = error.response.get("ResponseMetadata", {})
    code, status = str(body.get("Code", "")), metadata.get("HTTPStatusCode")
    meaning = _CODE_MEANINGS.get(code[:1].upper() + code[1:])
    if meaning is None:
        meaning = _STATUS_MEANINGS.get(
            status, "invalid" if status and 400 <= status < 500 and status != 424 else "failed"
        )
    if error.operation_name in _CREDENTIALS_OPERATIONS and meaning not in {"busy", "down", "failed"}:
        meaning = "refused" if meaning == "invalid" else "denied" if meaning == "not there" else meaning
    if meaning in _CREDENTIALS_SENTENCES:  # AWS's own words name the account, and sometimes what was signed
        return Unavailable(_CREDENTIALS_SENTENCES[meaning].format(subject=subject))
    message = clean_message(mask_identifiers(str(body.get("Message") or "")))
    sentence = f"{subject} {_SENTENCES[meaning]}" + (f": {message}" if message else ".")
    match meaning:
        case "busy" | "quota" | "not ready":
            retry_after = parse_retry_after(metadata.get("HTTPHeaders", {}).get("retry-after"))
            return RateLimited(sentence, retry_after=1.0 if retry_after is None else retry_after)
        case "down" | "timed out" | "not there":
            # What timed out has worked on it, and may be billed: only what was turned away is asked again.
            return Unavailable(sentence, retryable=meaning == "down")
        case "invalid":
            return InvalidRequest(sentence)
    return ModelError(sentence)


def _from_transport_error(error: sdk.BotoCoreError, subject: str) -> ForgelineError:
    """For no response, or not the whole of one."""
    cause = error.kwargs.get("error") if hasattr(error, "kwargs") else None
    if isinstance(cause, aiohttp.ClientPayloadError):
        return _from_broken_response(cause, subject)
    if isinstance(cause, aiohttp.ClientResponseError | HttpProcessingError):
        return ModelError(f"{subject} failed: what was answered is not HTTP.")
    for types, sentence in _UNSENT_SENTENCES:
        if isinstance(error, types):
            return Unavailable(sentence.format(subject=subject, words=describe_error(error)), before_call=True)
    for types, sentence in _NO_RESPONSE_SENTENCES:
        if isinstance(error, types):
            return Unavailable(sentence.format(subject=subject))
    for types, reason in _UNREACHABLE_REASONS:
        if isinstance(error, types):
            return Unavailable(f"{subject} can't be reached: {reason}.", retryable=True)
    return Unavailable(f"{subject} can't be asked: {describe_error(error)}")


def _from_broken_response(error: BaseException, subject: str) -> ForgelineError:
    """For a response that broke off or can't be read."""
    match error:
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return Unavailable(f"{subject} fell silent.")
        case aiohttp.ClientError() | OSError() | sdk.ResponseStreamingError():
            return ModelError(f"{subject} failed: its answer broke off, the connection was lost.")
        case ParserError():
            return ModelError(f"{subject} failed: a message of its answer is damaged.")
    return ModelError(f"{subject} failed: its answer can't be read.")


def error_response(error: BaseException) -> tuple[str, str]:
    """The code and the message of AWS's error response; empty for an error that is none."""
    body: Any = error.response.get("Error", {}) if isinstance(error, sdk.ClientError) else {}
    return str(body.get("Code", "")), str(body.get("Message", ""))


def describe_error(error: BaseException) -> str:
    """The error's own message, masked and on one line."""
    return clean_message(mask_identifiers(str(error)))
