"""Arguments as source text: plausible ones by the parameter's name, else by its annotation; hostile ones for any."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from random import Random

from fuzz.plausible import ANNOTATED, NAMED
from fuzz.special import SPECIAL

NUMBERS = """
    0|1|-1|2|0.5|1e-8|1e-170|5e-324|-5e-324|1e308|-1e308|math.inf|-math.inf|math.nan|10**400|-10**400|True|1j|2.0|1e-320
    fractions.Fraction(1, 3)|fractions.Fraction(10**400, 3)|decimal.Decimal('0.5')|np.float32(0.5)|np.float64(2)
    np.float16(0.1)|np.int64(3)|np.bool_(True)|np.array(0.5)|np.array([0.5])|torch.tensor(0.5)|torch.tensor([0.5])
    torch.tensor(0.5, requires_grad=True)|torch.tensor(2)|'0.5'|1 - 1e-16|2**63|1e17
    -0.0|np.float64('nan')|np.longdouble(0.5)
    np.int8(2)|np.uint64(2**63)|np.float64(1e308)|type('Own', (float,), {})(0.5)
    np.timedelta64(1, 's')|type('Own', (int,), {})(2)|-1e-300|0.1 + 0.2|1e16|-(2**63) - 1|math.pi
"""
ARRAYS = """
    []|[1.0]|[0.0, 0.0]|[1.0, math.nan]|[1.0, math.inf]|[-1.0, 2.0]|[1e308, 1e308]|[1e-320, 1.0]|[5e-324]|[10**400, 1]
    [2.0, 1.0]|[1, 2]|(1.0, 0.5)|[[1.0], [1.0, 2.0]]|['a', None]|[True, False]|[1j, 2.0]|range(3)|iter([1.0, 2.0])
    {1.0, 2.0}|{'a': 1.0}|(v for v in [1.0])|np.ones((0, 2))|np.ones(0)|np.ones((2, 2))|np.ones((1, 1, 1))
    np.ma.masked_array([1.0, 2.0], [False, True])|np.ma.masked|np.array(['a'])|np.array([None, 1])|np.array([1j, 2])
    np.array([True, False])|np.array([1, 2])|np.array([1.0, 2.0], dtype=np.float16)|pd.Series([1.0, 2.0], [5, 6])
    memoryview(b'ab')|np.zeros(2, dtype=[('a', 'f8')])|np.broadcast_to(1.0, 3)|np.matrix([[1.0, 2.0]])|[[], []]
    [True, 2.0]|np.array([1.0, 2.0], dtype=object)|collections.deque([1.0, 2.0])|np.array(1.0)|[np.nan, np.nan]
    [-0.0, 0.0]|[1e300, 1e-300]|[1.0, None]
    [fractions.Fraction(1, 3), 1]|[torch.tensor(1.0), 2.0]|np.longdouble([0.5, 1])
    np.array(['2020-01-01'], dtype='datetime64[D]')|np.array([1.0, 2.0]).astype('>f8')|np.arange(6.0)[::-2]
"""
TENSORS = """
    torch.ones(3)|torch.ones(0)|torch.ones(17)|torch.ones(17).double()|torch.zeros(17)|torch.ones(3, dtype=torch.int64)
    torch.ones(17, dtype=torch.complex64)|torch.ones(3, dtype=torch.bool)|torch.ones(17, dtype=torch.float16)
    torch.ones(17, device='meta')|torch.ones(3).to_sparse()|torch.full((17,), math.nan)|torch.full((3, 3), math.inf)
    torch.ones(17, requires_grad=True)|torch.ones(3, 2)|torch.tensor(1.0)|torch.full((17,), 1e38)|torch.eye(4).double()
    torch.ones(17, dtype=torch.bfloat16)|torch.ones(2, 2, 2)|torch.tensor([[1.0, 2.0], [3.0, 4.0]])|torch.ones(1)
    torch.ones(1).expand(17)|torch.arange(34.0)[::2]|torch.ones(17).requires_grad_().mul(2)|torch.ones(17, 1)
    torch.ones(17, dtype=torch.int8)|torch.full((17,), 1e-40)|torch.full((17,), -math.inf)|torch.ones(4).double()
    torch.eye(3).to_sparse_csr()|torch.ones(17, dtype=torch.float8_e4m3fn)|torch.ones(2, 17)|torch.ones(2**14).double()
    torch.zeros(4, 4)|torch.nn.Parameter(torch.ones(3))|torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
