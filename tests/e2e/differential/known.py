"""Where Crossfade answers differently from Triton 2.51, and why.

Each reason stands, in these words, in ``docs/compatibility.md``. A pattern is a regular expression
over whole ids: everything that it matches must differ in exactly this way.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

MALFORMED = "malformed JSON, fields of a wrong kind and wrong element counts are 400"
STRICT = "values that Triton cuts, wraps or ignores are refused"
NAMES = "names and versions that cannot exist are INVALID_ARGUMENT / 400"
MORE = "more is understood"
BROKEN = "a model that is known but cannot answer is UNAVAILABLE / 503"
TIMEOUT = "`timeout` counts for every model"
READY = "the server is ready when every model has been tried"
LOAD = "a load of an unknown model is NOT_FOUND / 404, one that fails INTERNAL / 500"
CONFIG = "a `config` that cannot be used is INVALID_ARGUMENT / 400"
OVERRIDE = "the next load without a `config` ends it"
FILES = "`file:` is always INVALID_ARGUMENT / 400"
SETTINGS = "settings that are unknown, or would have no effect, are refused"
MEMORY = "regions that may not or cannot be mapped are INVALID_ARGUMENT or NOT_FOUND"
BINARY = "`binary_data_output` counts for named outputs, too"
CODING = "an unknown Content-Encoding is 415"
DECOUPLED = "a wrong request to a decoupled model is refused as wrong"
HEALTH = "health of an unknown service is NOT_FOUND"
GARBAGE = "bytes that are no message are INVALID_ARGUMENT"
COUNTED = "a refused request counts as a failure in the statistics"
GENERATE = "generate is 501"
REPOSITORY = "a named repository is UNIMPLEMENTED / 501 over HTTP, too"
TEXT_ID = "a text as the id of a sequence whose model takes a number is INVALID_ARGUMENT / 400"
CUDA = "CUDA shared memory is UNIMPLEMENTED / 501"
COMPRESSED = "`Accept-Encoding: *` gets gzip"
BODIES = "health and readiness have bodies, which KServe's clients read"


@dataclasses.dataclass(frozen=True)
class Known:
    """A difference: which requests, what each side answers, and why ours is right here."""

    pattern: str
    ours: str
    theirs: str
    why: str

    def matches(self, case_id: str) -> bool:
        """Whether it is about this request."""
        return re.fullmatch(self.pattern, case_id) is not None


def _of(why: str, ours: str, theirs: str, *patterns: str) -> Iterator[Known]:
    for pattern in patterns:
        yield Known(pattern, ours, theirs, why)


_NUMBER = r"(BOOL|U?INT\d+|FP32|FP64)"
_INVALID = "INVALID_ARGUMENT"
_REGION_OURS = (
    "OK ALREADY_EXISTS INVALID_ARGUMENT OK INVALID_ARGUMENT OK OK OK OK INVALID_ARGUMENT"
    " INVALID_ARGUMENT INVALID_ARGUMENT INVALID_ARGUMENT INVALID_ARGUMENT NOT_FOUND"
    " INVALID_ARGUMENT OK memory OK NOT_FOUND OK"
)
_REGION_THEIRS = (
    "OK ALREADY_EXISTS INTERNAL INTERNAL INTERNAL OK NOT_FOUND OK OK INVALID_ARGUMENT"
    " INVALID_ARGUMENT INVALID_ARGUMENT INVALID_ARGUMENT INVALID_ARGUMENT NOT_FOUND"
    " INTERNAL OK memory OK NOT_FOUND OK"
)
_AGAIN = "OK OK OK OK OK OK OK OK OK OK OK OK OK OK OK OK"
KNOWN = (
    *_of(
        MALFORMED, "400", "500",
        rf"http/{_NUMBER}/(less|more|none|null|objects|text)",
        r"http/(BOOL|U?INT\d+|BYTES)/(floats|whole-floats|too-large)",
        r"http/(U?INT\d+|FP32|FP64|BYTES)/bools",
        r"http/BOOL/(integers|negative|2\^40|as-UINT8)",
        r"http/UINT\d+/negative", r"http/UINT64/as-INT8", r"http/BF16/as-BYTES",
        r"http/BYTES/(null|objects|integers|negative|2\^40|as-BOOL)",
        r"http/binary/(header-(float|short)|size-(negative|text|float|bool|null))",
        r"http/binary/output-(text|number|one-text)", r"http/compression/sent-corrupt",
        r"http/body/(truncated|array|null|number|object|two|noise|bad-utf-8|comment|deep|very-deep)",
        r"http/body/(nan|infinity|1e999|inputs-null|inputs-object|id-number|id-null)",
        r"http/body/(parameters-list|parameters-null|outputs-null|outputs-of-text|outputs-object)",
        r"http/body/(outputs-no-name|input-name-number|input-name-null|input-datatype-number)",
        r"http/body/input-shape-(text|floats|bools|null|negative)",
        r"http/body/input-data-(text|number|object|null|ragged)",
        r"http/body/input-no-(name|datatype|shape)",
        r"http/parameter/(priority|timeout|sequence_id)/(bool|negative|2\^64|float|null|list|object)",
        r"http/parameter/(priority|timeout)/text",
        r"http/parameter/sequence_start/(?!bool).*",
        r"http/classes/(bool|negative|2\^64|float|text|null|list|object)",
        r"http/memory/system/register-(no-body|size-text)", r"http/log/wrong-kind",
        r"http/index/(noise|ready-text)", r"http/load/(noise|parameters-list|parameters-null)",
    ),
    *_of(
        STRICT, _INVALID, "OK",
        r"grpc/\w+/huge", r"grpc/narrow/.*", r"grpc/names/(raw-more|raw-more-empty|output-twice)",
        r"grpc/pair/zero", r"grpc/flex/1x0x3", r"grpc/parameter/priority/uint64-max",
        r"grpc/parameter/timeout/negative", r"grpc/parameter/sequence_id/negative",
        r"grpc/parameter/binary_data_output/(int64|int64-0|negative|max|double|text|empty-text)",
        r"grpc/parameter-of-(in|out)put/anything/none",
        r"grpc/classes/(2147483648|4611686018427387904)/.*",
    ),
    *_of(
        STRICT, "400", "200",
        r"http/(U?INT(8|16|32))/2\^40", r"http/binary/header-plus",
        r"http/body/(duplicate-key|mark|outputs-twice|input-parameters-list)",
        r"http/parameter/(priority|timeout)/2\^63", r"http/classes/(0|2\^62|2\^63)",
        r"http/(log|trace|index|load)/array",
    ),
    *_of(STRICT, "OK", "OK", r"grpc/id/zero"),  # Triton's ends at its NUL
    *_of(
        NAMES, _INVALID, "OK",
        r"grpc/version/(0|plus|blank-before|blank-after|decimal|hex|text-after|nul)/ModelReady",
        r"grpc/version/(plus|blank-before|blank-after|decimal|text-after|nul)/Model(?!Ready).*",
        r"grpc/name/(empty|blank|nul|control)/ModelReady", r"grpc/name/nul/Model(?!Ready).*",
        r"grpc/name/(empty|parents|absolute|blank|nul|right-to-left|control|long)/Unload",
        r"grpc/name/nul/Load",
    ),
    *_of(
        NAMES, _INVALID, "NOT_FOUND",
        r"grpc/version/(0|hex)/Model(Metadata|Config|Infer)",
        r"grpc/name/(empty|blank|control)/Model(Metadata|Config|Infer)",
        r"grpc/message/(empty|unknown-field)",  # they name no model
    ),
    *_of(
        NAMES, _INVALID, "INTERNAL",
        r"grpc/name/(empty|parents|absolute|blank|right-to-left|control|long)/Load",
    ),
    *_of(
        NAMES, "400", "404",
        r"http/name/(%20|spare%00evil|simple%0d%0a)/(infer|config)", r"http/version/0/infer",
    ),
    *_of(NAMES, "400", "200", r"http/unload/(dots|nul)"),
    *_of(NAMES, "400", "500", r"http/load/(nul|blank)"),
    *_of(NAMES, "404", "400", r"http/name/\.\.%2fsimple/(ready|stats)"),
    *_of(
        MORE, "OK", _INVALID,
        r"grpc/parameter/(sequence_id|headers|anything|no-name)/uint64(-max)?",
        r"grpc/classes/uint64/.*", r"grpc/classes/of-(BOOL|FP16|BF16)",
    ),
    *_of(
        MORE, "200", "400",
        r"http/(FP16|BF16)/(flat-.|nested-.|floats|whole-floats|integers|negative|binary/good)",
        r"http/BF16/(too-large|2\^40)",
    ),
    *_of(MORE, "200", "404", r"http/path/(v1|root|metrics)"),
    *_of(
        BODIES, "200", "200",
        r"http/model/(?!broken|unknown)\w+/ready", r"http/version/(1|3|01)/ready",
        r"http/path/(live|query)",
    ),
    *_of(BROKEN, "UNAVAILABLE", "NOT_FOUND", r"grpc/model/broken/Model(Metadata|Config)"),
    *_of(BROKEN, "503", "404", r"http/model/broken/(metadata|config)"),
    *_of(
        BROKEN,
        f"OK OK UNAVAILABLE UNAVAILABLE UNAVAILABLE INVALID_ARGUMENT {_AGAIN}",
        f"OK OK NOT_FOUND NOT_FOUND NOT_FOUND INVALID_ARGUMENT {_AGAIN}",
        r"grpc/load/cycle",
    ),
    *_of(TIMEOUT, "DEADLINE_EXCEEDED", "OK", r"grpc/parameter/timeout/int64"),
    *_of(TIMEOUT, "DEADLINE_EXCEEDED", _INVALID, r"grpc/parameter/timeout/uint64"),
    *_of(TIMEOUT, "504", "200", r"http/parameter/timeout/1"),
    *_of(DECOUPLED, "400", "501", r"http/repeat-wrong"),
    *_of(READY, "OK", "OK", r"grpc/server/ready", r"grpc/health/(server|own)"),
    *_of(READY, "200", "400", r"http/path/ready"),
    *_of(LOAD, "NOT_FOUND", "INTERNAL", r"grpc/name/(unknown|case)/Load"),
    *_of(LOAD, "404", "500", r"http/load/unknown"),
    *_of(LOAD, "INTERNAL", _INVALID, r"grpc/load/broken"),
    *_of(LOAD, "500", "400", r"http/load/broken"),
    *_of(FILES, _INVALID, "INTERNAL", r"grpc/load/file-(alone|outside)"),
    *_of(FILES, "400", "500", r"http/load/file"),
    *_of(CONFIG, _INVALID, "INTERNAL", r"grpc/load/config-(no-json|list|unknown-field|empty)"),
    *_of(CONFIG, "400", "500", r"http/load/config-(no-json|number|unknown-field)"),
    *_of(CONFIG, "400", "500", r"http/load/parameter-unknown"),
    *_of(
        OVERRIDE,
        "OK OK INVALID_ARGUMENT OK OK OK OK OK",
        "OK OK INVALID_ARGUMENT OK OK OK INVALID_ARGUMENT OK",
        r"grpc/load/override",
    ),
    *_of(SETTINGS, _INVALID, "OK", r"grpc/log/unknown", r"grpc/trace/(level-unknown|unknown)"),
    *_of(SETTINGS, "400", "200", r"http/(log|trace)/unknown"),
    *_of(SETTINGS, "PERMISSION_DENIED", "UNIMPLEMENTED", r"grpc/(log|trace)/file"),
    *_of(SETTINGS, "403", "501", r"http/(log|trace)/file"),
    *_of(SETTINGS, "UNIMPLEMENTED", "OK", r"grpc/log/format"),
    *_of(SETTINGS, "NOT_FOUND", _INVALID, r"grpc/trace/unknown-model"),
    *_of(SETTINGS, "404", "400", r"http/trace/read-unknown"),
    *_of(MEMORY, _INVALID, "INTERNAL", r"grpc/memory/system/register-.*"),
    *_of(MEMORY, "400", "500", r"http/memory/system/register"),
    *_of(MEMORY, "NOT_FOUND", _INVALID, r"grpc/parameter-of-input/shared_memory_region"),
    *_of(MEMORY, _REGION_OURS, _REGION_THEIRS, r"grpc/memory/region"),
    *_of(CUDA, "UNIMPLEMENTED", _INVALID, r"grpc/memory/cuda/register-.*"),
    *_of(CUDA, "501", "500", r"http/memory/cuda/register-.*"),
    *_of(CUDA, "501", "400", r"http/memory/cuda/register"),
    *_of(BINARY, "200", "200", r"http/binary/output-all-(named|but-one)"),
    *_of(CODING, "415", "501", r"http/compression/sent-(br|unknown|twice)"),
    *_of(COMPRESSED, "200", "200", r"http/compression/asked-\*"),
    *_of(HEALTH, "NOT_FOUND", "OK", r"grpc/health/unknown"),
    *_of(GARBAGE, _INVALID, "INTERNAL", r"grpc/message/(noise|cut|bad-utf-8)"),
    *_of(COUNTED, "OK", "OK", r"grpc/statistics/a-refused-request"),
    *_of(GENERATE, "501", "500", r"http/path/generate(-stream)?"),
    *_of(REPOSITORY, "501", "200", r"http/path/index-of-one"),
    *_of(TEXT_ID, _INVALID, "OK", r"grpc/sequence/text-id"),
    *_of(TEXT_ID, "error end", "OK end", r"stream/sequence/text-id"),
    *_of(
        TEXT_ID, "200 200 200 400 400 400", "200 200 200 400 400 200", r"http/sequence"
    ),
)  # fmt: skip
