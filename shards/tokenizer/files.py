"""Loading of vocabularies: from tiktoken's registry, mistral-common, `.tiktoken`, `tokenizer.json` and tekken files."""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tiktoken

from colophon.shards.common.errors import PanicError, TokenizerError, did_you_mean, panics_as_errors, short_reason
from colophon.shards.common.paths import why_missing
from colophon.shards.common.text_encoding import BYTE_ORDER_MARK, encoding_problem
from colophon.shards.tokenizer.backends import Backend, TiktokenBackend, build_encoding
from colophon.shards.tokenizer.hugging_face import HuggingFaceBackend
from colophon.shards.tokenizer.patterns import PATTERNS, find_pattern

TIKTOKEN_NAMES = ("gpt2", "cl100k_base", "o200k_base")
TOKENIZER_NAMES = (*TIKTOKEN_NAMES, "tekken")

MAX_IDS = 1 << 24
"""Ids that a vocabulary may have: 60 times as many as the largest in use."""
DOWNLOAD_SECONDS = 60.0
"""Time limit for tiktoken's download of a vocabulary. tiktoken has none, and a cluster node without a network would
wait for minutes."""

_TEKKEN_FILE = "data/tekken_240718.json"  # Mistral-Nemo's, by its date; later files have other tokens
_TEKKEN_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""Ids 0 to 19, from mistral-common's `Tekkenizer.DEPRECATED_SPECIAL_TOKENS`; the file does not name them."""


def load_named(name: str) -> Backend:
    """The vocabulary `name`.

    Raises:
        TokenizerError: the name is unknown, the download failed, or mistral-common is not installed.
    """
    if name == "tekken":
        return _load_tekken()
    if name not in TIKTOKEN_NAMES:
        guess, available = did_you_mean(name, TOKENIZER_NAMES), ", ".join(TOKENIZER_NAMES)
        others = "hf:ORGANIZATION/MODEL of the Hugging Face Hub, or set a path"
        raise TokenizerError(f"unknown tokenizer {name!r}; available: {available} ({others}){guess}")
    encoding = _get_encoding(name)
    return TiktokenBackend(encoding, special={t: encoding.encode_single_token(t) for t in encoding.special_tokens_set})


def load_file(path: Path, *, pattern: str | None, name: str | None = None) -> Backend:
    """The vocabulary in a `.tiktoken` file, a Hugging Face `tokenizer.json`, or a `tekken.json` of Mistral.

    Args:
        path: the file.
        pattern: for a `.tiktoken` file, the expression that splits text; None reads it from the sidecar.
        name: the vocabulary's name in reports; by default the file's, of a `tokenizer.json` its directory's.

    Raises:
        TokenizerError: the file is missing or of another format, or the pattern is missing or invalid.
    """
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else why_missing(path, otherwise="")
        raise TokenizerError(f"no tokenizer file {path}" + (f" ({reason})" if reason else ""))
    if path.suffix == ".json":
        if pattern is not None:
            raise TokenizerError(f"{path}: pattern is for .tiktoken files; a {path.name} has its own")
        return _load_json(path, name=name)
    if path.suffix != ".tiktoken":
        raise TokenizerError(f"{path}: unknown type of tokenizer file; supported: .tiktoken, .json (Hugging Face)")
    data = path.read_bytes()
    ranks = parse_ranks(data, path=path)
    expression = find_pattern(pattern) if pattern is not None else _sidecar_pattern(path, data)
    try:
        _check_ids(ranks.values())
        with panics_as_errors():
            return TiktokenBackend(build_encoding(name or path.stem, ranks, pattern=expression), special={})
    except (TokenizerError, PanicError) as error:
        raise TokenizerError(f"{path}: {error} (known patterns: {', '.join(PATTERNS)})") from error


def sidecar_path(path: Path) -> Path:
    """The path of the file with the pattern of `path`: `x.tiktoken.json` for `x.tiktoken`."""
    return path.with_name(path.name + ".json")


def parse_ranks(data: bytes, *, path: Path) -> dict[bytes, int]:
    """Tokens and ranks of a `.tiktoken` file: each line is a base64 token, a space and its rank.

    tiktoken's own `load_tiktoken_bpe` is not used: it caches a copy of a local file under its path, and reads the old
    copy after the file has changed.

    Raises:
        TokenizerError: a line of another form, a repeated token, or no line; the message names path and line.
    """
    if problem := encoding_problem(data):
        raise TokenizerError(f"{path}: {problem}")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.removeprefix(BYTE_ORDER_MARK).splitlines(), start=1):
        if line:
            token, rank = _parse_line(line, where=f"{path}, line {number}")
            if token in ranks:
                raise TokenizerError(f"{path}, line {number}: token {token!r} is repeated")
            ranks[token] = rank
    if not ranks:
        raise TokenizerError(f"{path}: not a .tiktoken file: the file is empty")
    return ranks


def _parse_line(line: bytes, *, where: str) -> tuple[bytes, int]:
    try:
        token, rank = line.split()
        return base64.b64decode(token, validate=True), int(rank)
    except (ValueError, binascii.Error) as error:
        shown = line[:40].decode("ascii", "backslashreplace")
        raise TokenizerError(
            f"{where}: not a .tiktoken file: expected a base64 token and its rank, got {shown!r}"
        ) from error


