"""Runs one solution against one set of tests, inside the sandbox.

One request on stdin, one or two lines of JSON on stdout. The request is a line of JSON. For the mode
`truth` a line with the basic inputs follows and one with the further inputs, for the mode `score` a
line with inputs and one with the outputs to expect. The rules are those of EvalPlus 0.3.1; where this file departs from
them it says so. Standard library alone, Python 3.8 or newer.

The solution runs in this very process, as comparing needs its objects: it could forge its verdict if
it meant to, but do no harm.
"""

import binascii
import builtins
import contextlib
import io
import itertools
import json
import math
import os
import pickle
import signal
import sys
import time
import zlib
from copy import deepcopy


def main():
    request = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    nonce = request.pop("nonce")

    def answer(**fields):
        answers.write(json.dumps(dict(fields, nonce=nonce)) + "\n")
        answers.flush()

    mode = request.pop("mode")
    {"truth": truth, "score": score, "check": check, "sanitize": sanitized}[mode](answer, **request)
    # Whatever the solution left behind, threads too, is not waited for.
    os._exit(0)


# Ground truth


def truth(answer, task, entry_point, code):
    answer(**{which: true_outputs(task, entry_point, code) for which in ("base", "plus")})


def true_outputs(task, entry_point, code):
    outputs, times = [], []
    inputs = read_inputs(task)
    with swallowed_io():
        scope = {}
        exec(code, scope)
        function = scope[entry_point]
        for arguments in inputs:
            arguments = deepcopy(arguments)
            # CPU time, so that load on the machine makes no limit longer or shorter.
            start = time.process_time()
            output = function(*arguments)
            times.append(time.process_time() - start)
            outputs.append(output)
    if task.startswith("Mbpp/") and entry_point in NOT_NONE:
        outputs = [output is not None for output in outputs]
    # Some return megabytes of text.
    packed = zlib.compress(pickle.dumps(outputs, protocol=4), 1)
    return {"outputs": binascii.b2a_base64(packed, newline=False).decode("ascii"), "times": times}


# Scoring


class TimeoutException(Exception):
    """What a solution gets where it takes too long."""


def score(answer, task, entry_point, code, atol, details, compat, sanitize, scale):
    inputs = read_inputs(task)
    expected = json.loads(sys.stdin.readline())
    outputs = pickle.loads(zlib.decompress(binascii.a2b_base64(expected["outputs"])))
    limits = [max(scale, 4.0 * seconds) for seconds in expected["times"]]
    task_limit = min(60.0 * scale, sum(limits)) + (2.0 if details else 1.0) * scale
    if sanitize:
        code = sanitize_code(code, entry_point)
    answer(code=code)
    answer(**run_tests(task, entry_point, code, inputs, outputs, limits, task_limit, atol, details, compat))


def run_tests(task, entry_point, code, inputs, outputs, limits, task_limit, atol, details, compat):
    passed = []
    is_mbpp = task.startswith("Mbpp/")
    guard()
    start = time.process_time()
    completed = True
    try:
        with swallowed_io():
            scope = {}
            exec(code, scope)
            function = scope[entry_point]
        for arguments, expected, limit in zip(inputs, outputs, limits):
            if time.process_time() - start > task_limit:
                return {"status": "timeout", "passed": passed}
            try:
                with time_limit(limit):
                    with swallowed_io():
                        output = function(*arguments)
                if entry_point == "find_zero" and not is_mbpp:
                    assert abs(polynomial(*arguments, output)) <= atol
                    # 0.3.1 forgets to count the test, and so fails every solution in the end.
                    if not compat:
                        passed.append(True)
                    continue
                match = output == expected
                if is_mbpp:
                    match = special(entry_point, arguments, output, expected, match, atol)
                if atol == 0 and is_floats(expected):
                    # Stays for the inputs that follow.
                    atol = 1e-6
                if not match and atol != 0:
                    assert type(output) == type(expected)
                    if isinstance(expected, (list, tuple)):
                        assert len(output) == len(expected)
                    assert all_close(output, expected, atol)
                else:
                    assert match
            except BaseException:
                passed.append(False)
                if not details:
                    raise
                continue
            passed.append(True)
    except BaseException:
        completed = False
    if completed and len(passed) == len(inputs) and all(passed):
        return {"status": "pass", "passed": passed}
    return {"status": "fail", "passed": passed}


def check(answer, code, limit):
    """The original tests of HumanEval: they are part of the code."""
    guard()
    try:
        with swallowed_io():
            with time_limit(limit):
                exec(code, {})
    except TimeoutException:
        answer(status="timeout", passed=[])
    except BaseException as error:
        answer(status="fail", passed=[], error=repr(error)[:500])
    else:
        answer(status="pass", passed=[])


@contextlib.contextmanager
def time_limit(seconds):
    """Raises in the code within after so much CPU time, or ten times as much of any time."""

    def stop(number, frame):
        raise TimeoutException("Timed out!")

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, 1), (signal.ITIMER_REAL, signal.SIGALRM, 10))
    for timer, number, times in timers:
        signal.signal(number, stop)
        signal.setitimer(timer, times * seconds)
    try:
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)


