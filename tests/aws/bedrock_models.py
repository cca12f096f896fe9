"""The models that Bedrock serves, and the limits of each."""

from __future__ import annotations

from dataclasses import dataclass

PREFIXES = frozenset({"us", "eu", "apac", "jp", "au", "global"})
"""The geographies of inference profiles."""


@dataclass(frozen=True)
class BedrockModel:
    """One model. `profiles` are the prefixes of its inference profiles; without any, it is called by its bare id.

    `sampling`: which of temperature and topP it accepts: "both", "one" of them, or "none".
    """

    profiles: frozenset[str] = frozenset()
    sampling: str = "both"
    images: int = 20
    image_bytes: int = 3_750_000
    video: bool = False
    max_tokens: int = 64_000
    is_retired: bool = False


def _claude(profiles: str, sampling: str = "one", max_tokens: int = 64_000, *, ended: bool = False) -> BedrockModel:
    return BedrockModel(frozenset(profiles.split()), sampling, max_tokens=max_tokens, is_retired=ended)


def _nova(profiles: str = "us eu apac", *, bare: bool = True, images: int = 20, ended: bool = False) -> BedrockModel:
    names = frozenset({*profiles.split(), *([""] if bare else [])})
    media = 25_000_000
    return BedrockModel(names, images=images, image_bytes=media, video=images > 0, max_tokens=10_000, is_retired=ended)


def served_models() -> dict[str, BedrockModel]:
    """The models by id, as of November 2026."""
    everywhere = "us eu jp apac au global"
    return {
        "anthropic.claude-sonnet-4-20250514-v1:0": _claude("us eu apac global", "both", ended=True),
        "anthropic.claude-opus-4-20250514-v1:0": _claude("us", "both", 32_000, ended=True),
        "anthropic.claude-opus-4-1-20250805-v1:0": _claude("us", max_tokens=32_000),
        "anthropic.claude-haiku-4-5-20251001-v1:0": _claude(everywhere),
        "anthropic.claude-sonnet-4-5-20250929-v1:0": _claude("us eu jp au global"),
        "anthropic.claude-opus-4-5-20251101-v1:0": _claude("us eu global"),
        "anthropic.claude-sonnet-4-6": _claude("us eu jp au global"),
        "anthropic.claude-opus-4-6-v1": _claude(everywhere, max_tokens=128_000),
        "anthropic.claude-opus-4-7": _claude(everywhere, "none", 128_000),
        "anthropic.claude-opus-4-8": _claude(everywhere, "none", 128_000),
        "anthropic.claude-sonnet-5": _claude(everywhere, "none", 128_000),
        "amazon.nova-micro-v1:0": _nova(images=0),
        "amazon.nova-lite-v1:0": _nova(),
        "amazon.nova-pro-v1:0": _nova(),
        "amazon.nova-premier-v1:0": _nova("us", bare=False, ended=True),
        "amazon.nova-2-lite-v1:0": _nova("us eu jp global", bare=False, images=5),
    }


def find_model(models: dict[str, BedrockModel], model_id: str) -> BedrockModel | str:
    """The requested model, or the message with which Bedrock rejects the id."""
    id = model_id.rpartition("/")[2] if model_id.startswith("arn:") else model_id
    prefix, _, rest = id.partition(".")
    prefix, id = (prefix, rest) if prefix in PREFIXES else ("", id)
    model = models.get(id)
    if model is None or (prefix and prefix not in model.profiles):
        return "The provided model identifier is invalid."
    if not prefix and model.profiles and "" not in model.profiles:
        return (
            f"Invocation of model ID {model_id} with on-demand throughput isn\u2019t supported. Retry your request with"
            " the ID or ARN of an inference profile that contains this model."
        )
    return model
