"""Operations that are recorded once and replayed in one call, without Python between them.

Calling an operation of PyTorch from Python takes one or two microseconds, which is half the time of a small network's
step. Each operation also releases Python's interpreter lock and acquires it again, so that threads that train in
parallel wait for each other at every operation. A recording is a list of the operations and their tensors. PyTorch's
own interpreter of such lists, which does not need Python, carries them out. The operations are the same, so the
results are equal to the bit.

All public functions for this interpreter are deprecated. If the private one is missing, or if something cannot be
recorded, `record` returns None, and the operations are called from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor

from .forks import ProcessLock
from .torch_private import TorchDispatchMode, call_graph, function_of_graph, has_graphs


class _Unrecordable(Exception):
    """Raised for an operation that a recording cannot hold."""


def record(function: Callable[[], object], operands: Sequence[Tensor]) -> Replay | None:
    """Call a function once, and return a recording of it that can be replayed for other operands; None if impossible.

    The function must consist of operations on tensors that are the same in each call: on `operands`, and on tensors
    that keep their memory. Values must not go through NumPy, and the function must not draw random numbers.
    """
    if not has_graphs():
        function()
        return None
    with _process.lock, _Recorder() as recorder:
        function()
    try:
        graph = _Writer(operands).write(recorder.calls)
        return Replay(_compiled(graph.text), graph)
    except (_Unrecordable, RuntimeError):  # RuntimeError if a version of PyTorch reads graphs in another way
        return None


# Its lock is held by the thread that records: modes of PyTorch share settings of the whole process.
_process = ProcessLock()


class _Graph(NamedTuple):
    """Operations as text, with the tensors and numbers that are neither operands nor results.

    Floats are not written in the text, because PyTorch would read them with the decimal point of the process's locale.
    """

    text: str
    constants: list[Tensor]
    numbers: list[float]


class Replay:
    """A recording that can be carried out for operands like the recorded ones."""

    def __init__(self, function: Callable[..., None], graph: _Graph) -> None:
        self._function, self._constants, self._numbers = function, graph.constants, graph.numbers

    def __call__(self, operands: Iterable[Tensor]) -> None:
        """Carry out the recorded operations."""
        call_graph(self._function, self._constants, self._numbers, *operands)


@lru_cache(maxsize=128)  # networks that differ only in sizes and hyper-parameters share a function
def _compiled(text: str) -> Callable[..., None]:
    """Return the function that a graph's text describes."""
    function = function_of_graph(text)
    if function is None:
        raise _Unrecordable
    return function


class _Recorder(TorchDispatchMode):
    """Records the operations that are called within it, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether the mode disables PyTorch's compiler: False, since it is not used, and importing it takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class _Writer:
    """Writes recorded operations as a graph in PyTorch's text form, with one operation in each line.

    The arguments of the graph are the list of constants (tensors that are neither operands nor results), the list of
    numbers, and the operands.
    """

    def __init__(self, operands: Sequence[Tensor]) -> None:
        self._operands = [f"%operand{i}" for i in range(len(operands))]
        self._names = {id(tensor): name for name, tensor in zip(self._operands, operands, strict=True)}
        self._constants: list[Tensor] = []
        self._numbers: list[float] = []
        self._lines: list[str] = []

    def write(self, calls: Iterable[tuple[Any, Sequence[Any], Mapping[str, Any], Any]]) -> _Graph:
        """Return the graph of the operations."""
        for call in calls:
            self._write_call(*call)
        inputs = ["%constants : Tensor[]", "%numbers : float[]", *(f"{name} : Tensor" for name in self._operands)]
        constants = [f"%constant{i} : Tensor" for i in range(len(self._constants))]
        numbers = [f"%number{i} : float" for i in range(len(self._numbers))]
        lines = [
            f"graph({', '.join(inputs)}):",
            f"  {', '.join(constants)} = prim::ListUnpack(%constants)" if constants else "",
            f"  {', '.join(numbers)} = prim::ListUnpack(%numbers)" if numbers else "",
            *self._lines,
            "  %end : NoneType = prim::Constant()",
            "  return (%end)",
        ]
        return _Graph("\n".join(filter(None, lines)), self._constants, self._numbers)

    def _write_call(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Write an operation with all its arguments, including those with default values."""
        schema = function._schema
        if schema.name == "aten::lift_fresh":
            raise _Unrecordable  # a tensor made of Python's values, which may differ in the next call
        values = []
        for i, argument in enumerate(schema.arguments):
            given = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
            values.append(self._value(given, str(argument.type)))
        call = f"{schema.name}({', '.join(values)})"
        if result is None:
            self._lines.append(f"  {call}")
        elif isinstance(result, Tensor):
            self._lines.append(f"  {self._result(result)} = {call}")
        elif isinstance(result, list | tuple) and all(isinstance(part, Tensor) for part in result):
            if [str(returned.type) for returned in schema.returns] == ["List[Tensor]"]:
                call = f"prim::ListUnpack({self._define('Tensor[]', call)})"
            self._lines.append(f"  {', '.join(map(self._result, result))} = {call}")
        else:
            raise _Unrecordable  # a number, on which Python code may depend

    def _result(self, tensor: Tensor) -> str:
        """Return the declaration of a result; a result that is a known tensor keeps its name."""
        name = f"%result{len(self._lines)}_{len(self._names)}"
        self._names.setdefault(id(tensor), name)
        return f"{name} : Tensor"

    def _value(self, value: Any, kind: str) -> str:
        """Return the name of an argument."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, list | tuple):
            if kind not in _LISTS:
                raise _Unrecordable
            element = kind.removeprefix("List[").removesuffix("]")
            parts = [self._value(part, element) for part in value]
            return self._define(_LISTS[kind], f"prim::ListConstruct({', '.join(parts)})")
        if isinstance(value, float) or (kind == "float" and isinstance(value, int)):
            self._numbers.append(float(value))
            return f"%number{len(self._numbers) - 1}"
        return self._define(*_literal(value))

    def _tensor(self, tensor: Tensor) -> str:
        """Return the name of a tensor."""
        if id(tensor) not in self._names:
            self._names[id(tensor)] = f"%constant{len(self._constants)}"
            self._constants.append(tensor)
        return self._names[id(tensor)]

    def _define(self, kind: str, expression: str) -> str:
        """Write the definition of a value, and return its name."""
        name = f"%value{len(self._lines)}"
        self._lines.append(f"  {name} : {kind} = {expression}")
        return name


# Types of lists: their names in schemas and in graphs.
_LISTS = {"List[Tensor]": "Tensor[]", "List[int]": "int[]", "Optional[List[int]]": "int[]"}


def _literal(value: Any) -> tuple[str, str]:
    """Return the type of a plain value that is no float, and the expression for it."""
    if value is None:
        return "NoneType", "prim::Constant()"
    if isinstance(value, bool):
        return "bool", f"prim::Constant[value={int(value)}]()"
    if isinstance(value, int):
        return "int", f"prim::Constant[value={value}]()"
    if isinstance(value, str) and value.isidentifier():
        return "str", f'prim::Constant[value="{value}"]()'
    raise _Unrecordable