class Swallow(io.StringIO):
    """Takes text and keeps none; gives none."""

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("string argument expected, got %r" % type(text).__name__)
        return len(text)

    def refuse(self, *args, **kwargs):
        raise OSError

    read = readline = readlines = refuse

    def readable(self, *args, **kwargs):
        return False


@contextlib.contextmanager
def swallowed_io():
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdout = sys.stderr = Swallow()
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


GONE = (
    (builtins, "exit quit open help"),
    (
        os,
        "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames"
        " truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd"
        " chdir",
    ),
)


def guard():
    """Takes away what 0.3.1 takes away, as some solutions fail without it. No matter of safety.

    What it takes away of `subprocess` and `shutil` fails in the sandbox by itself.
    """
    for module, names in GONE:
        for name in names.split():
            setattr(module, name, None)
    for name in ("ipdb", "joblib", "resource", "psutil", "tkinter"):
        sys.modules[name] = None


# Comparison


NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
SETS = {
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
}


def special(entry_point, arguments, output, expected, match, atol):
    """Tasks of MBPP with several right answers."""
    if entry_point == "are_equivalent":
        return True
    if entry_point == "sum_div":
        return match or output == 0
    if entry_point == "surface_Area":
        return match or abs(output - pyramid_area(*arguments)) <= atol
    if entry_point == "digit_distance_nums":
        return match or output == digit_distance(*arguments)
    if entry_point in SETS:
        return set(output) == set(expected)
    if entry_point in NOT_NONE:
        if isinstance(output, bool):
            return output == expected
        return expected == (output is not None)
    return match


def pyramid_area(base, height):
    """Of a square pyramid whose height is the distance of its apex from the base."""
    slant = math.sqrt((base / 2) ** 2 + height**2)
    return round(base**2 + 4 * (base * slant) / 2)


def digit_distance(one, other):
    one, other = str(one), str(other)
    width = max(len(one), len(other))
    return sum(abs(int(a) - int(b)) for a, b in zip(one.zfill(width), other.zfill(width)))


def polynomial(coefficients, x):
    return sum([c * math.pow(x, power) for power, c in enumerate(coefficients)])


def is_floats(value):
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def all_close(output, expected, atol, rtol=1e-7):
    """numpy.allclose without numpy: |a - b| <= atol + rtol |b|, shapes broadcast, numbers alone."""
    a, b = array(output), array(expected)
    if None in b[1]:
        raise TypeError("no numbers are expected")
    n_dims = max(len(a[0]), len(b[0]))
    shapes = [(1,) * (n_dims - len(shape)) + shape for shape, _ in (a, b)]
    shape = []
    for one, other in zip(*shapes):
        if one != other and 1 not in (one, other):
            raise ValueError("shapes do not broadcast")
        shape.append(other if one == 1 else one)
    strides = []
    for own in shapes:
        step, steps = 1, []
        for length in reversed(own):
            steps.append(0 if length == 1 else step)
            step *= length
        strides.append(tuple(reversed(steps)))
    for index in itertools.product(*map(range, shape)):
        x, y = (
            values[sum(i * step for i, step in zip(index, steps))]
            for (_, values), steps in zip((a, b), strides)
        )
        # Where the output has what is no number, this raises.
        if not is_close(x, y, rtol, atol):
            return False
    return True


def is_close(x, y, rtol, atol):
    if math.isfinite(abs(y)):
        return abs(x - y) <= atol + rtol * abs(y)
    return x == y


def array(value):
    """Returns the shape and the flat values of nested sequences, None for what is no number."""
    if isinstance(value, (bool, float, complex)):
        return (), [value * 1.0]
    if isinstance(value, int):
        # Larger ones are objects to numpy, and it compares no objects.
        return (), [float(value) if -(2**63) <= value < 2**64 else None]
    if not isinstance(value, (list, tuple)):
        return (), [None]
    parts = [array(item) for item in value]
    shapes = {shape for shape, _ in parts}
    if len(shapes) > 1:
        raise ValueError("ragged")
    inner = shapes.pop() if shapes else ()
    return (len(parts),) + inner, [number for _, numbers in parts for number in numbers]


# Inputs


def read_inputs(task):
    inputs = json.loads(sys.stdin.readline())
    if task.startswith("Mbpp/"):
        number = int(task.split("/")[1])
        for numbers, convert in CONVERSIONS:
            if number in numbers:
                return [convert(arguments) for arguments in inputs]
    return inputs


def tuples(items):
    return [tuple(item) for item in items]


def all_tuples(value):
    return tuple(map(all_tuples, value)) if isinstance(value, list) else value