"""
THINGS = """
    None|...|True|'text'|''|'naïve'|b'bytes'|object()|()|{}|int|print|lambda *args: None|lambda: 1 / 0
    torch.nn.Linear(2, 2)|torch.nn.Linear|rl|Odd()|[None]|[[]]|('x', 'y')|datetime.date(2020, 1, 1)|torch.float64
    torch.device('cpu')|slice(None)|pathlib.Path('text')|np.dtype('f8')|NotImplemented|1|0.5|math.nan|10**400
    [1.0, 2.0]|np.ones(3)|torch.ones(3)|spectrum|model|operator|data|(y, x)|(x, y.float())|(x, y + 7)|(x, y[:3])|(x,)
    (x, y, y)|(x[:0], y[:0])|(x / 0, y)|[data]|(np.ones((6, 2)), np.ones(6))|iter([data])|torch.nn.Sequential()
    torch.nn.Identity()|double|bound|ax|basin|generator|study|torch.nn.Linear(2, 2, device='meta')
    torch.nn.Linear(2, 2).half()|torch.nn.Linear(2, 2).requires_grad_(False)|F.relu|lambda outputs, targets: outputs
    lambda outputs, targets: math.nan * outputs.sum()|lambda outputs, targets: 1.0|report|matrix|'meta'|'cuda'|'sgd'
    Evil()|Evil|chr(0)|'x' * 10**4
    chr(0xD800)|functools.partial(F.relu)|[[[[]]]]|np.str_('mean')|type('Own', (str,), {})('mlp')
    torch.nn.LazyLinear(2)|torch.nn.Dropout(0.5)|torch.nn.Bilinear(2, 2, 1)
    torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))|(x, y.double())
    (x.double(), y)|(x, None)|((x, x), y)
    lambda x, y: 'text'|lambda outputs, targets: None|(x.half(), y)
    [(x, y), None]|(x * math.nan, y)|(x, y * 0)|(x[0], y[0])
    {'x': x, 'y': y}|pd.DataFrame({'a': [1.0]})|[record]|history|torch.nn.MSELoss()|folder
"""

# Sizes of work: a huge one is a legitimate request that takes as long as it says.
WORK = re.compile(
    r"^(num_\w+|epochs|steps|width|widths|\w*batch_size|chunk_size|block_size|channels|degree|n|keep|number)$"
)
TOO_MUCH = re.compile(r"10\*\*400|1e17|2\*\*63|1e308|\b17\b")
LARGE_MATRIX = "torch.ones(2**14).double()"  # of 2 GiB, to which matrix_with_spectrum applies a rotation
JOBS = "1|0|'a'|1.5|None|True|10**400|math.nan|[1]|object()"  # no further processes


def split(text: str) -> list[str]:
    """The values of a row; none contains a bar."""
    return [value.strip() for line in text.strip().splitlines() for value in line.split("|") if value.strip()]


def rows(table: str) -> Iterator[tuple[str, list[str]]]:
    """The keys of a table and their values."""
    for line in table.strip().splitlines():
        key, _, values = line.partition(": ")
        yield key, split(values)


@functools.cache
def plausible(target: str, name: str, annotation: str) -> tuple[str, ...]:
    """Values for a parameter of a target; empty where neither its name nor its annotation says any."""
    for key, values in rows(SPECIAL):
        names, _, place = key.partition(" of ")
        if name in names.split(", ") and re.search(place, target):
            return tuple(values)
    for names, values in rows(NAMED):
        if name in names.split(", "):
            return tuple(values)
    kinds = dict(rows(ANNOTATED))
    parts = [kind for kind in sorted(kinds, key=len, reverse=True) if kind in annotation]
    exact = annotation.removesuffix(" | None")
    return tuple(kinds[exact] if exact in kinds else kinds[parts[0]] if parts else ())


def hostile(parameter: inspect.Parameter, random: Random) -> str:
    """A value that is wrong, extreme or of another kind; more often of a kind that is near the right one."""
    if parameter.name == "n_jobs":
        return random.choice(split(JOBS))
    near = [
        pool
        for pool, kind in ((NUMBERS, "float|int"), (ARRAYS, "rray|equence|terable"), (TENSORS, "Tensor"))
        if re.search(kind, str(parameter.annotation))
    ]
    pool = random.choice([NUMBERS, ARRAYS, TENSORS, THINGS, *near * 4])
    values = split(pool)
    if WORK.match(parameter.name):
        values = [value for value in values if not TOO_MUCH.search(value)]
    if parameter.name == "eigenvalues":
        values = [value for value in values if value != LARGE_MATRIX]
    return random.choice(values)
