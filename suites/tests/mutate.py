"""Makes a program wrong: the first change of one place that changes what it returns.

A line of HumanEval+ on stdin; on stdout a line of JSON with the wrong program, the set of tests in
which it shows and the test's position. What it returns is compared here and by nothing else.
"""

import ast
import copy
import json
import math
import signal
import sys

SWAPPED = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}


def changes(node):
    """Yields functions that change a node in place."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield lambda n: n.ops.__setitem__(0, SWAPPED[type(n.ops[0])]())
    elif isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPPED:
        yield lambda n: setattr(n, "op", SWAPPED[type(n.op)]())
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield lambda n: setattr(n, "value", n.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield lambda n: setattr(n, "value", n.value + "x")
    elif isinstance(node, ast.Return) and node.value is not None:
        yield lambda n: setattr(n, "value", ast.UnaryOp(ast.Not(), n.value))


def mutants(code, entry_point):
    tree = ast.parse(code)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    docs = {
        id(function.body[0].value)
        for function in functions
        if isinstance(function.body[0], ast.Expr)
    }
    # The function itself before its helpers.
    functions.sort(key=lambda function: function.name != entry_point)
    places = [
        (tree.body.index(function), at)
        for function in functions
        for at, node in enumerate(ast.walk(function))
        if id(node) not in docs
    ]
    for function, at in places:
        for n in range(len(list(changes(list(ast.walk(tree.body[function]))[at])))):
            changed = copy.deepcopy(tree)
            node = list(ast.walk(changed.body[function]))[at]
            list(changes(node))[n](node)
            yield ast.unparse(ast.fix_missing_locations(changed))


class Slow(Exception):
    pass


def stop(number, frame):
    raise Slow


def outputs(code, entry_point, inputs):
    scope = {}
    exec(code, scope)
    for arguments in inputs:
        signal.setitimer(signal.ITIMER_PROF, 0.5)
        try:
            output = scope[entry_point](*copy.deepcopy(arguments))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if entry_point == "find_zero":
            # Every zero is right.
            output = abs(scope["poly"](arguments[0], output)) < 0.01
        yield output


def differ(one, other):
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return not math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
    return one != other


def first_difference(code, entry_point, inputs, expected):
    for at, output in enumerate(outputs(code, entry_point, inputs)):
        if differ(output, expected[at]):
            return at
    return None


def main():
    signal.signal(signal.SIGPROF, stop)
    problem = json.loads(sys.stdin.readline())
    code = problem["prompt"] + problem["canonical_solution"]
    entry_point = problem["entry_point"]
    for which in ("base", "plus"):
        # The first hundred that are short: all tests of some problems would take too long.
        inputs = [i for i in problem[which + "_input"][:100] if len(repr(i)) < 1000]
        expected = list(outputs(code, entry_point, inputs))
        for mutant in mutants(code, entry_point):
            try:
                at = first_difference(mutant, entry_point, inputs, expected)
            except Exception:
                # One that raises is wrong without a doubt, and too easy to find.
                continue
            if at is not None:
                print(json.dumps({"solution": mutant, "which": which, "at": at}))
                return


main()
