"""Looks through a ``.pt2`` archive before PyTorch opens it.

``torch.export.load`` unpickles what an archive marks as pickled, falls back to unpickling anything
from its sample inputs, evaluates the expressions of its shapes as Python, and calls whatever
operators it names. So: no pickles but what PyTorch's safe unpickler takes, only expressions of
symbols and numbers, only operators of tensors. An archive that passes is still a program.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from crossfade.runtimes.core.errors import LoadFailed, escape
from crossfade.runtimes.exported_program.expressions import is_harmless
from crossfade.runtimes.reason import one_line

_HOW: Final = "save it with torch.export.save(torch.export.export(model.eval(), inputs), file)"
_ENTRIES: Final = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|extra/[\w./-]*|models/model\.json"
    r"|data/sample_inputs/model\.pt|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_SYMBOLIC: Final = r"torch\.(sym_\w+|_sym_sqrt)|math\.\w+"
_OPERATOR: Final = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision)\.(?!from_file)\w+\.\w+"
    r"|torch\.ops\.higher_order\.(cond|map_impl|scan|while_loop|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast)"
    rf"|{_SYMBOLIC}"
    r"|_operator\.(abs|add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|pow|sub"
    r"|truediv|xor)"
)
_NAME: Final = re.compile(r"[\w.]{0,1024}")
_TREES: Final = frozenset(
    {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
)
_NAMEDTUPLES: Final = "treespec_namedtuple_fields"
_MAX_JSON_BYTES: Final = 256 * 1024 * 1024
_MAX_SAMPLE_BYTES: Final = 1024 * 1024 * 1024


def check(file: BinaryIO, path: Path, torch: Any) -> None:
    """Reads what PyTorch would act upon.

    Args:
        file: the archive.
        path: its name, for messages.
        torch: the library, whose safe unpickler tries the sample inputs.

    Raises:
        LoadFailed: it is no such archive, or holds more than a program needs.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check(archive, path, torch)
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, NotImplementedError) as error:
        raise LoadFailed(f"{path.name} is no archive of a PyTorch program; {_HOW}") from error
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise LoadFailed(f"{path.name} does not hold what torch.export.save writes") from error


def _check(archive: zipfile.ZipFile, path: Path, torch: Any) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any(name.endswith(("/data.pkl", "/constants.pkl")) or "/code/" in name for name in names):
        raise LoadFailed(
            f"{path.name} is TorchScript or a pickled model, which can run any code: {_HOW}"
        )
    if "serialized_exported_program.json" in names:
        raise LoadFailed(f"{path.name} has the form that PyTorch wrote before 2.8: {_HOW}")
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or len(set(names)) != len(names):
        raise LoadFailed(f"{path.name} does not hold what torch.export.save writes")
    root = roots.pop()
    for entry in entries:
        inner = entry.filename.removeprefix(f"{root}/")
        if not _ENTRIES.fullmatch(inner):
            raise LoadFailed(
                f"{path.name} holds '{escape(inner)}', which is compiled code, a pickled object or"
                f" another model: {_HOW}"
            )
        if entry.compress_type != zipfile.ZIP_STORED:
            raise LoadFailed(f"{path.name} is compressed, which torch.export.save does not do")
    for kind in ("weights", "constants"):
        listed = _json(archive, f"{root}/data/{kind}/model_{kind}_config.json")["config"]
        for tensor in listed.values():
            if tensor["use_pickle"] or not _NAME.fullmatch(tensor["path_name"]):
                raise LoadFailed(f"{path.name} holds a pickled tensor or object, which is refused")
    _check_sample(archive, f"{root}/data/sample_inputs/model.pt", path, torch)
    for where, text in _texts(_json(archive, f"{root}/models/model.json")):
        if not _is_fine(where, text):
            shown = one_line(escape(text))
            raise LoadFailed(f"{path.name} has '{shown}' as {where}, which no tensor program needs")


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _MAX_JSON_BYTES:
        raise LoadFailed(f"the program's graph has more than {_MAX_JSON_BYTES} bytes")
    return json.loads(archive.read(name))


def _check_sample(archive: zipfile.ZipFile, name: str, path: Path, torch: Any) -> None:
    if archive.getinfo(name).file_size > _MAX_SAMPLE_BYTES:
        raise LoadFailed(f"{path.name}: its sample inputs are too large")
    data = archive.read(name)
    try:
        if data:
            torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        raise LoadFailed(f"{path.name}: its sample inputs are not plain tensors") from error


def _texts(document: Any) -> Iterator[tuple[str, str]]:
    """Every text that PyTorch acts upon, and what it is."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if key == "metadata":  # of the exporter's source code
                    continue
                if isinstance(inner, str):
                    yield key, inner
                elif inner and ("custom_obj" in key or key == _NAMEDTUPLES):
                    yield key, str(inner)
                else:
                    pending.append(inner)


def _is_fine(where: str, text: str) -> bool:
    if where == "expr_str":
        return is_harmless(text)
    if where in ("target", "as_operator"):
        return _OPERATOR.fullmatch(text) is not None
    if where in ("in_spec", "out_spec"):
        return not text or _is_plain_tree(json.loads(text))
    if "custom_obj" in where or where == _NAMEDTUPLES:
        return False
    return not where.endswith("name") or _NAME.fullmatch(text) is not None


def _is_plain_tree(document: Any) -> bool:
    pending = [document[1]]
    while pending:
        tree = pending.pop()
        if tree["type"] not in _TREES:
            return False
        pending.extend(tree["children_spec"])
    return True