def _sidecar_pattern(path: Path, data: bytes) -> str:
    """The pattern that `train_tokenizer` wrote beside the vocabulary."""
    sidecar, known = sidecar_path(path), ", ".join(PATTERNS)
    if not sidecar.is_file():
        raise TokenizerError(
            f"{path} needs a pattern, the regular expression that splits text: one of {known}, or your own"
        )
    try:
        content = json.loads(sidecar.read_bytes())
        pattern, sha256 = str(content["pattern"]), content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f"{sidecar}: not the pattern of a .tiktoken file: {short_reason(error)}") from error
    if sha256 != hashlib.sha256(data).hexdigest():
        raise TokenizerError(
            f"{sidecar} is the pattern of another vocabulary, not of {path}. Set the pattern (one of {known})"
        )
    return pattern


def _load_json(path: Path, *, name: str | None) -> Backend:
    try:
        content = json.loads(path.read_bytes())
        is_tekken = isinstance(content, dict) and isinstance(content.get("config"), dict) and "model" not in content
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not a Hugging Face tokenizer.json: {short_reason(error)}") from error
    if is_tekken:
        try:
            return _tekken_backend(content, name=name or path.stem)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise TokenizerError(f"{path}: not a tekken.json: {short_reason(error)}") from error
    if name is None:
        name = path.stem if path.stem != "tokenizer" else path.parent.name or path.stem
    try:
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise ValueError("it has no model")
        _check_ids(_ids(content))
        with panics_as_errors():
            return HuggingFaceBackend(content, name=name)
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise TokenizerError(f"{path}: not a Hugging Face tokenizer.json: {short_reason(error)}") from error


def _ids(content: dict[str, Any]) -> Iterator[int]:
    """The ids in a `tokenizer.json`, as far as it has the form of one."""
    vocabulary = content["model"].get("vocab")
    yield from (i for i in (vocabulary.values() if isinstance(vocabulary, dict) else ()) if isinstance(i, int))
    added = content.get("added_tokens")
    tokens = (token for token in (added if isinstance(added, list) else ()) if isinstance(token, dict))
    yield from (token["id"] for token in tokens if isinstance(token.get("id"), int))


def _check_ids(ids: Iterable[int]) -> None:
    """Check that no id is so large that tables with a row for each id fill memory: libraries allocate them at once."""
    largest = max(ids, default=0)
    if largest >= MAX_IDS:
        raise TokenizerError(f"its largest id is {largest}; ids up to {MAX_IDS - 1} are supported")


def _load_tekken() -> Backend:
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        raise TokenizerError("the tokenizer 'tekken' is part of the package mistral-common, which is not installed")
    path = Path(spec.origin).parent / _TEKKEN_FILE
    if not path.is_file():
        raise TokenizerError(f"the installed mistral-common lacks the tokenizer 'tekken': no file {path}")
    return _tekken_backend(json.loads(path.read_bytes()), name="tekken")


def _tekken_backend(content: dict[str, Any], *, name: str) -> Backend:
    """The vocabulary of a `tekken.json`. Raises several kinds of errors for one of another form."""
    config = content["config"]
    num_special = int(config["default_num_special_tokens"])
    # The file has more ranks than the model; the vocabulary is cut to the model's size.
    vocabulary = content["vocab"][: int(config["default_vocab_size"]) - num_special]
    ranks = {base64.b64decode(token["token_bytes"]): int(token["rank"]) for token in vocabulary}
    named = {int(token["rank"]): str(token["token_str"]) for token in content.get("special_tokens") or ()}
    named = named or dict(enumerate(_TEKKEN_SPECIAL))
    _check_ids([num_special, *named, *ranks.values()])
    names = {i: named.get(i, f"<SPECIAL_{i}>") for i in range(num_special)}
    with panics_as_errors():
        encoding = build_encoding(name, ranks, pattern=str(config["pattern"]))
        return TiktokenBackend(encoding, special={text: i for i, text in names.items()}, first_id=num_special)


def _get_encoding(name: str) -> tiktoken.Encoding:
    """`tiktoken.get_encoding` with a time limit for its download."""
    result: list[tiktoken.Encoding | Exception] = []

    def get() -> None:
        try:
            result.append(tiktoken.get_encoding(name))
        except Exception as error:  # the calling thread reports it
            result.append(error)

    thread = threading.Thread(target=get, name=f"tiktoken {name}", daemon=True)
    thread.start()
    thread.join(DOWNLOAD_SECONDS)
    outcome = result[0] if result else TimeoutError(f"no answer in {DOWNLOAD_SECONDS:g} seconds")
    if isinstance(outcome, Exception):
        raise TokenizerError(
            f"tiktoken cannot download the vocabulary {name!r} ({short_reason(outcome)}). Set TIKTOKEN_CACHE_DIR to a "
            "folder that holds it, or set the path of a .tiktoken file"
        ) from outcome
    return outcome
