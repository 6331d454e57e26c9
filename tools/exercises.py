"""What the exercises of a chapter are made of: prompts, solutions, answers with a name, and tests.

An exercise is a Markdown cell with ``### Exercise N``, then its solution: cells with the tag ``hide-cell``. A graded
exercise asks for one function. The solution cell that defines it has the tag ``graded``, and a cell with the tag
``test`` calls it. The graded functions stand alone: they need imports and definitions of their chapter, never a value
that the chapter computes, so that they can be tested without running it.
"""

import ast
import builtins
import re
import symtable
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"(?m)^### Exercise (\d+)")
MAGIC = re.compile(r"(?m)^(\s*)[%!].*$")


@dataclass(frozen=True)
class Graded:
    """A graded exercise of a chapter: its key such as ``01.2``, its function, the solution and the visible test."""

    key: str
    name: str
    solution: str
    test: str


def read(path):
    return nbformat.read(path, as_version=4)


def chapter_paths(root=ROOT):
    return sorted((root / "notebooks").glob("[0-9]*.ipynb"))


def number_of(path):
    """The two digits with which a chapter's file begins."""
    return Path(path).stem[:2]


def tags(cell):
    return cell.metadata.get("tags", [])


def roles(notebook):
    """Each cell with its role and the number of its exercise (0 outside of one).

    Roles: ``body``, ``prompt``, ``solution``, ``test``.
    """
    number, found = 0, []
    for cell in notebook.cells:
        heading = HEADING.findall(cell.source) if cell.cell_type == "markdown" else []
        if heading:
            number, role = int(heading[-1]), "prompt"
        elif number and "test" in tags(cell):
            role = "test"
        elif number and "hide-cell" in tags(cell):
            role = "solution"
        else:
            role = "body"
            number = 0 if cell.cell_type == "markdown" else number
        found.append((cell, role, number if role != "body" else 0))
    return found


def functions(source):
    """The names of the functions that a cell defines at its top level."""
    return [node.name for node in parsed(source).body if isinstance(node, ast.FunctionDef)]


def graded(notebook, chapter):
    """The graded exercises of a chapter, in order; a cell that breaks the rules raises a ValueError."""
    solutions, tests = {}, {}
    for cell, role, number in roles(notebook):
        if role == "solution" and "graded" in tags(cell):
            solutions.setdefault(number, []).append(cell.source)
        elif role == "test":
            tests.setdefault(number, []).append(cell.source)
    problems = [
        f"exercise {n}: one graded cell and one test are needed" for n in solutions.keys() ^ tests.keys()
    ]
    problems += [
        f"exercise {n}: {len(kind[n])} cells of one kind"
        for kind in (solutions, tests)
        for n in kind
        if len(kind[n]) > 1
    ]
    if problems:
        raise ValueError(f"chapter {chapter}: " + "; ".join(problems))
    return [
        Graded(f"{chapter}.{n}", functions(source)[0], source, tests[n][0])
        for n, (source,) in sorted(solutions.items())
    ]


def stub(source, name):
    """The blank form of a function: its signature, its first sentence, and nothing in it."""
    node = next(n for n in parsed(source).body if isinstance(n, ast.FunctionDef) and n.name == name)
    node.body = [node.body[0], ast.Expr(ast.Constant(...))]
    return ast.unparse(node) + "  # your code"


# --- what a function needs


def parsed(source):
    """The syntax tree of a cell, lines for the notebook alone (``%pip``) left out; an empty one if it has errors."""
    try:
        return ast.parse(MAGIC.sub(r"\1pass", source))
    except SyntaxError:
        return ast.parse("")


def definitions(sources):
    """Name to statement, for what cells import, define or set to a literal at their top level; the last counts."""
    found = {}
    for order, node in enumerate(node for source in sources for node in parsed(source).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif (
            isinstance(node, ast.Assign) and is_literal(node.value) and isinstance(node.targets[0], ast.Name)
        ):
            names = [node.targets[0].id]
        else:
            continue
        found |= {name: (order, ast.unparse(node)) for name in names}
    return found


def is_literal(node):
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def free_names(source):
    """The global names that a piece of code reads and does not make itself."""

    def walk(table, top):
        for symbol in table.get_symbols():
            made = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
            if symbol.is_referenced() and (symbol.is_global() or top) and not (top and made):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child, False)

    table = symtable.symtable(source, "cell", "exec")
    own = {
        s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()
    }
    return set(walk(table, True)) - own - set(dir(builtins))


def standing_alone(sources, names):
    """The code that makes some names, with the imports and definitions of the cells that they need, and nothing else.

    A name that no cell imports, defines or sets to a literal raises a LookupError.
    """
    known, needed, todo = definitions(sources), {}, sorted(names)
    while todo:
        name = todo.pop()
        if name in needed:
            continue
        if name not in known:
            raise LookupError(name)
        needed[name] = known[name]
        todo += sorted(free_names(known[name][1]) - needed.keys())
    return "\n".join(text for _, text in sorted(set(needed.values())))


def answer_code(notebook, question):
    """The code of an answer in a notebook and of what it and the visible test need, standing alone."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return standing_alone(sources, {question.name} | free_names(question.test))