# JSON has lists alone; what the tasks of MBPP are called with, by their numbers.
CONVERSIONS = (
    # Every argument is a tuple.
    (
        {2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424}
        | {429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809},
        tuples,
    ),
    # Every argument is a list of tuples.
    (
        {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780},
        lambda args: [tuples(arg) for arg in args],
    ),
    # The first is a list of tuples, or a tuple; the second is.
    ({75, 413, 444, 753}, lambda args: [tuples(args[0]), args[1]]),
    ({250, 405, 446, 617, 720, 763, 808}, lambda args: [tuple(args[0]), args[1]]),
    ({106, 750}, lambda args: [args[0], tuple(args[1])]),
    ({307}, lambda args: [tuple(args[0]), args[1], args[2]]),
    # Every argument is a tuple of tuples.
    ({259, 401, 445}, lambda args: [tuple(tuples(arg)) for arg in args]),
    ({580, 615, 791}, all_tuples),
    (
        {278},
        lambda args: [tuple(tuple(i) if isinstance(i, list) else i for i in args[0])],
    ),
    # A list of sets; what is empty is a dictionary.
    (
        {115},
        lambda args: [[set(i) if isinstance(i, list) and len(i) else {} for i in args[0]]],
    ),
    ({124}, lambda args: (float(args[0]), complex(args[1]))),
    ({252}, lambda args: [complex(args[0])]),
    (
        {722},
        lambda args: [{key: tuple(value) for key, value in args[0].items()}] + args[1:],
    ),
)


# Sanitizing


def sanitized(answer, code, entry_point):
    answer(code=sanitize_code(code, entry_point))


def sanitize_code(text, entry_point):
    """Keeps of a text what is Python, and of that what the entry point needs.

    By the rules of 0.3.1 a function without `return` is not needed, be it a generator: with
    `Mbpp/630` that is the canonical solution's own.
    """
    code = longest_run(text)
    return needed(code, entry_point).strip() or code


def parses(code):
    import ast  # takes as long as all other modules together, and often is not needed

    try:
        ast.parse(code)
        return True
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def longest_run(text):
    """Returns the first run of two or more lines that parses and has the most that are not blank.

    Runs that cannot be the longest are not tried, which changes no answer.
    """
    lines = text.split("\n")
    filled = list(itertools.accumulate((1 if line.strip() else 0 for line in lines), initial=0))
    best, best_count = (0, 0), 0
    for first in range(len(lines)):
        if filled[-1] - filled[first] <= best_count:
            break
        last = len(lines) - 1
        while last > first and filled[last + 1] - filled[first] > best_count:
            if parses("\n".join(lines[first : last + 1])):
                best_count = filled[last + 1] - filled[first]
                # Of runs that differ in blank lines alone the shortest that parses.
                while last - 1 > first and not lines[last].strip():
                    if not parses("\n".join(lines[first:last])):
                        break
                    last -= 1
                best = first, last
                break
            last -= 1
    return "\n".join(lines[best[0] : best[1] + 1])


def needed(code, entry_point):
    """Returns the imports of a module and those of its definitions that the entry point reaches.

    Definitions are classes and functions without decorators, functions only if they return
    something, and assignments; of several with one name the first.
    """
    import ast

    if not parses(code):
        return ""
    source = code.encode("utf-8", "surrogatepass").split(b"\n")
    imports, definitions = [], {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Import) or (
            isinstance(node, ast.ImportFrom) and node.module != "__future__"
        ):
            imports.append(node)
            continue
        name = defined_name(node)
        if name is not None and name not in definitions:
            definitions[name] = node
    uses = {name: identifiers(node) for name, node in definitions.items()}
    reached, queue = {entry_point}, [entry_point]
    while queue:
        new = uses.get(queue.pop(), set()) - reached
        reached |= new
        queue.extend(new)
    kept = imports + [node for name, node in definitions.items() if name in reached]
    return "\n".join(source_of(node, source) for node in kept)


def defined_name(node):
    import ast

    if isinstance(node, ast.ClassDef):
        return None if node.decorator_list else node.name
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        returns = any(isinstance(inner, ast.Return) for inner in ast.walk(node))
        return node.name if returns and not node.decorator_list else None
    if isinstance(node, ast.Assign):
        # The first plain name on either side of the first equals sign.
        sides = node.targets[:1] + (node.targets[1:2] or [node.value])
    elif isinstance(node, ast.AnnAssign):
        sides = [node.target] + ([node.value] if node.value else [])
    else:
        return None
    return next((side.id for side in sides if isinstance(side, ast.Name)), None)


def identifiers(node):
    """Returns every name in the text of a node, whatever it stands for."""
    import ast

    names = set()
    for inner in ast.walk(node):
        for field in ("id", "arg", "attr", "name", "asname", "module", "rest"):
            value = getattr(inner, field, None)
            if isinstance(value, str):
                names.update(value.split("."))
        if isinstance(inner, (ast.Global, ast.Nonlocal)):
            names.update(inner.names)
        names.update(getattr(inner, "kwd_attrs", ()))
    return names


def source_of(node, source):
    lines = source[node.lineno - 1 : node.end_lineno]
    lines[-1] = lines[-1][: node.end_col_offset]
    lines[0] = lines[0][node.col_offset :]
    return b"\n".join(lines).decode("utf-8", "surrogatepass")


if __name__ == "__main__":
    main()
